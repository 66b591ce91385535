//! What this build knows: codecs and their options, schemas of what users write.

mod markdown;

use clap::{Args, ValueEnum};
use meltemi_engine::{
    config::{DeclareConfig, InletConfig, OutletConfig},
    relay::RelayConfig,
};
use schemars::{Schema as JsonSchema, schema_for};

use super::out;
use crate::model::{ApplicationProtocol, MetaRouter};

/// List the protocols this build speaks, with their options.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi codecs
  meltemi codecs | grep -A 20 ^thrift")]
pub struct Codecs {}

impl Codecs {
    pub fn run(self) -> anyhow::Result<u8> {
        for entry in meltemi_codecs::ALL {
            out::line(format_args!("{}: {}", entry.name, entry.summary));
            for option in entry.options {
                let values = match option.values {
                    [] => "any text".to_owned(),
                    [default, rest @ ..] => std::iter::once(format!("{default} (default)"))
                        .chain(rest.iter().map(|v| (*v).to_owned()))
                        .collect::<Vec<_>>()
                        .join(", "),
                };
                out::line(format_args!("  {}: {values}\n      {}", option.name, option.help));
            }
        }
        Ok(0)
    }
}

/// Print the JSON Schema of a filter's configuration or of an object's `spec`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi schema inlet
  meltemi schema meta-router
  meltemi schema --markdown > docs/configuration-reference.md")]
pub struct Schema {
    /// Of what.
    #[arg(value_enum, required_unless_present = "markdown")]
    of: Option<Of>,
    /// All of them, as a page for people.
    #[arg(long, conflicts_with = "of")]
    markdown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Of {
    MetaRouter,
    ApplicationProtocol,
    Inlet,
    Outlet,
    Relay,
    Declare,
}

impl Of {
    fn schema(self) -> JsonSchema {
        match self {
            Self::MetaRouter => schema_for!(MetaRouter),
            Self::ApplicationProtocol => schema_for!(ApplicationProtocol),
            Self::Inlet => schema_for!(InletConfig),
            Self::Outlet => schema_for!(OutletConfig),
            Self::Relay => schema_for!(RelayConfig),
            Self::Declare => schema_for!(DeclareConfig),
        }
    }

    /// Heading of its chapter.
    const fn title(self) -> &'static str {
        match self {
            Self::MetaRouter => "MetaRouter",
            Self::ApplicationProtocol => "ApplicationProtocol",
            Self::Inlet => "Filter inlet",
            Self::Outlet => "Bridge outlet",
            Self::Relay => "Filter relay",
            Self::Declare => "Listener filter declare",
        }
    }
}

impl Schema {
    pub fn run(self) -> anyhow::Result<u8> {
        match self.of {
            Some(of) => out::line(serde_json::to_string_pretty(&of.schema())?),
            None => out::text(page()),
        }
        Ok(0)
    }
}

fn page() -> String {
    let mut page = "# Configuration reference

Made from the types by `meltemi schema --markdown`; how they are used is in [Configuration](configuration.md). For objects
the fields of `spec` are listed. Unknown fields are refused.

"
    .to_owned();
    for of in Of::value_variants() {
        markdown::chapter(of.schema().as_value(), of.title(), &mut page);
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_the_docs_is_up_to_date() {
        let page = include_str!("../../../../docs/configuration-reference.md");
        assert!(page == super::page(), "run: meltemi schema --markdown > docs/configuration-reference.md");
    }
}
