//! The sessions without I/O, rule by rule, and the server with real gRPC clients.

mod delta;
mod server;
mod sotw;

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster, core::v3::Node, core::v3::TypedExtensionConfig, endpoint::v3::ClusterLoadAssignment,
            listener::v3::Listener, route::v3::RouteConfiguration,
        },
        extensions::transport_sockets::tls::v3::Secret,
    },
    google::{protobuf::Any, rpc::Status as RpcStatus},
};
use prost::{Message, Name};

use super::Session;
use crate::{
    snapshot::{Resource, Snapshot, TypeUrl},
    store::{Proxy, Store},
};

const CLUSTER: TypeUrl = TypeUrl::Cluster;
const ENDPOINTS: TypeUrl = TypeUrl::Endpoints;
const LISTENER: TypeUrl = TypeUrl::Listener;
const ROUTE: TypeUrl = TypeUrl::Route;

/// A snapshot of these resources; the text after `=` makes their content.
fn world(resources: &[(TypeUrl, &str)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (kind, resource) in resources {
        let (name, content) = resource.split_once('=').unwrap_or((resource, ""));
        snapshot.insert(*kind, resource_of(*kind, name, content));
    }
    snapshot
}

fn resource_of(kind: TypeUrl, name: &str, content: &str) -> Resource {
    fn new<M: Message + Name>(name: &str, message: M) -> Resource {
        Resource::new(name, &message)
    }
    let (name, content) = (name.to_owned(), content.to_owned());
    match kind {
        TypeUrl::Secret => new(&name.clone(), Secret { name: name + &content, ..Secret::default() }),
        CLUSTER => new(&name.clone(), Cluster { name, alt_stat_name: content, ..Cluster::default() }),
        ENDPOINTS => new(&name, ClusterLoadAssignment { cluster_name: content, ..ClusterLoadAssignment::default() }),
        LISTENER => new(&name.clone(), Listener { name, stat_prefix: content, ..Listener::default() }),
        TypeUrl::ExtensionConfig => {
            new(&name.clone(), TypedExtensionConfig { name: name + &content, ..Default::default() })
        }
        ROUTE => new(&name, RouteConfiguration { name: content, ..RouteConfiguration::default() }),
    }
}

fn node(id: &str) -> Option<Node> {
    Some(Node { id: id.to_owned(), ..Node::default() })
}

fn error(reason: &str) -> Option<RpcStatus> {
    Some(RpcStatus { code: 3, message: reason.to_owned(), ..RpcStatus::default() })
}

/// A session and what it said last.
struct Bench<S: Session> {
    store: Arc<Store>,
    session: S,
}

impl<S: Session> Bench<S> {
    fn new(resources: &[(TypeUrl, &str)]) -> Self {
        let store = Store::new();
        let proxy = store.connect("proxy".to_owned(), String::new(), String::new(), S::NAME);
        Self { session: S::new(Arc::new(world(resources)), proxy), store }
    }

    fn request(&mut self, request: S::Request) -> Vec<S::Message> {
        let mut out = Vec::new();
        self.session.on_request(request, &mut out);
        out.into_iter().map(Into::into).collect()
    }

    fn publish(&mut self, resources: &[(TypeUrl, &str)]) -> Vec<S::Message> {
        let mut out = Vec::new();
        self.session.on_snapshot(Arc::new(world(resources)), &mut out);
        out.into_iter().map(Into::into).collect()
    }

    fn patience_lost(&mut self) -> Vec<S::Message> {
        let mut out = Vec::new();
        self.session.on_patience_lost(&mut out);
        out.into_iter().map(Into::into).collect()
    }

    fn proxy(&self) -> Proxy {
        self.store.proxies().remove(0)
    }

    fn refusal(&self, kind: TypeUrl) -> Option<String> {
        self.proxy().types.get(&kind)?.error.clone()
    }

    fn in_sync(&self, kind: TypeUrl) -> bool {
        self.proxy().types.get(&kind).is_some_and(|state| state.sent == state.acked && state.error.is_none())
    }
}

/// Which of `candidates` these messages are, by content.
fn names(kind: TypeUrl, messages: &[Any], candidates: &[&str]) -> Vec<String> {
    let all = world(&candidates.iter().map(|name| (kind, *name)).collect::<Vec<_>>());
    let name = |any: &Any| all.of(kind).find(|r| r.any == *any).map_or_else(|| "?".to_owned(), |r| r.name.to_string());
    messages.iter().map(name).collect()
}
