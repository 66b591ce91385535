//! EnvoyFilters and their patches. The parts of Envoy's configuration that go into one are JSON, which istiod reads as
//! protobuf's JSON.

use std::collections::BTreeMap;

use meltemi_engine::config::{DeclareConfig, InletConfig, OutletConfig};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Desired, DesiredKind,
    runner::{MODULES, Proxies, module, module_filter, string},
};
use crate::{compile::Host, problem::Origin};

pub(super) use crate::compile::Side;

pub(super) const HCM: &str = "envoy.filters.network.http_connection_manager";
pub(super) const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";
/// The type of [`TCP_PROXY`].
pub(super) const TCP_PROXY_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
const LISTENER_FILTER: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.dynamic_modules.v3.DynamicModuleListenerFilter";
/// The type of [`HCM`].
pub(super) const HCM_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const HTTP_INSPECTOR: &str = "envoy.filters.listener.http_inspector";

/// Finds out once more where a connection was meant to go.
pub(super) const ORIGINAL_DST: &str =
    "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
/// Without rules it lets everybody in.
const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC";

impl Side {
    const fn context(self) -> &'static str {
        match self {
            Self::Client => "SIDECAR_OUTBOUND",
            Self::Server => "SIDECAR_INBOUND",
        }
    }

    /// In names.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Client => "out",
            Self::Server => "in",
        }
    }
}

/// Listeners of a sidecar.
#[derive(Debug, Clone, Copy)]
pub(super) enum Listeners<'p> {
    /// The one of this name.
    Named(&'p str),
    /// All of this port number.
    Port(u16),
}

/// Where in listeners: in the inbound one, the port of a chain.
#[derive(Debug, Clone)]
pub(super) struct Place<'p> {
    pub(super) side: Side,
    pub(super) listeners: Listeners<'p>,
    pub(super) destination_port: Option<u16>,
}

impl<'p> Place<'p> {
    /// A listener of clients' sidecars.
    pub(super) const fn outbound(listeners: Listeners<'p>) -> Self {
        Self { side: Side::Client, listeners, destination_port: None }
    }

    fn listener(&self, chain: Value) -> Value {
        let mut listener = match self.listeners {
            Listeners::Named(name) => json!({"name": name}),
            Listeners::Port(number) => json!({"portNumber": number}),
        };
        if let (Some(port), Some(chain)) = (self.destination_port, chain.as_object()) {
            let mut chain = chain.clone();
            chain.insert("destinationPort".to_owned(), json!(port));
            listener["filterChain"] = json!(chain);
        } else if !chain.is_null() {
            listener["filterChain"] = chain;
        }
        listener
    }
}

/// Of what is added.
const NOWHERE: (&str, Value) = ("", Value::Null);

/// A patch of sidecars' configuration.
fn patch(apply_to: &str, side: Side, place: (&str, Value), operation: &str, value: Value) -> Value {
    patch_in(side.context(), apply_to, place, operation, value)
}

/// A patch in one of Istio's contexts.
pub(super) fn patch_in(context: &str, apply_to: &str, place: (&str, Value), operation: &str, value: Value) -> Value {
    let mut of = json!({"context": context});
    if !place.1.is_null() {
        of[place.0] = place.1;
    }
    let mut what = json!({"operation": operation});
    if !value.is_null() {
        what["value"] = value;
    }
    json!({"applyTo": apply_to, "match": of, "patch": what})
}

/// The listener filter `declare`: before Istio's own at a client, after them at a server, where the port is known only then.
pub(super) fn declare(place: &Place<'_>, name: &str) -> Value {
    let mut listener = place.listener(Value::Null);
    let operation = match (place.side, place.listeners) {
        (Side::Server, _) => "ADD",
        (Side::Client, Listeners::Named(_)) => "INSERT_FIRST",
        (Side::Client, Listeners::Port(_)) => {
            // To istiod the listener that takes all connections is of every port number. It has no such filter, nor has
            // one that is plain TCP.
            listener["listenerFilter"] = json!(HTTP_INSPECTOR);
            "INSERT_BEFORE"
        }
    };
    let filter = discovered(name, LISTENER_FILTER, Some(json!({"@type": ORIGINAL_DST})));
    patch("LISTENER_FILTER", place.side, ("listener", listener), operation, filter)
}

/// A filter whose configuration comes by ECDS: a proxy that cannot load the module loses the connections that need it, not
/// the listener, and a sidecar's inbound listener is all it has. Without a configuration Envoy closes every connection that
/// meets the filter; where others' connections meet it, `instead` is a filter that leaves them as they are.
fn discovered(name: &str, kind: &str, instead: Option<Value>) -> Value {
    let source = json!({"ads": {}, "initial_fetch_timeout": "2s", "resource_api_version": "V3"});
    let mut discovery = json!({"config_source": source, "type_urls": [kind]});
    if let Some(filter) = instead {
        discovery["type_urls"] = json!([kind, filter["@type"]]);
        discovery["default_config"] = filter;
    }
    json!({"name": name, "config_discovery": discovery})
}

/// An inlet, as [`network_filter`] makes it, in front of `before`.
pub(super) fn insert(place: &Place<'_>, before: &str, inlet: Value) -> Value {
    let chain = place.listener(json!({"filter": {"name": before}}));
    patch("NETWORK_FILTER", place.side, ("listener", chain), "INSERT_BEFORE", inlet)
}

