//! What is served now, and who is served.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
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
    streams: Mutex<Streams>,
    next_stream: AtomicU64,
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

/// Streams of proxies. One of the mesh has a stream for each thing that it gets from us.
#[derive(Debug, Default)]
struct Streams {
    /// Each as if it were a proxy of its own.
    all: BTreeMap<u64, Proxy>,
    /// How many each node has.
    of_node: HashMap<String, usize>,
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
    /// How many streams it has.
    pub streams: usize,
    /// The last generation of which everything was sent; what may be taken is in `types`.
    pub generation: u64,
    /// By type; of several streams, what is furthest from being taken.
    pub types: BTreeMap<TypeUrl, TypeState>,
}

impl Proxy {
    /// Adds another stream of it.
    fn join(&mut self, other: &Self) {
        self.streams = self.streams.saturating_add(other.streams);
        self.connected_since = self.connected_since.min(other.connected_since);
        self.generation = self.generation.min(other.generation);
        for (kind, state) in &other.types {
            let known = self.types.entry(*kind).or_insert_with(|| state.clone());
            if state.distance() > known.distance() {
                *known = state.clone();
            }
        }
    }
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

impl TypeState {
    /// From being taken: refused is further than not yet answered.
    fn distance(&self) -> u8 {
        match &self.error {
            Some(_) => 2,
            None => u8::from(self.acked != self.sent),
        }
    }
}

impl Store {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            current: watch::Sender::default(),
            streams: Mutex::default(),
            next_stream: AtomicU64::new(1),
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
        let mut proxies: BTreeMap<String, Proxy> = BTreeMap::new();
        for stream in self.lock().all.values() {
            match proxies.entry(stream.node.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(stream.clone())),
                Entry::Occupied(entry) => entry.into_mut().join(stream),
            }
        }
        proxies.into_values().collect()
    }

    /// Adds a stream of a proxy for as long as the result lives.
    pub fn connect(
        self: &Arc<Self>,
        node: String,
        cluster: String,
        version: String,
        protocol: &'static str,
    ) -> Connected {
        let id = self.next_stream.fetch_add(1, Ordering::Relaxed);
        let connected_since =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |duration| duration.as_secs());
        let mut streams = self.lock();
        let of_node = streams.of_node.entry(node.clone()).or_default();
        *of_node = of_node.saturating_add(1);
        if *of_node == 1 {
            tracing::info!(node, version, protocol, "proxy connected");
        }
        let types = BTreeMap::new();
        let proxy = Proxy { node, cluster, version, protocol, connected_since, streams: 1, generation: 0, types };
        streams.all.insert(id, proxy);
        Connected { store: self.clone(), id }
    }

    /// A stream was sent all of a generation.
    pub fn sent_all(&self, stream: u64, generation: u64) {
        if let Some(stream) = self.lock().all.get_mut(&stream) {
            stream.generation = generation;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        // Nothing panics while it is held; if it did, the maps would still be whole.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream of a proxy, until dropped.
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
        if let Some(proxy) = self.store.lock().all.get_mut(&self.id) {
            proxy.types.remove(&kind);
        }
    }

    fn update(&self, kind: TypeUrl, change: impl FnOnce(&mut TypeState)) {
        if let Some(proxy) = self.store.lock().all.get_mut(&self.id) {
            change(proxy.types.entry(kind).or_default());
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut streams = self.store.lock();
        let Some(Proxy { node, .. }) = streams.all.remove(&self.id) else { return };
        if let Some(left) = streams.of_node.get_mut(&node) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                streams.of_node.remove(&node);
                tracing::info!(node, "proxy disconnected");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_node_are_one_proxy() {
        let store = Store::new();
        let connect = |node: &str| store.connect(node.to_owned(), String::new(), String::new(), "delta");
        let (first, second, other) = (connect("a"), connect("a"), connect("b"));
        let of_a = || store.proxies().remove(0);
        for (stream, version) in [(&first, "1"), (&second, "2"), (&other, "3")] {
            stream.sent(TypeUrl::Route, version);
            stream.acked(TypeUrl::Route);
            store.sent_all(stream.id(), 7);
        }
        assert_eq!((store.proxies().len(), of_a().streams, of_a().generation), (2, 2, 7));
        assert_eq!(of_a().types[&TypeUrl::Route].distance(), 0);
        // What one of them lacks, the proxy lacks.
        second.sent(TypeUrl::Route, "4");
        assert_eq!((of_a().types[&TypeUrl::Route].sent.as_str(), of_a().types[&TypeUrl::Route].distance()), ("4", 1));
        first.refused(TypeUrl::Route, "no");
        assert_eq!(of_a().types[&TypeUrl::Route].error.as_deref(), Some("no"));
        drop(first);
        assert_eq!((of_a().node.as_str(), of_a().streams), ("a", 1));
        drop(second);
        assert_eq!((store.proxies().len(), of_a().node.as_str()), (1, "b"));
    }
}
