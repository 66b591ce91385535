use clap::Args;

use super::out;
use crate::kubernetes::crds_yaml;

/// Print the Kubernetes definitions of our kinds.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi crds | kubectl apply --server-side -f -")]
pub struct Crds {}

impl Crds {
    pub fn run(self) -> anyhow::Result<u8> {
        out::text(crds_yaml()?);
        Ok(0)
    }
}
