use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::{net::TcpListener, signal::unix, sync::watch};
use tracing_subscriber::EnvFilter;

use crate::{
    admin,
    compile::compile,
    problem::Severity,
    source::{Folder, Watch},
    store::Store,
    xds,
};

/// Serve Envoys from a folder of YAML files, and follow its changes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi serve --config ./config
  meltemi serve --config ./config --xds 0.0.0.0:18000 --admin 127.0.0.1:18080 --log json")]
pub struct Serve {
    /// Folder with ServiceEntry, DestinationRule, Service, EndpointSlice, MetaRouter and ApplicationProtocol objects.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Address for Envoys (gRPC, ADS).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:18000")]
    xds: SocketAddr,
    /// Address for people and Prometheus (HTTP).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:18080")]
    admin: SocketAddr,
    /// How to write log lines. `RUST_LOG` chooses which.
    #[arg(long, value_enum, default_value_t = Log::Text)]
    log: Log,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Log {
    Text,
    Json,
}

impl Serve {
    pub fn run(self) -> anyhow::Result<u8> {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
        match self.log {
            Log::Text => log.init(),
            Log::Json => log.json().init(),
        }
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        runtime.block_on(self.serve())?;
        Ok(0)
    }

    async fn serve(self) -> anyhow::Result<()> {
        let store = Store::new();
        let xds = bind(self.xds, "xDS").await?;
        let admin = bind(self.admin, "the admin endpoint").await?;
        // Before the first look, so that no change falls between.
        let watch = Watch::new(&self.config).with_context(|| format!("cannot watch {}", self.config.display()))?;
        let folder = Folder::new(&self.config);
        let (stop, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the sender is gone: that is the end as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        tracing::info!(xds = %self.xds, admin = %format!("http://{}/", self.admin), config = %self.config.display(), "serving");
        let follower = tokio::spawn(follow(folder, watch, store.clone()));
        let servers = async {
            tokio::try_join!(
                async { xds::serve(xds, store.clone(), wait(stopped.clone())).await.context("xDS server") },
                async { admin::serve(admin, store.clone(), wait(stopped.clone())).await.context("admin server") },
            )
        };
        tokio::select! {
            result = servers => { result?; }
            signal = terminated() => {
                signal?;
                tracing::info!("stopping");
                // Streams of proxies have no end of their own: they are cut, and the proxies keep what they have.
                let _ = stop.send(true);
            }
        }
        follower.abort();
        Ok(())
    }
}

async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {what}"))
}

async fn terminated() -> anyhow::Result<()> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Publishes the folder, again after each change.
async fn follow(mut folder: Folder, mut watch: Watch, store: Arc<Store>) {
    loop {
        let loaded = folder.load();
        let compiled = compile(&loaded.model);
        let problems: Vec<_> = loaded.problems.into_iter().chain(compiled.problems).collect();
        for problem in &problems {
            match problem.severity {
                Severity::Error => tracing::error!("{problem}"),
                Severity::Warning => tracing::warn!("{problem}"),
            }
        }
        store.publish(compiled.snapshot, problems);
        tracing::info!(generation = store.now().generation, "published");
        watch.changed().await;
    }
}
