//! From the cluster's objects to what proxies are served and what is written, again after each change.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    sync::watch,
    task::{JoinSet, block_in_place},
    time::sleep,
};
use tracing::{error, info, warn};

use super::{
    cache::{About, Cache, Seen},
    debounce::settled,
    events::Events,
    lease::Elector,
    live::{Live, Target},
    others::Other,
    reporter::{Judged, Reporter},
    state::{Documents, State},
    watches,
    writer::{Order, Wanted, Writer},
};
use crate::{
    compile::Compiled,
    istio::{self, Facts},
    last_good::LastGood,
    model::{AnyObject, check_annotations},
    problem::{Key, Problem, Severity},
    snapshot::{Snapshot, TypeUrl},
    store::Store,
};

/// Between words about what is still waited for.
const WORD: Duration = Duration::from_secs(10);

/// How the cluster is served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the lease is.
    pub namespace: String,
    /// Istio's root namespace.
    pub root_namespace: String,
    /// How Istio's objects are made.
    pub istio: istio::Options,
}

/// Connects to a cluster: that of the file, or the one that we run in.
///
/// # Errors
/// If the configuration cannot be read.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let config = match kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
        }
        None => Config::incluster().context("this is no pod of a cluster; name one by --kubeconfig")?,
    };
    Ok(Client::try_from(config)?)
}

/// Connects as `kubectl` would: by the file, or the user's own configuration, or as the pod that we are.
///
/// # Errors
/// If the configuration cannot be read.
pub async fn user_client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    match kubeconfig {
        Some(_) => client(kubeconfig).await,
        None => Ok(Client::try_from(Config::infer().await.context("no configuration of a cluster was found")?)?),
    }
}

/// Publishes to `store` and writes to the cluster until `stopped`.
///
/// # Errors
/// If a part of it ends by itself, which none should.
pub async fn serve(
    client: Client,
    settings: Settings,
    store: Arc<Store>,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let identity = identity();
    let live = Arc::new(Live::default());
    let events = Events::new(client.clone(), &identity);
    let (elector, leadership) = Elector::new(client.clone(), &settings.namespace, &identity);
    let (orders, ordered) = watch::channel(None);
    let (reports, report) = watch::channel(Default::default());
    let (judgements, judged) = watch::channel(Arc::default());
    let (documents, documented) = watch::channel(None);
    let state = State::new(client.clone(), &settings.namespace, leadership.clone());
    let remembered = tokio::select! {
        remembered = state.load() => remembered,
        _ = stopped.wait_for(|stop| *stop) => return Ok(()),
    };
    let cache = Arc::new(Cache::remembering(remembered.clone()));
    let mut tasks = JoinSet::new();
    watches::read(&client, &cache, &mut tasks);
    watches::write(&client, &live, &mut tasks);
    let writer = Writer::new(client.clone(), live, leadership.clone(), events.clone(), reports);
    tasks.spawn(writer.run(ordered));
    let reporter = Reporter { client, cache: cache.clone(), store: store.clone(), leadership, events, report, judged };
    tasks.spawn(reporter.run());
    tasks.spawn(state.run(documented));
    let publisher = Publisher {
        settings,
        store,
        orders,
        judgements,
        documents,
        remembered: Some(remembered),
        last_good: LastGood::default(),
        last: None,
    };
    tasks.spawn(publisher.run(cache));
    let (end, ended) = watch::channel(false);
    let elector = tokio::spawn(elector.run(ended));
    let result = tokio::select! {
        // An error means that the sender is gone: that is the end as well.
        _ = stopped.wait_for(|stop| *stop) => Ok(()),
        ended = tasks.join_next() => Err(anyhow::anyhow!("a part of the control plane has ended: {ended:?}")),
    };
    // Nothing is written any more when the lease is given back.
    tasks.shutdown().await;
    let _ = end.send(true);
    elector.await.context("the election has ended")?;
    result
}

/// Tells this process from all others that ever were.
fn identity() -> String {
    let name =
        std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "meltemi".to_owned());
    let time = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let nanos = time.map_or(0, |time| time.as_nanos());
    format!("{name}_{:x}_{nanos:x}", std::process::id())
}

/// Compiles and hands on.
struct Publisher {
    settings: Settings,
    store: Arc<Store>,
    orders: watch::Sender<Option<Arc<Order>>>,
    judgements: watch::Sender<Arc<Judged>>,
    documents: watch::Sender<Option<Arc<Documents>>>,
    /// What was good before we started, by uid, until there is something to compile.
    remembered: Option<HashMap<String, AnyObject>>,
    last_good: LastGood,
    /// What was published last.
    last: Option<(Vec<String>, Vec<Problem>)>,
}

impl Publisher {
    async fn run(mut self, cache: Arc<Cache>) {
        loop {
            if self.last.is_none() {
                tokio::select! {
                    () = settled(&cache.changed) => {}
                    () = sleep(WORD) => info!("waiting for the first list of {}", cache.incomplete().join(", ")),
                }
            } else {
                settled(&cache.changed).await;
            }
            if let Some(seen) = cache.read() {
                block_in_place(|| self.publish(seen));
            }
        }
    }

