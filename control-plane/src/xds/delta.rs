//! Delta: each response has what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as DeltaResource},
};

use super::{
    Session,
    view::{REFERRED, REFERRING, View},
};
use crate::{
    snapshot::{Resource, Snapshot, TypeUrl, version_of_all},
    store::Connected,
};

/// Bytes of the resources in one response, unless one alone has more.
const MOST_BYTES: usize = 32 * 1024;

/// A delta stream.
pub(super) struct Delta {
    view: View,
    proxy: Connected,
    types: BTreeMap<TypeUrl, Box<Watched>>,
    nonce: u64,
}

/// What changed of a type.
pub(super) struct Response {
    kind: TypeUrl,
    version: Arc<str>,
    resources: Vec<Arc<Resource>>,
    removed: Vec<Arc<str>>,
    nonce: u64,
}

impl From<Response> for DeltaDiscoveryResponse {
    fn from(response: Response) -> Self {
        let Response { kind, version, resources, removed, nonce } = response;
        let resources = resources.iter().map(|resource| DeltaResource {
            name: resource.name.to_string(),
            version: resource.version.to_string(),
            resource: Some(resource.any.clone()),
            ..DeltaResource::default()
        });
        Self {
            system_version_info: version.to_string(),
            resources: resources.collect(),
            type_url: kind.as_str().to_owned(),
            removed_resources: removed.iter().map(|name| name.to_string()).collect(),
            nonce: nonce.to_string(),
            ..Self::default()
        }
    }
}

/// What the proxy wants of a type, and what it has.
#[derive(Default)]
struct Watched {
    names: BTreeSet<Arc<str>>,
    wildcard: bool,
    /// Responses without an answer: names in them, by nonce.
    pending: BTreeMap<String, Vec<Arc<str>>>,
    /// Why the proxy refused the newest version of a resource, by name.
    refused: BTreeMap<Arc<str>, String>,
    /// Versions that the proxy was given, by name.
    has: BTreeMap<Arc<str>, Arc<str>>,
    /// Sent again even if unchanged.
    force: BTreeSet<Arc<str>>,
    /// Asked for, and not there: said once, so that the proxy need not wait.
    missing: BTreeSet<Arc<str>>,
    /// Asked for, and still without any answer.
    owed: bool,
    /// The proxy has all that it asked for of the world's resources of this version.
    has_all_of: Option<String>,
}

impl Session for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = Response;
    type Message = DeltaDiscoveryResponse;
    const NAME: &'static str = "delta";

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn new(snapshot: Arc<Snapshot>, proxy: Connected) -> Self {
        Self { view: View::new(snapshot), proxy, types: BTreeMap::new(), nonce: 0 }
    }

    fn on_request(&mut self, request: DeltaDiscoveryRequest, out: &mut Vec<Response>) {
        let Some(kind) = TypeUrl::parse(&request.type_url) else {
            tracing::debug!(kind = request.type_url, "a proxy asks for a type that is not served");
            return;
        };
        let first = !self.types.contains_key(&kind);
        if self.types.is_empty() && !request.initial_resource_versions.is_empty() {
            self.view.reconnects();
        }
        let watched = self.types.entry(kind).or_default();
        if first {
            watched.owed = true;
            // What it has from an earlier connection need not be sent again.
            let has = request.initial_resource_versions.into_iter();
            watched.has.extend(has.map(|(name, version)| (name.into(), version.into())));
            watched.wildcard = kind.is_wildcard() && request.resource_names_subscribe.is_empty();
        }
        if !(request.resource_names_subscribe.is_empty() && request.resource_names_unsubscribe.is_empty()) {
            watched.has_all_of = None;
        }
        for name in request.resource_names_subscribe {
            if name == "*" {
                watched.wildcard = true;
            } else {
                let name = self.view.get(kind, &name).map_or_else(|| name.into(), |resource| resource.name.clone());
                // Asked for again, it is sent again: the proxy may have dropped it.
                if !first {
                    watched.has.remove(&name);
                }
                watched.missing.remove(&name);
                watched.names.insert(name);
            }
        }
        for name in request.resource_names_unsubscribe {
            if name == "*" {
                watched.wildcard = false;
            }
            watched.names.remove(name.as_str());
            watched.has.remove(name.as_str());
            watched.missing.remove(name.as_str());
        }
        if let Some(names) = watched.pending.remove(&request.response_nonce) {
            match &request.error_detail {
                Some(error) => {
                    tracing::warn!(kind = kind.as_str(), reason = error.message, "proxy refused a configuration");
                    watched.refused.extend(names.into_iter().map(|name| (name, error.message.clone())));
                    self.proxy.refused(kind, &error.message);
                }
                None => watched.refused.retain(|name, _| !names.contains(name)),
            }
            if watched.is_taken() {
                self.proxy.acked(kind);
            }
        }
        self.send(kind, out);
        self.proceed(out);
    }

    fn on_snapshot(&mut self, snapshot: Arc<Snapshot>, out: &mut Vec<Response>) {
        self.view.advance(snapshot);
        self.send_all(REFERRED, out);
        self.proceed(out);
    }

    fn holds(&self) -> bool {
        self.view.is_held()
    }

    fn on_patience_lost(&mut self, out: &mut Vec<Response>) {
        self.release(out);
        self.proceed(out);
    }
}

impl Watched {
    /// Whether the proxy uses all that it was given.
    fn is_taken(&self) -> bool {
        self.pending.is_empty() && self.refused.is_empty()
    }
}

impl Delta {
    fn send_all(&mut self, kinds: [TypeUrl; 3], out: &mut Vec<Response>) {
        for kind in kinds {
            self.send(kind, out);
        }
    }

