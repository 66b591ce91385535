//! State of the world: each response has all that the proxy wants of a type.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
};

use super::{
    Session,
    view::{Answer, REFERRED, REFERRING, View},
};
use crate::{
    snapshot::{Resource, Snapshot, TypeUrl, version_of_all},
    store::Connected,
};

/// A SotW stream.
pub(super) struct Sotw {
    view: View,
    proxy: Connected,
    types: BTreeMap<TypeUrl, Watched>,
    nonce: u64,
}

/// What the proxy wants of a type, and what it has.
#[derive(Default)]
struct Watched {
    names: BTreeSet<String>,
    wildcard: bool,
    nonce: String,
    version: String,
    answer: Answer,
    /// Versions sent, by name.
    sent: BTreeMap<String, String>,
    /// Send even what did not change: clusters that were sent again wait for their endpoints.
    force: bool,
}

impl Session for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    const NAME: &'static str = "sotw";

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn new(snapshot: Arc<Snapshot>, proxy: Connected) -> Self {
        Self { view: View::new(snapshot), proxy, types: BTreeMap::new(), nonce: 0 }
    }

    fn on_request(&mut self, request: DiscoveryRequest, out: &mut Vec<DiscoveryResponse>) {
        let Some(kind) = TypeUrl::parse(&request.type_url) else {
            tracing::debug!(kind = request.type_url, "a proxy asks for a type that is not served");
            return;
        };
        let first = !self.types.contains_key(&kind);
        let watched = self.types.entry(kind).or_default();
        let reconnects = request.response_nonce.is_empty();
        if !first && !reconnects && request.response_nonce != watched.nonce {
            // About an older response; the one about the newest is on its way.
            return;
        }
        let names: BTreeSet<String> = request.resource_names.into_iter().collect();
        // Naming nothing means all only as long as nothing was ever named.
        let all = names.contains("*") || (names.is_empty() && watched.names.is_empty());
        let wildcard = kind.is_wildcard() && all;
        let changed = names != watched.names || wildcard != watched.wildcard;
        (watched.names, watched.wildcard) = (names, wildcard);
        if let Some(error) = request.error_detail {
            watched.answer = Answer::Refused;
            self.proxy.refused(kind, &error.message);
            tracing::warn!(kind = kind.as_str(), reason = error.message, "proxy refused a configuration");
            // The same again would be refused again; names may have changed all the same.
        } else if !first && !reconnects {
            watched.answer = Answer::Taken;
            self.proxy.acked(kind);
        }
        watched.force |= first || reconnects;
        if watched.names.is_empty() && !watched.wildcard {
            // It wants no more of this type.
            self.types.remove(&kind);
            self.proxy.left(kind);
        } else if first || reconnects || changed {
            self.send(kind, out);
        }
        self.proceed(out);
    }

    fn on_snapshot(&mut self, snapshot: Arc<Snapshot>, out: &mut Vec<DiscoveryResponse>) {
        self.view.advance(snapshot);
        self.send_all(REFERRED, out);
        self.proceed(out);
    }

    fn holds(&self) -> bool {
        self.view.is_held()
    }

    fn on_patience_lost(&mut self, out: &mut Vec<DiscoveryResponse>) {
        self.release(out);
        self.proceed(out);
    }
}

impl Sotw {
    fn send_all(&mut self, kinds: [TypeUrl; 3], out: &mut Vec<DiscoveryResponse>) {
        for kind in kinds {
            self.send(kind, out);
        }
    }

    /// Sends what was held back, once the proxy has what it refers to; then takes away what nothing refers to any more,
    /// once the proxy has taken everything that did.
    fn proceed(&mut self, out: &mut Vec<DiscoveryResponse>) {
        if self.view.is_held() && self.has_referred() {
            self.release(out);
        }
        let taken = REFERRING.iter().all(|kind| self.answer(*kind).is_none_or(|answer| answer == Answer::Taken));
        if !self.view.is_held() && taken && self.view.settle() {
            self.send_all(REFERRED, out);
        }
    }

    fn release(&mut self, out: &mut Vec<DiscoveryResponse>) {
        self.view.release();
        self.send_all(REFERRING, out);
    }

    /// Whether the proxy has all that routes may name. A refusal is an end as well: the rest is to be had all the same.
    fn has_referred(&self) -> bool {
        let answered = REFERRED.iter().all(|kind| self.answer(*kind) != Some(Answer::Pending));
        let follows = self.answer(TypeUrl::Cluster) == Some(Answer::Taken);
        let endpoints = self.types.get(&TypeUrl::Endpoints);
        let asked = |name: &str| endpoints.is_some_and(|watched| watched.sent.contains_key(name));
        answered && (!follows || self.view.all(TypeUrl::Endpoints).into_keys().all(asked))
    }

    fn answer(&self, kind: TypeUrl) -> Option<Answer> {
        self.types.get(&kind).filter(|watched| !watched.nonce.is_empty()).map(|watched| watched.answer)
    }

    /// Sends a type, if it changed.
    fn send(&mut self, kind: TypeUrl, out: &mut Vec<DiscoveryResponse>) {
        let Some(watched) = self.types.get_mut(&kind) else { return };
        let resources: Vec<Arc<Resource>> = if watched.wildcard {
            self.view.all(kind).into_values().cloned().collect()
        } else {
            watched.names.iter().filter_map(|name| self.view.get(kind, name)).cloned().collect()
        };
        let version = version_of_all(resources.iter());
        if version == watched.version && !core::mem::take(&mut watched.force) {
            return;
        }
        watched.force = false;
        // An answer with nothing in it says nothing, except to who wants all.
        if resources.is_empty() && !watched.wildcard && watched.sent.is_empty() {
            return;
        }
        self.nonce = self.nonce.saturating_add(1);
        let sent: BTreeMap<String, String> = resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect();
        let replaced = sent.iter().any(|(name, version)| watched.sent.get(name).is_some_and(|old| old != version));
        (watched.nonce, watched.version, watched.sent) = (self.nonce.to_string(), version.clone(), sent);
        watched.answer = Answer::Pending;
        self.proxy.sent(kind, &version);
        out.push(DiscoveryResponse {
            version_info: version,
            resources: resources.iter().map(|resource| resource.any.clone()).collect(),
            type_url: kind.as_str().to_owned(),
            nonce: self.nonce.to_string(),
            ..DiscoveryResponse::default()
        });
        let follower = match kind {
            TypeUrl::Cluster => TypeUrl::Endpoints,
            TypeUrl::Listener => TypeUrl::Route,
            _ => return,
        };
        if let Some(watched) = self.types.get_mut(&follower).filter(|_| replaced) {
            watched.force = true;
        }
    }
}
