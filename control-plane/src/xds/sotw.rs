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
    types: BTreeMap<TypeUrl, Box<Watched>>,
    nonce: u64,
    /// Clusters wait until the proxy has said which it has: it names them when it asks for their endpoints.
    waits: bool,
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
    type Message = DiscoveryResponse;
    const NAME: &'static str = "sotw";

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn new(snapshot: Arc<Snapshot>, proxy: Connected) -> Self {
        Self { view: View::new(snapshot), proxy, types: BTreeMap::new(), nonce: 0, waits: false }
    }

    fn on_request(&mut self, request: DiscoveryRequest, out: &mut Vec<DiscoveryResponse>) {
        let Some(kind) = TypeUrl::parse(&request.type_url) else {
            tracing::debug!(kind = request.type_url, "a proxy asks for a type that is not served");
            return;
        };
        let first = !self.types.contains_key(&kind);
        if self.types.is_empty() && !request.version_info.is_empty() && request.response_nonce.is_empty() {
            self.view.reconnects();
            let now = version_of_all(self.view.all(TypeUrl::Cluster).into_values());
            self.waits = kind != TypeUrl::Cluster || request.version_info != now;
        }
        if kind == TypeUrl::Endpoints && core::mem::take(&mut self.waits) {
            self.view.keep_clusters(&request.resource_names);
            self.send(TypeUrl::Cluster, out);
        }
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
        if core::mem::take(&mut self.waits) {
            self.send(TypeUrl::Cluster, out);
        } else {
            self.release(out);
        }
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
        let referring = || REFERRING.iter().filter_map(|kind| self.types.get(kind));
        // A proxy that comes back has routes that it did not ask for yet.
        let asked = !self.view.keeps_unknown(TypeUrl::Cluster) || referring().next().is_some();
        let answers = || REFERRING.iter().filter_map(|kind| self.answer(*kind));
        let answered = asked && answers().all(|answer| answer != Answer::Pending) && referring().all(|w| !w.force);
        let taken = answers().all(|answer| answer == Answer::Taken);
        if !self.view.is_held() && answered && self.view.settle(taken) {
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
        let clusters = self.answer(TypeUrl::Cluster);
        let known = clusters.is_some() || !self.view.keeps_unknown(TypeUrl::Cluster);
        let follows = clusters == Some(Answer::Taken);
        let endpoints = self.types.get(&TypeUrl::Endpoints);
        let asked = |name: &str| endpoints.is_some_and(|watched| watched.sent.contains_key(name));
        answered && known && (!follows || (self.view.endpoints().into_iter().all(asked) && !self.view.has_new_names()))
    }

    fn answer(&self, kind: TypeUrl) -> Option<Answer> {
        self.types.get(&kind).filter(|watched| !watched.nonce.is_empty()).map(|watched| watched.answer)
    }

    /// Sends a type, if it changed.
    fn send(&mut self, kind: TypeUrl, out: &mut Vec<DiscoveryResponse>) {
        let waits = self.view.withholds(kind) || (self.waits && kind == TypeUrl::Cluster);
        let Some(watched) = self.types.get_mut(&kind).filter(|_| !waits) else { return };
        let resources: Vec<Arc<Resource>> = if watched.wildcard {
            self.view.all(kind).into_values().cloned().collect()
        } else {
            watched.names.iter().filter_map(|name| self.view.get(kind, name)).cloned().collect()
        };
        let version = version_of_all(resources.iter());
        let sent: BTreeMap<String, String> =
            resources.iter().map(|r| (r.name.to_string(), r.version.to_string())).collect();
        let news = sent.iter().any(|(name, version)| watched.sent.get(name) != Some(version));
        if !core::mem::take(&mut watched.force) && (version == watched.version || !(news || watched.wildcard)) {
            // Of types that are named one by one nothing is taken away: names that are gone are gone already.
            (watched.version, watched.sent) = (version, sent);
            return;
        }
        // An answer with nothing in it says nothing, except to who wants all.
        if resources.is_empty() && !watched.wildcard {
            (watched.version, watched.sent) = (version, sent);
            return;
        }
        self.nonce = self.nonce.saturating_add(1);
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
