use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::{
    net::TcpListener,
    signal::unix,
    sync::watch,
    task::{JoinError, block_in_place},
};
use tracing_subscriber::EnvFilter;

use super::{kubernetes::Kubernetes, wasm::Wasm, xds_tls::XdsTls};
use crate::{
    admin,
    compile::Host,
    last_good::{LastGood, judge},
    problem::{Problem, Severity},
    source::{Folder, Loaded, Reading, State, Watch},
    store::Store,
    xds,
};

/// Time after which the folder is looked at even if nobody told of a change.
const RESCAN: Duration = Duration::from_secs(30);
/// What is logged: of the Kubernetes client nothing that we do not say ourselves.
const LOG: &str = "info,kube_runtime=off,kube_client=off";
/// Looks at a folder in which somebody is writing all the time.
const LOOKS: usize = 3;

/// Serve proxies from a folder of YAML files, or from a Kubernetes cluster, and follow its changes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi serve --config ./config
  meltemi serve --config ./config --xds 0.0.0.0:18000 --admin 127.0.0.1:18080 --log json
  meltemi serve --config /etc/meltemi --state /var/lib/meltemi
  meltemi serve --config /etc/meltemi --xds 0.0.0.0:18000 --xds-cert tls.crt --xds-key tls.key --xds-client-ca ca.crt
  meltemi serve --config ./config --wasm /usr/lib/meltemi/meltemi.wasm
  meltemi serve --kubernetes --xds 0.0.0.0:18000 --admin 0.0.0.0:18080
  meltemi serve --kubernetes --xds 0.0.0.0:18000 --wasm oci://registry.internal/meltemi-wasm:0.1.0
  meltemi serve --kubernetes --kubeconfig ~/.kube/config")]
pub struct Serve {
    /// Folder with ServiceEntry, DestinationRule, Service, EndpointSlice, MetaRouter and ApplicationProtocol objects.
    #[arg(long, value_name = "DIR", required_unless_present = "kubernetes")]
    config: Option<PathBuf>,
    #[command(flatten)]
    kubernetes: Kubernetes,
    /// Folder for what was good last, so that a restart with a broken file serves it. `<config>/.meltemi` if absent.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Address for Envoys (gRPC, ADS).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:18000")]
    xds: SocketAddr,
    #[command(flatten)]
    tls: XdsTls,
    #[command(flatten)]
    wasm: Wasm,
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
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
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
        let tls = self.tls.settings();
        let Some(config) = self.config else {
            return self.kubernetes.serve(self.xds, tls, self.admin, self.wasm.code()?).await;
        };
        let host = self.wasm.host()?;
        if self.kubernetes.sidecars.given() {
            anyhow::bail!(
                "--stock-envoy, --telemetry, --access-log and --xds-service-* are for sidecars: they need --kubernetes"
            );
        }
        let store = Store::new();
        let xds = bind(self.xds, "xDS").await?;
        let admin = bind(self.admin, "the admin endpoint").await?;
        let mut state = State::new(self.state.unwrap_or_else(|| config.join(".meltemi")), &config);
        // Before the first look, so that no change falls between.
        let watch = Watch::new(&config, state.path()).with_context(|| format!("cannot watch {}", config.display()))?;
        let good = state.load();
        let last = LastGood::from_objects(good.iter().cloned());
        let source = Source { folder: Folder::from_objects(&config, good), last, state, saves: true, host };
        let (stop, stopped) = watch::channel(false);
        let wait = |mut stopped: watch::Receiver<bool>| async move {
            // An error means that the sender is gone: that is the end as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        tracing::info!(xds = %self.xds, admin = %format!("http://{}/", self.admin), config = %config.display(), "serving");
        let mut follower = tokio::spawn(follow(source, watch, store.clone()));
        let servers = async {
            tokio::try_join!(
                async { xds::serve(xds, tls, store.clone(), wait(stopped.clone())).await.context("xDS server") },
                async { admin::serve(admin, store.clone(), wait(stopped.clone())).await.context("admin server") },
            )
        };
        let outcome = tokio::select! {
            result = servers => result.map(|_| ()),
            ended = &mut follower => return Err(stopped_following(ended)),
            signal = terminated() => {
                tracing::info!("stopping");
                // Streams of proxies have no end of their own: they are cut, and the proxies keep what they have.
                let _ = stop.send(true);
                signal
            }
        };
        // Not while it is in the middle of something, which would find the runtime gone.
        follower.abort();
        let _ = follower.await;
        outcome
    }
}

pub(super) async fn bind(address: SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} for {what}"))
}

