//! Where the objects of a mesh come from, and how ours are made.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use kube::Client;

use super::super::{kubernetes::host_and_port, sidecars::Sidecars, wasm::Wasm};
use crate::{
    istio::{self, Compiled, Facts, Options},
    kubernetes,
    model::check_annotations,
    problem::{Kind, Problem},
    source::Folder,
};

/// A mesh: a folder's, or a cluster's.
#[derive(Debug, Args)]
pub struct Mesh {
    /// Folder with the mesh's objects.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["kubernetes", "kubeconfig"], conflicts_with = "kubernetes")]
    config: Option<PathBuf>,
    /// The cluster that `kubectl` would talk to.
    #[arg(long)]
    kubernetes: bool,
    /// The cluster that this file tells of.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    kubeconfig: Option<PathBuf>,
    /// Istio's root namespace.
    #[arg(long, value_name = "NS", default_value = "istio-system")]
    pub root_namespace: String,
    #[command(flatten)]
    sidecars: Sidecars,
    #[command(flatten)]
    wasm: Wasm,
    /// Where sidecars reach our xDS server.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port,
        default_value = "meltemi.meltemi-system.svc.cluster.local:18000")]
    xds_service: (String, u16),
}

impl Mesh {
    /// Proxies without modules get our filters in Wasm.
    pub fn has_plugins(&self) -> bool {
        self.wasm.is_given()
    }

    /// Compiles it; with the cluster, if it is one.
    pub async fn compile(&self) -> anyhow::Result<(Compiled, Option<Client>)> {
        let options = Options { wasm: self.wasm.code()?, ..self.sidecars.options(Some(self.xds_service.clone()))? };
        let (model, facts, problems, client) = match &self.config {
            Some(folder) => {
                let loaded = Folder::new(folder).load();
                anyhow::ensure!(loaded.is_readable, "cannot read the folder {}", folder.display());
                let facts =
                    Facts { root_namespace: self.root_namespace.clone(), others: loaded.others, ..Facts::default() };
                let of_mesh = |problem: &Problem| problem.kind != Kind::Standalone;
                let problems = loaded.problems.into_iter().filter(of_mesh).collect();
                (loaded.model, facts, problems, None)
            }
            None => {
                let client =
                    kubernetes::user_client(self.kubeconfig.as_deref()).await.context("cannot reach the cluster")?;
                let (model, facts, problems) = kubernetes::look(&client, &self.root_namespace)
                    .await
                    .context("cannot read the cluster's objects")?;
                (model, facts, problems, Some(client))
            }
        };
        let mut compiled = istio::compile(&model, &facts, &options);
        compiled.problems.splice(0..0, problems);
        compiled.problems.extend(check_annotations(&model));
        Ok((compiled, client))
    }
}
