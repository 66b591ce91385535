//! `meltemi istio`: what would be written into a mesh, what would not work there, and how all of it is taken out again.

mod check;
mod mesh;
mod plan;
mod remove;

use clap::{Args, Subcommand};

/// What is written beside Istio's objects: look at it before it is, find what would not work, or take it out again.
#[derive(Debug, Args)]
pub struct Istio {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(plan::Plan),
    Check(check::Check),
    Remove(remove::Remove),
}

impl Istio {
    pub fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Plan(plan) => plan.run(),
            Command::Check(check) => check.run(),
            Command::Remove(remove) => remove.run(),
        }
    }
}
