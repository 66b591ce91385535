//! `meltemi serve --kubernetes`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::watch;

use super::{
    serve::{bind, terminated},
    sidecars::Sidecars,
};
use crate::{admin, compile::Code, istio::Options, kubernetes, store::Store, xds};

/// Serving a cluster.
#[derive(Debug, Args)]
#[group(id = "cluster", multiple = true)]
pub struct Kubernetes {
    /// Read objects from the Kubernetes cluster that this runs in, and write Istio's.
    #[arg(long, conflicts_with = "config")]
    pub kubernetes: bool,
    /// How the cluster is reached; without it, as the pod's service account.
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Our own namespace: the lease by which one replica writes is there.
    #[arg(long, value_name = "NS", env = "POD_NAMESPACE", default_value = "meltemi-system")]
    namespace: String,
    /// Istio's root namespace.
    #[arg(long, value_name = "NS", default_value = "istio-system")]
    root_namespace: String,
    /// Address under which sidecars reach our xDS server, needed for ports named tcp-metaprotocol-*.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port, requires = "kubernetes")]
    xds_service: Option<(String, u16)>,
    #[command(flatten)]
    pub sidecars: Sidecars,
}

impl Kubernetes {
    pub async fn serve(
        self,
        xds: SocketAddr,
        tls: Option<xds::tls::Settings>,
        admin: SocketAddr,
        wasm: Option<Code>,
    ) -> anyhow::Result<()> {
        if self.xds_service.is_some() && self.sidecars.tls() != tls.is_some() {
            let (we, they) = if tls.is_some() { ("TLS", "plain text") } else { ("plain text", "TLS") };
            bail!("the xDS server would speak {we}, and sidecars {they}: --xds-cert and --xds-service-tls go together");
        }
        let istio = Options { wasm, ..self.sidecars.options(self.xds_service)? };
        let store = Store::new();
        let client = kubernetes::client(self.kubeconfig.as_deref()).await.context("cannot reach the cluster")?;
        let (xds_listener, admin_listener) = (bind(xds, "xDS").await?, bind(admin, "the admin endpoint").await?);
        let settings = kubernetes::Settings { namespace: self.namespace, root_namespace: self.root_namespace, istio };
        let (stop, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the sender is gone: that is the end as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        tracing::info!(%xds, admin = %format!("http://{admin}/"), "serving the cluster");
        let cluster = tokio::spawn(kubernetes::serve(client, settings, store.clone(), stopped.clone()));
        let mut cluster = std::pin::pin!(cluster);
        let servers = async {
            tokio::try_join!(
                async {
                    xds::serve(xds_listener, tls, store.clone(), wait(stopped.clone())).await.context("xDS server")
                },
                async {
                    admin::serve(admin_listener, store.clone(), wait(stopped.clone())).await.context("admin server")
                },
            )
        };
        tokio::select! {
            result = servers => { result?; }
            result = &mut cluster => return result.context("serving the cluster has failed; this is a bug")?,
            signal = terminated() => {
                signal?;
                tracing::info!("stopping");
                // Streams of proxies have no end of their own: they are cut, and the proxies keep what they have.
                let _ = stop.send(true);
                // The lease is given back, so that another replica writes at once.
                cluster.await.context("serving the cluster has failed")??;
            }
        }
        Ok(())
    }
}

/// Host and port; an IPv6 address stands in brackets.
pub(super) fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let parts = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?)));
    parts
        .filter(|(host, _)| !host.is_empty())
        .ok_or_else(|| "expected a host and a port, as in xds.meltemi:18000".to_owned())
}
