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
    view::{REFERRING, View},
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
    acked: bool,
    refused: bool,
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
        let wildcard = kind.is_wildcard() && (names.is_empty() || names.contains("*"));
        let changed = names != watched.names || wildcard != watched.wildcard;
        (watched.names, watched.wildcard) = (names, wildcard);
        if let Some(error) = request.error_detail {
            watched.refused = true;
            self.proxy.refused(kind, &error.message);
            tracing::warn!(kind = kind.as_str(), reason = error.message, "proxy refused a configuration");
            // The same again would be refused again; names may have changed all the same.
        } else if !first && !reconnects {
            (watched.acked, watched.refused) = (true, false);
            self.proxy.acked(kind);
        }
        if first || reconnects {
            watched.force = true;
        }
        if first || reconnects || changed {
            self.send(kind, out);
        }
        self.settle(out);
    }

    fn on_snapshot(&mut self, snapshot: Arc<Snapshot>, out: &mut Vec<DiscoveryResponse>) {
        self.view.advance(snapshot);
        self.send_all(out);
        self.settle(out);
    }
}

impl Sotw {
    fn send_all(&mut self, out: &mut Vec<DiscoveryResponse>) {
        for kind in TypeUrl::ALL {
            if self.types.contains_key(&kind) {
                self.send(kind, out);
            }
        }
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
        // Nobody waits for an answer that has nothing in it, and wildcards aside it would mean nothing.
        if resources.is_empty() && !watched.wildcard && watched.sent.is_empty() {
            return;
        }
        self.nonce = self.nonce.saturating_add(1);
        let sent: BTreeMap<String, String> = resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect();
        let changed = sent.iter().any(|(name, version)| watched.sent.get(name) != Some(version));
        (watched.nonce, watched.version, watched.sent) = (self.nonce.to_string(), version.clone(), sent);
        (watched.acked, watched.refused) = (false, false);
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
        if let Some(watched) = self.types.get_mut(&follower).filter(|_| changed) {
            watched.force = true;
        }
    }

    /// Takes away what nothing refers to any more, once the proxy has taken everything that did.
    fn settle(&mut self, out: &mut Vec<DiscoveryResponse>) {
        let taken = REFERRING.iter().all(|kind| self.types.get(kind).is_none_or(|watched| watched.acked));
        if taken && self.view.settle() {
            self.send_all(out);
        }
    }
}
