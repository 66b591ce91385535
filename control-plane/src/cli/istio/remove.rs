//! `meltemi istio remove`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::super::out;
use crate::kubernetes::{self, Removal};

/// Delete every object that `serve --kubernetes` wrote into a mesh; yours and our own kinds' stay.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi istio remove --dry-run
  meltemi istio remove --namespace meltemi-system
  meltemi istio remove --kubeconfig ./staging")]
pub struct Remove {
    /// The cluster that this file tells of; without it, the one that `kubectl` would talk to.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where the control plane is: its lease is taken, so that it does not write again what is deleted.
    #[arg(long, value_name = "NS", env = "POD_NAMESPACE", default_value = "meltemi-system")]
    namespace: String,
    /// Only tell what would be deleted.
    #[arg(long)]
    dry_run: bool,
}

impl Remove {
    #[tokio::main(flavor = "current_thread")]
    pub async fn run(self) -> anyhow::Result<u8> {
        let client = kubernetes::user_client(self.kubeconfig.as_deref()).await.context("cannot reach the cluster")?;
        let removal = Removal::new(client, &self.namespace);
        if self.dry_run {
            for target in removal.plan().await? {
                out::line(format_args!("would delete {target}"));
            }
            return Ok(0);
        }
        match removal.run(out::aside).await? {
            Some(time) => out::aside(format_args!(
                "the mesh is as before; a control plane that still runs writes again after {time:?}"
            )),
            None => out::aside("the mesh is as before"),
        }
        Ok(0)
    }
}