pub(super) async fn terminated() -> anyhow::Result<()> {
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Without the source changes would be passed over in silence.
fn stopped_following(ended: Result<(), JoinError>) -> anyhow::Error {
    match ended {
        Ok(()) => anyhow::anyhow!("the folder is not followed any more"),
        Err(error) => anyhow::Error::new(error).context("following the folder has failed; this is a bug"),
    }
}

/// A folder, and what was good of it.
struct Source {
    folder: Folder,
    last: LastGood,
    state: State,
    /// What is good is written down.
    saves: bool,
    /// What runs the filters.
    host: Host,
}

/// Publishes the folder, again after each change.
async fn follow(mut source: Source, mut watch: Watch, store: Arc<Store>) {
    let mut before: Option<Reading> = None;
    let mut noticed = true;
    loop {
        let reading = read(&source.folder, &mut watch).await;
        let mut again = None;
        // A look that nobody asked for is no news, if it finds what was there before.
        if noticed || before.as_ref() != Some(&reading) {
            let loaded = source.folder.take(&reading);
            again = loaded.again;
            block_in_place(|| source.publish(loaded, &store));
        }
        // What is half written may become whole by time alone.
        before = again.is_none().then_some(reading);
        noticed = watch.changed(again.unwrap_or(RESCAN)).await;
    }
}

/// Reads when nobody is writing.
async fn read(folder: &Folder, watch: &mut Watch) -> Reading {
    for _ in 0..LOOKS {
        let reading = block_in_place(|| folder.read());
        if !watch.is_written() {
            return reading;
        }
        watch.quiet().await;
    }
    folder.read()
}

impl Source {
    fn publish(&mut self, loaded: Loaded, store: &Store) {
        if !loaded.is_readable && store.now().generation == 0 {
            // Proxies keep what they have. An empty configuration would take it from them.
            tell(&loaded.problems);
            tracing::error!("not ready: nothing is published before the folder can be read");
            store.wait_with(loaded.problems);
            return;
        }
        let served = self.last.take(loaded.model, |model| judge(model, &self.host));
        let problems: Vec<Problem> = loaded.problems.into_iter().chain(served.problems).collect();
        tell(&problems);
        store.publish(served.compiled.snapshot, problems);
        tracing::info!(generation = store.now().generation, "published");
        if self.saves
            && let Err(error) = self.state.save(&self.last.objects())
        {
            self.saves = false;
            let place = self.state.path().display();
            tracing::warn!("{place}: cannot write down what is good, so a restart will not know it: {error}");
        }
    }
}

fn tell(problems: &[Problem]) {
    for problem in problems {
        match problem.severity {
            Severity::Error => tracing::error!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.test]
  ports: [{number: 9090, name: tcp-metaprotocol-thrift}]
  resolution: STATIC
";

    fn source(config: &std::path::Path) -> Source {
        let mut state = State::new(config.join(".meltemi"), config);
        let good = state.load();
        let last = LastGood::from_objects(good.iter().cloned());
        Source { folder: Folder::from_objects(config, good), last, state, saves: true, host: Host::Module }
    }

    fn publish(source: &mut Source, store: &Store) {
        let loaded = source.folder.load();
        source.publish(loaded, store);
    }

    #[test]
    fn nothing_is_published_before_the_folder_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        let (mut source, store) = (source(&config), Store::new());
        publish(&mut source, &store);
        let now = store.now();
        assert_eq!((now.generation, now.problems.len()), (0, 1));
        std::fs::create_dir(&config).unwrap();
        publish(&mut source, &store);
        assert_eq!((store.now().generation, store.now().problems.len()), (1, 0));
        std::fs::remove_dir_all(&config).unwrap();
        publish(&mut source, &store);
        assert_eq!((store.now().generation, store.now().problems.len()), (2, 1));
    }

    #[test]
    fn a_restart_with_a_broken_file_serves_what_was_good() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, SERVICE).unwrap();
        let store = Store::new();
        publish(&mut source(dir.path()), &store);
        let good = store.now().snapshot;
        let wrong = SERVICE.replace("name: tcp-metaprotocol-thrift", "name: tcp-metaprotocol-thrifft");
        for broken in [SERVICE.get(..50).unwrap(), &wrong, "", "{{{"] {
            std::fs::write(&file, broken).unwrap();
            let mut source = source(dir.path());
            for _ in 0..2 {
                publish(&mut source, &store);
                let now = store.now();
                assert_eq!(format!("{:?}", now.snapshot), format!("{good:?}"), "{broken}");
                assert!(now.problems.iter().any(|problem| problem.reason.contains("last good")), "{broken}");
            }
        }
        std::fs::remove_file(&file).unwrap();
        publish(&mut source(dir.path()), &store);
        assert_ne!(format!("{:?}", store.now().snapshot), format!("{good:?}"), "what is gone is gone");
    }

    #[test]
    fn a_state_that_cannot_be_read_or_written_is_done_without() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.yaml"), SERVICE).unwrap();
        let store = Store::new();
        for text in ["no state", "{\"version\": 99, \"objects\": []}"] {
            std::fs::create_dir_all(dir.path().join(".meltemi")).unwrap();
            std::fs::write(dir.path().join(".meltemi/last-good.json"), text).unwrap();
            publish(&mut source(dir.path()), &store);
            assert_eq!(store.now().problems.len(), 0);
        }
        std::fs::remove_dir_all(dir.path().join(".meltemi")).unwrap();
        std::fs::write(dir.path().join(".meltemi"), "in the way").unwrap();
        let mut source = source(dir.path());
        publish(&mut source, &store);
        assert!(!source.saves);
        assert_eq!(store.now().problems.len(), 0);
    }

    #[tokio::test]
    async fn the_end_of_the_source_is_the_end() {
        let failed = tokio::spawn(async { panic!("no") }).await;
        assert!(stopped_following(failed).to_string().contains("bug"));
    }
}
