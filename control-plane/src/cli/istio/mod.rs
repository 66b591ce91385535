//! `meltemi istio`: what would be written into a mesh, and what would not work there.

mod check;
mod mesh;
mod plan;

use clap::{Args, Subcommand};

/// Look into what is written beside Istio's objects, before it is, and into what would not work.
#[derive(Debug, Args)]
pub struct Istio {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(plan::Plan),
    Check(check::Check),
}

impl Istio {
    pub fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Plan(plan) => plan.run(),
            Command::Check(check) => check.run(),
        }
    }
}
