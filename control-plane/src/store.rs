//! What is served now, and who is served.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use serde::Serialize;
use tokio::sync::watch;

use crate::{
    problem::Problem,
    snapshot::{Snapshot, TypeUrl},
};

/// One state of the world.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Counts up with each change; 0: nothing was published yet.
    pub generation: u64,
    /// What proxies are served.
    pub snapshot: Arc<Snapshot>,
    /// What is wrong with the sources.
    pub problems: Arc<Vec<Problem>>,
}

/// Shared by the source, the xDS server and the admin endpoint.
#[derive(Debug)]
pub struct Store {
    current: watch::Sender<Published>,
    proxies: Mutex<BTreeMap<u64, Proxy>>,
    next_proxy: AtomicU64,
    /// Configurations that proxies refused, since the start.
    pub nacks: AtomicU64,
    /// Responses sent, since the start.
    pub pushes: AtomicU64,
    transport: Mutex<Transport>,
    /// Connections to the xDS server that were refused before a word was said, since the start.
    pub refused_connections: AtomicU64,
}

/// How proxies reach the xDS server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Transport {
    /// Without TLS.
    #[default]
    Plain,
    /// With it.
    Tls {
        /// Who is served.
        clients: Clients,
        /// There is a certificate.
        ready: bool,
        /// What is wrong with the files as they are now.
        problem: Option<String>,
    },
}

/// Which clients the xDS server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// All.
    Anyone,
    /// Those with a certificate of a known CA.
    Certificate,
    /// Of those, the ones with such identities.
    Identity(Vec<String>),
}

/// A proxy that is connected.
#[derive(Debug, Clone, Serialize)]
pub struct Proxy {
    /// `node.id`.
    pub node: String,
    /// `node.cluster`.
    pub cluster: String,
    /// Its version, if it says so.
    pub version: String,
    /// `sotw` or `delta`.
    pub protocol: &'static str,
    /// Since when, in seconds of Unix time.
    pub connected_since: u64,
    /// The last generation of which everything was sent; what may be taken is in `types`.
    pub generation: u64,
    /// By type.
    pub types: BTreeMap<TypeUrl, TypeState>,
}

/// What a proxy said about a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TypeState {
    /// Version last sent.
    pub sent: String,
    /// Version last taken.
    pub acked: String,
    /// Why it refused the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            current: watch::Sender::default(),
            proxies: Mutex::default(),
            next_proxy: AtomicU64::new(1),
            nacks: AtomicU64::new(0),
            pushes: AtomicU64::new(0),
            transport: Mutex::default(),
            refused_connections: AtomicU64::new(0),
        })
    }

    /// Publishes a new state.
    pub fn publish(&self, snapshot: Snapshot, problems: Vec<Problem>) {
        self.current.send_modify(|current| {
            *current = Published {
                generation: current.generation.saturating_add(1),
                snapshot: Arc::new(snapshot),
                problems: Arc::new(problems),
            };
        });
    }

    /// Says why nothing is published yet.
    pub fn wait_with(&self, problems: Vec<Problem>) {
        self.current.send_modify(|current| current.problems = Arc::new(problems));
    }

    /// The state now.
    pub fn now(&self) -> Published {
        self.current.borrow().clone()
    }

    /// Follows the state.
    pub fn follow(&self) -> watch::Receiver<Published> {
        self.current.subscribe()
    }

    /// How proxies reach us.
    pub fn transport(&self) -> Transport {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how proxies reach us.
    pub fn set_transport(&self, transport: Transport) {
        *self.transport.lock().unwrap_or_else(PoisonError::into_inner) = transport;
    }

    /// All proxies that are connected.
    pub fn proxies(&self) -> Vec<Proxy> {
        self.lock().values().cloned().collect()
    }

    /// Adds a proxy for as long as the result lives.
    pub fn connect(
        self: &Arc<Self>,
        node: String,
        cluster: String,
        version: String,
        protocol: &'static str,
    ) -> Connected {
        let id = self.next_proxy.fetch_add(1, Ordering::Relaxed);
        let connected_since =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |duration| duration.as_secs());
        let proxy = Proxy { node, cluster, version, protocol, connected_since, generation: 0, types: BTreeMap::new() };
        self.lock().insert(id, proxy);
        Connected { store: self.clone(), id }
    }

    /// A proxy was sent all of a generation.
    pub fn sent_all(&self, proxy: u64, generation: u64) {
        if let Some(proxy) = self.lock().get_mut(&proxy) {
            proxy.generation = generation;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Proxy>> {
        // Nothing panics while it is held; if it did, the map would still be whole.
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy that is connected, until dropped.
#[derive(Debug)]
pub struct Connected {
    store: Arc<Store>,
    id: u64,
}

impl Connected {
    /// For [`Store::sent_all`].
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Something was sent.
    pub fn sent(&self, kind: TypeUrl, version: &str) {
        self.store.pushes.fetch_add(1, Ordering::Relaxed);
        self.update(kind, |state| state.sent = version.to_owned());
    }

    /// The proxy took what was sent.
    pub fn acked(&self, kind: TypeUrl) {
        self.update(kind, |state| {
            state.acked = state.sent.clone();
            state.error = None;
        });
    }

    /// The proxy refused it.
    pub fn refused(&self, kind: TypeUrl, reason: &str) {
        self.store.nacks.fetch_add(1, Ordering::Relaxed);
        self.update(kind, |state| state.error = Some(reason.to_owned()));
    }

    /// The proxy wants no more of it.
    pub fn left(&self, kind: TypeUrl) {
        if let Some(proxy) = self.store.lock().get_mut(&self.id) {
            proxy.types.remove(&kind);
        }
    }

    fn update(&self, kind: TypeUrl, change: impl FnOnce(&mut TypeState)) {
        if let Some(proxy) = self.store.lock().get_mut(&self.id) {
            change(proxy.types.entry(kind).or_default());
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.store.lock().remove(&self.id);
    }
}
