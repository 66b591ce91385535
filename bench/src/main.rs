//! Load generator, echo servers and idle clients of `make bench`, and the sidecars of `make bench-control-plane`. The
//! scripts in `bench/` start them and read their JSON.

mod hold;
mod load;
mod protocol;
mod serve;
mod sidecars;

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use protocol::Protocol;

#[derive(Debug, Parser)]
#[command(name = "meltemi-bench", about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer every request with its own payload.
    Serve(Target),
    /// Call in a closed loop; print one line of JSON.
    Load(load::Load),
    /// Make connections with one call each, say `held`, and keep them until the end of standard input.
    Hold(hold::Hold),
    /// Follow an xDS server as sidecars do; tell what they got.
    Sidecars(sidecars::Sidecars),
}

/// What is spoken where.
#[derive(Debug, Clone, Args)]
struct Target {
    #[arg(long, value_enum)]
    protocol: Protocol,
    #[arg(long)]
    address: SocketAddr,
}

fn main() -> anyhow::Result<()> {
    let command = Cli::parse().command;
    // One thread: a generator that takes as many processors as it likes would measure itself.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        match command {
            Command::Serve(target) => serve::run(&target).await,
            Command::Load(load) => load.run().await,
            Command::Hold(hold) => hold.run().await,
            Command::Sidecars(sidecars) => sidecars.run().await,
        }
    })
}