    fn publish(&mut self, seen: Seen) {
        let Seen { model, mut problems, workloads, others, about } = seen;
        let (others, references): (Vec<_>, Vec<_>) = others
            .into_iter()
            .map(|Other { object, reference }| {
                let key = object.origin.key();
                (object, (key, reference))
            })
            .unzip();
        if let Some(remembered) = self.remembered.take() {
            let there = about.iter().filter_map(|about| remembered.get(&about.uid));
            self.last_good = LastGood::from_objects(there.cloned());
        }
        let facts = Facts { root_namespace: self.settings.root_namespace.clone(), workloads, others };
        // What is served was mostly compiled last: then it need not be once more.
        let last = RefCell::new(None);
        let served = self.last_good.take(model, |model| {
            let compiled = istio::compile(model, &facts, &self.settings.istio);
            let problems = compiled.problems.iter().cloned().chain(check_annotations(model)).collect();
            let snapshot = compiled.snapshot.clone();
            last.replace(Some((model.clone(), compiled)));
            Compiled { snapshot, problems }
        });
        problems.extend(served.problems);
        let compiled = match last.into_inner() {
            Some((model, compiled)) if model == served.model => compiled,
            _ => istio::compile(&served.model, &facts, &self.settings.istio),
        };
        // Proxies first: what is written takes longer to make, and istiod longer to read.
        self.hand_to_proxies(compiled.snapshot, &problems);
        let by_key: HashMap<&Key, &About> = about.iter().map(|about| (&about.key, &**about)).collect();
        let owners = compiled.desired.iter().filter_map(|desired| {
            let about = by_key.get(&desired.owner.as_ref()?.key())?;
            let same = about.namespace.as_deref() == Some(desired.namespace.as_str());
            let resource = about.watched.resource();
            let reference = OwnerReference {
                api_version: resource.api_version,
                kind: resource.kind,
                name: about.name.clone(),
                uid: about.uid.clone(),
                ..OwnerReference::default()
            };
            // An owner elsewhere would make the garbage collector take the object away.
            Some((Target::of(desired), (about.uid.clone(), same.then_some(reference))))
        });
        let owners: BTreeMap<Target, (String, Option<OwnerReference>)> = owners.collect();
        let wanted = compiled.desired.into_iter().map(|desired| {
            let target = Target::of(&desired);
            let owner = owners.get(&target).and_then(|(_, reference)| reference.clone());
            (target, Wanted { spec: desired.spec, owner })
        });
        let wrong: HashSet<Key> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| problem.origin.key())
            .collect();
        self.keep(&about, &wrong);
        // Where nothing good is known of an object, as it was wrong before any of us saw it, what was made from it stays.
        let held = about.iter().filter(|about| wrong.contains(&about.key)).map(|about| about.uid.clone()).collect();
        let number = self.order(Order { number: 0, wanted: wanted.collect(), held });
        let owners = owners.into_iter().map(|(target, (uid, _))| (target, uid)).collect();
        self.judgements.send_replace(Arc::new(Judged { number, about, others: references, problems, owners }));
    }

    /// Has the last good versions of what is wrong written down for those of us that start later.
    fn keep(&self, about: &[Arc<About>], wrong: &HashSet<Key>) {
        let wrong = about.iter().filter(|about| wrong.contains(&about.key));
        let kept = wrong.filter_map(|about| {
            let document = self.last_good.good(&about.key)?.origin().document.as_deref()?;
            Some((about.uid.clone(), document.to_owned()))
        });
        let kept = Some(Arc::new(kept.collect()));
        self.documents.send_if_modified(|now| std::mem::replace(now, kept.clone()) != kept);
    }

    /// Gives an order to the writer, unless it is the one that it has; gives its number.
    fn order(&self, new: Order) -> u64 {
        let last = self.orders.borrow().clone();
        let number = last.as_ref().map_or(0, |order| order.number);
        if last.is_some_and(|last| last.wanted == new.wanted && last.held == new.held) {
            return number;
        }
        let number = number.saturating_add(1);
        self.orders.send_replace(Some(Arc::new(Order { number, ..new })));
        number
    }

    fn hand_to_proxies(&mut self, snapshot: Snapshot, problems: &[Problem]) {
        let versions: Vec<String> = TypeUrl::ALL.into_iter().map(|kind| snapshot.version(kind).to_owned()).collect();
        if self.last.as_ref().is_some_and(|(last, known)| *last == versions && known == problems) {
            return;
        }
        let known = self.last.take().map(|(_, known)| known).unwrap_or_default();
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            match problem.severity {
                Severity::Error => error!("{problem}"),
                Severity::Warning => warn!("{problem}"),
            }
        }
        self.store.publish(snapshot, problems.to_vec());
        info!(generation = self.store.now().generation, "published");
        self.last = Some((versions, problems.to_vec()));
    }
}
