//! The command line.

mod bootstrap;
mod check;
mod crds;
mod demo;
mod install_module;
mod istio;
mod kubernetes;
mod out;
mod reference;
mod serve;
mod sidecars;
mod wasm;
mod xds_tls;

use clap::{Parser, Subcommand};

/// Any layer-7 protocol as a first-class citizen of stock Envoy.
#[derive(Debug, Parser)]
#[command(name = "meltemi", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  meltemi codecs
  meltemi check ./config
  meltemi serve --config ./config
  meltemi bootstrap --xds 127.0.0.1:18000 --node my-proxy > envoy.yaml")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Bootstrap(bootstrap::Bootstrap),
    Check(check::Check),
    Crds(crds::Crds),
    Codecs(reference::Codecs),
    Schema(reference::Schema),
    Demo(demo::Demo),
    Istio(istio::Istio),
    InstallModule(install_module::InstallModule),
}

/// Runs the command line; gives the exit code.
///
/// # Errors
/// What the user must be told.
pub fn run() -> anyhow::Result<u8> {
    match Cli::parse().command {
        Command::Serve(command) => command.run(),
        Command::Bootstrap(command) => command.run(),
        Command::Check(command) => Ok(command.run()),
        Command::Crds(command) => command.run(),
        Command::Codecs(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Istio(command) => command.run(),
        Command::InstallModule(command) => command.run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
