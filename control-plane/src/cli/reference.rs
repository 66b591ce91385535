use clap::{Args, ValueEnum};
use meltemi_engine::{
    config::{DeclareConfig, InletConfig, OutletConfig},
    relay::RelayConfig,
};
use schemars::schema_for;

use crate::model::{ApplicationProtocol, MetaRouter};

/// List the protocols this build speaks, with their options.
#[derive(Debug, Args)]
pub struct Codecs {}

impl Codecs {
    pub fn run(self) -> anyhow::Result<u8> {
        for entry in meltemi_codecs::ALL {
            println!("{}: {}", entry.name, entry.summary);
            for option in entry.options {
                let values = match option.values {
                    [] => "any text".to_owned(),
                    [default, rest @ ..] => std::iter::once(format!("{default} (default)"))
                        .chain(rest.iter().map(|v| (*v).to_owned()))
                        .collect::<Vec<_>>()
                        .join(", "),
                };
                println!("  {}: {values}\n      {}", option.name, option.help);
            }
        }
        Ok(0)
    }
}

/// Print the JSON Schema of a filter's configuration or of an object's `spec`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi schema inlet
  meltemi schema meta-router")]
pub struct Schema {
    /// Of what.
    #[arg(value_enum)]
    of: Of,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Of {
    Inlet,
    Outlet,
    Declare,
    Relay,
    MetaRouter,
    ApplicationProtocol,
}

impl Schema {
    pub fn run(self) -> anyhow::Result<u8> {
        let schema = match self.of {
            Of::Inlet => schema_for!(InletConfig),
            Of::Outlet => schema_for!(OutletConfig),
            Of::Declare => schema_for!(DeclareConfig),
            Of::Relay => schema_for!(RelayConfig),
            Of::MetaRouter => schema_for!(MetaRouter),
            Of::ApplicationProtocol => schema_for!(ApplicationProtocol),
        };
        println!("{}", serde_json::to_string_pretty(&schema)?);
        Ok(0)
    }
}