/// A network filter that istiod serves by ECDS. In the place of a plugin whose code it cannot fetch Istio's agent puts an
/// [`RBAC`] that lets nobody in; as that is not of the type, Envoy keeps the plugin that it has.
pub(super) fn network_filter(runner: &Host, name: &str, shared: bool) -> Value {
    let instead = shared.then(|| json!({"@type": RBAC, "stat_prefix": "meltemi_absent"}));
    discovered(name, runner.network_type(), instead)
}

/// A `tcp_proxy` that istiod serves likewise: what changes of it drains no connections.
pub(super) fn tcp_proxy_filter(name: &str) -> Value {
    discovered(name, TCP_PROXY_TYPE, None)
}

/// Another filter in the place of `tcp_proxy`.
pub(super) fn replace_tcp_proxy(place: &Place<'_>, filter: Value) -> Value {
    let chain = place.listener(json!({"filter": {"name": TCP_PROXY}}));
    patch("NETWORK_FILTER", place.side, ("listener", chain), "REPLACE", filter)
}

/// More filter chains for a client's listener, in one patch that is tried once a listener; those of filters and chains are
/// tried on every chain, and several times.
pub(super) fn add_chains(listener: &str, chains: &[Value]) -> Value {
    let value = json!({"filter_chains": chains});
    patch("LISTENER", Side::Client, ("listener", json!({"name": listener})), "MERGE", value)
}

/// Another filter chain.
pub(super) fn add_chain(place: &Place<'_>, chain: Value) -> Value {
    patch("FILTER_CHAIN", place.side, ("listener", place.listener(Value::Null)), "ADD", chain)
}

/// Takes one of Istio's HTTP filters out.
pub(super) fn remove_http_filter(place: &Place<'_>, name: &str) -> Value {
    let chain = place.listener(json!({"filter": {"name": HCM, "subFilter": {"name": name}}}));
    patch("HTTP_FILTER", place.side, ("listener", chain), "REMOVE", Value::Null)
}

/// The bridge on the clusters that `cluster` matches.
pub(super) fn bridge(side: Side, cluster: Value, config: &OutletConfig) -> Value {
    patch("CLUSTER", side, ("cluster", cluster), "MERGE", upstream(config))
}

/// What makes a cluster one with the bridge.
pub(super) fn upstream(config: &OutletConfig) -> Value {
    json!({"upstream_config": {
        "name": "envoy.upstreams.http.dynamic_modules",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.dynamic_modules.v3.Config",
            "dynamic_module_config": module(),
            "bridge_name": "outlet",
            "bridge_config": string(config),
        },
    }})
}

/// The configuration of an inlet, for istiod to serve by ECDS. Names are global to a proxy.
pub(super) fn inlet(name: &str, config: &InletConfig) -> Value {
    network_extension(&Host::Module, name, "inlet", config)
}

/// The configuration of one of our network filters, likewise.
pub(super) fn network_extension<T: Serialize>(runner: &Host, name: &str, filter: &str, config: &T) -> Value {
    extension(name, runner.network_config(name, filter, config))
}

/// The configuration of `declare`, likewise.
pub(super) fn declaration(name: &str, config: &DeclareConfig) -> Value {
    extension(name, module_filter(LISTENER_FILTER, "declare", config))
}

/// The configuration of a filter, likewise.
pub(super) fn extension(name: &str, config: Value) -> Value {
    patch_in("ANY", "EXTENSION_CONFIG", NOWHERE, "ADD", json!({"name": name, "typed_config": config}))
}

/// A cluster of our own.
pub(super) fn add_cluster(cluster: Value) -> Value {
    patch_in("ANY", "CLUSTER", ("cluster", json!({})), "ADD", cluster)
}

/// A cluster of our own, for one side.
pub(super) fn add_cluster_of(side: Side, cluster: Value) -> Value {
    patch("CLUSTER", side, ("cluster", json!({})), "ADD", cluster)
}

/// A listener of our own.
pub(super) fn add_listener(side: Side, listener: Value) -> Value {
    patch("LISTENER", side, NOWHERE, "ADD", listener)
}

/// An EnvoyFilter for workloads with the module that have these labels as well.
pub(super) fn envoy_filter(
    namespace: &str,
    name: String,
    owner: Option<&Origin>,
    labels: &BTreeMap<String, String>,
    patches: Vec<Value>,
) -> Desired {
    envoy_filter_of(MODULES, namespace, name, owner, labels, patches)
}

/// An EnvoyFilter for those of such proxies whose workloads have these labels as well.
pub(super) fn envoy_filter_of(
    proxies: Proxies,
    namespace: &str,
    name: String,
    owner: Option<&Origin>,
    labels: &BTreeMap<String, String>,
    mut patches: Vec<Value>,
) -> Desired {
    limit(&mut patches, proxies);
    selecting(proxies.label, namespace, name, owner, labels, patches)
}

/// Limits patches to proxies of these versions.
pub(super) fn limit(patches: &mut [Value], proxies: Proxies) {
    for patch in patches {
        patch["match"]["proxy"] = json!({"proxyVersion": proxies.versions});
    }
}

/// An EnvoyFilter for workloads with this label that have these as well.
pub(super) fn selecting(
    (label, generation): (&str, &str),
    namespace: &str,
    name: String,
    owner: Option<&Origin>,
    labels: &BTreeMap<String, String>,
    patches: Vec<Value>,
) -> Desired {
    let mut selector = labels.clone();
    selector.insert(label.to_owned(), generation.to_owned());
    Desired {
        kind: DesiredKind::EnvoyFilter,
        namespace: namespace.to_owned(),
        name,
        owner: owner.cloned(),
        spec: (&json!({"workloadSelector": {"labels": selector}, "configPatches": patches})).into(),
    }
}