    /// Sends what was held back, once the proxy has what it refers to; then takes away what nothing refers to any more,
    /// once the proxy has taken everything that did.
    fn proceed(&mut self, out: &mut Vec<Response>) {
        if self.view.is_held() && self.has_referred() {
            self.release(out);
        }
        let referring = || REFERRING.iter().filter_map(|kind| self.types.get(kind));
        // A proxy that comes back has routes that it did not ask for yet.
        let asked = !self.view.keeps_unknown(TypeUrl::Cluster) || referring().next().is_some();
        let answered = asked && referring().all(|watched| watched.pending.is_empty() && !watched.owed);
        let taken = referring().all(|watched| watched.is_taken());
        if !self.view.is_held() && answered && self.view.settle(taken) {
            self.send_all(REFERRED, out);
        }
    }

    fn release(&mut self, out: &mut Vec<Response>) {
        self.view.release();
        self.send_all(REFERRING, out);
    }

    /// Whether the proxy has all that routes may name. A refusal is an end as well: the rest is to be had all the same.
    fn has_referred(&self) -> bool {
        let answered =
            REFERRED.iter().all(|kind| self.types.get(kind).is_none_or(|watched| watched.pending.is_empty()));
        let clusters = self.types.get(&TypeUrl::Cluster);
        let known = clusters.is_some() || !self.view.keeps_unknown(TypeUrl::Cluster);
        let follows = clusters.is_some_and(|watched| watched.refused.is_empty());
        let endpoints = self.types.get(&TypeUrl::Endpoints);
        let asked = |name: &str| endpoints.is_some_and(|watched| watched.has.contains_key(name));
        answered && known && (!follows || (self.view.endpoints().into_iter().all(asked) && !self.view.has_new_names()))
    }

    /// Sends what changed of a type; the first time even if that is nothing.
    fn send(&mut self, kind: TypeUrl, out: &mut Vec<Response>) {
        let Some(watched) = self.types.get_mut(&kind).filter(|_| !self.view.withholds(kind)) else { return };
        // Most of what happens, an answer to a response or a change of another type, is nothing to send.
        let world = self.view.version(kind);
        if world.is_some() && watched.has_all_of.as_deref() == world && !watched.owed && watched.force.is_empty() {
            return;
        }
        watched.has_all_of = world.map(str::to_owned);
        // A filter without its configuration closes connections. Who still asks for one has not heard yet to do without: from
        // istiod, or from another replica of us that is of another version.
        let keeps = kind == TypeUrl::ExtensionConfig || self.view.keeps_unknown(kind);
        let wanted: BTreeMap<&str, &Arc<Resource>> = if watched.wildcard {
            self.view.all(kind)
        } else {
            watched.names.iter().filter_map(|name| Some((&**name, self.view.get(kind, name)?))).collect()
        };
        let force = core::mem::take(&mut watched.force);
        let changed: Vec<&Arc<Resource>> = wanted
            .values()
            .copied()
            .filter(|resource| {
                watched.has.get(&resource.name) != Some(&resource.version) || force.contains(&resource.name)
            })
            .collect();
        let mut removed: Vec<Arc<str>> =
            watched.has.keys().filter(|name| !keeps && !wanted.contains_key(&***name)).cloned().collect();
        for name in &watched.names {
            let missing = !wanted.contains_key(&**name) && (!keeps || !watched.has.contains_key(name));
            if missing && watched.missing.insert(name.clone()) && !removed.contains(name) {
                removed.push(name.clone());
            }
        }
        if changed.is_empty() && removed.is_empty() && !core::mem::take(&mut watched.owed) {
            return;
        }
        watched.owed = false;
        let version: Arc<str> = version_of_all(wanted.values().copied()).into();
        let mut rest = changed.as_slice();
        let mut gone = removed.clone();
        loop {
            let (part, later) = rest.split_at(first_part(kind, rest));
            rest = later;
            self.nonce = self.nonce.saturating_add(1);
            let resources: Vec<Arc<Resource>> = part.iter().copied().cloned().collect();
            let removed = core::mem::take(&mut gone);
            let about = resources.iter().map(|resource| &resource.name).chain(&removed).cloned().collect();
            watched.pending.insert(self.nonce.to_string(), about);
            out.push(Response { kind, version: version.clone(), resources, removed, nonce: self.nonce });
            self.proxy.sent(kind, &version);
            if rest.is_empty() {
                break;
            }
        }
        let names: Vec<Arc<str>> = changed.iter().map(|resource| resource.name.clone()).collect();
        for resource in changed {
            watched.has.insert(resource.name.clone(), resource.version.clone());
            watched.missing.remove(&resource.name);
        }
        for name in &removed {
            watched.has.remove(name);
        }
        watched.refused.retain(|name, _| !removed.contains(name));
        let follower = match kind {
            TypeUrl::Cluster => TypeUrl::Endpoints,
            TypeUrl::Listener => TypeUrl::Route,
            _ => return,
        };
        if let Some(watched) = self.types.get_mut(&follower) {
            // Clusters and listeners that are new to the proxy wait for what has their name.
            watched.force.extend(names.into_iter().filter(|name| watched.has.contains_key(name)));
        }
    }
}

/// How many of the resources go into the next response. It is encoded when the proxy reads it, and all sidecars read at once
/// after a change. Of types that are not asked for by name a proxy takes the first response for all there is.
fn first_part(kind: TypeUrl, resources: &[&Arc<Resource>]) -> usize {
    if kind.is_wildcard() {
        return resources.len();
    }
    let mut bytes = 0_usize;
    let fits = |resource: &&&Arc<Resource>| {
        bytes = bytes.saturating_add(resource.any.value.len());
        bytes <= MOST_BYTES
    };
    resources.iter().take_while(fits).count().max(1).min(resources.len())
}
