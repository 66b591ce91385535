//! The tcp shape: istiod sees TCP; in the place of its `tcp_proxy` stands an HCM with routes of our own, both served by our
//! xDS server. In connection mode it is a `tcp_proxy` of our own, behind the relay. At a client that place is a chain
//! beside istiod's, at a server istiod's own chain, which has its policies.
//!
//! A proxy that starts while we are not there gets the default that istiod gives it, a route to the service itself, and
//! keeps what it had from us otherwise.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use meltemi_engine::{config::InletConfig, names};
use serde_json::{Value, json};

use super::{
    Compiled, Facts,
    native::{INBOUND, inlet, outlet},
    patch::{self, Listeners, Place, Side, TCP_PROXY},
    ports::MeshPort,
    xds::ours,
};
use crate::{
    compile::{self, Services, Telemetry, mesh},
    model::Mode,
};

const HCM_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

const TCP_PROXY_TYPE: &str = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// Chains that the listeners of clients have: by a listener's name, and what a chain matches beside.
///
/// Headless services may have the same pods, and several services no address. Envoy refuses a listener with two chains that
/// match the same; istiod gives it to one service as well.
#[derive(Debug, Default)]
pub(super) struct Taken(HashSet<(String, Vec<(IpAddr, u8)>)>);

/// Adds the objects of a port, and what our xDS server has for it.
pub(super) fn add(
    port: &MeshPort<'_>,
    services: &Services<'_>,
    facts: &Facts,
    telemetry: &Telemetry,
    taken: &mut Taken,
    output: &mut Compiled,
) {
    let Some(compiled) = services.port(port.host, port.number) else { return };
    let in_requests = port.protocol.mode == Mode::Request;
    let patches = if in_requests { requests(port, taken) } else { connections(port, telemetry, taken) };
    let owner = (port.namespace == facts.root_namespace).then_some(port.origin);
    let name = port.filter_name(Side::Client);
    output.desired.push(patch::envoy_filter(&facts.root_namespace, name, owner, &BTreeMap::new(), patches));
    if in_requests && !port.selector.is_empty() {
        server(port, output);
    }
    let Compiled { snapshot, problems, .. } = output;
    if in_requests {
        mesh::managers(compiled, &port.targets, services, telemetry, snapshot, problems);
    } else {
        mesh::relay(compiled, services, telemetry, snapshot, problems);
    }
}

/// What clients have in request mode.
fn requests(port: &MeshPort<'_>, taken: &mut Taken) -> Vec<Value> {
    let inlet_name = port.extension_name("inlet", Side::Client);
    let name = mesh::outbound_name(port.host, port.number);
    let cluster = compile::cluster_name(port.host, port.number, None);
    let filters = [patch::network_filter(&inlet_name, false), manager(&name, &cluster)];
    let mut patches = listeners(port, &name, &filters, &[keeper(&name)], taken);
    let cluster = json!({"service": port.host, "portNumber": port.number});
    patches.push(patch::bridge(Side::Client, cluster, &outlet(port)));
    let config = InletConfig { authority: Some(port.authority()), ..inlet(port) };
    patches.push(patch::inlet(&inlet_name, &config));
    patches
}

/// The same in connection mode: the relay, and a `tcp_proxy` that waits for what it says, as istiod's own would not.
fn connections(port: &MeshPort<'_>, telemetry: &Telemetry, taken: &mut Taken) -> Vec<Value> {
    let (relay, proxy) = (mesh::relay_name(port.host, port.number), mesh::proxy_name(port.host, port.number));
    let mut filters = vec![patch::relay(&relay), patch::served(&proxy, TCP_PROXY_TYPE)];
    if telemetry.istio {
        // As istiod has it before its own `tcp_proxy`; in request mode the manager counts.
        let config = json!({"@type": "type.googleapis.com/stats.PluginConfig"});
        filters.insert(0, json!({"name": "istio.stats", "typed_config": config}));
    }
    listeners(port, &relay, &filters, &[], taken)
}

/// The patches that give a client's listeners of a port a chain with these filters, and `others` beside.
///
/// istiod's own chain stays. Envoy takes ours, because it says that it is not for TLS, which is more than istiod says of a
/// TCP service. Chains for HTTP and for other addresses say more still, so that they are found as before.
fn listeners(port: &MeshPort<'_>, name: &str, filters: &[Value], others: &[Value], taken: &mut Taken) -> Vec<Value> {
    let no_address = port.listener_of_no_address();
    let mut patches = Vec::new();
    for listener in port.listeners() {
        let ranges = if no_address.as_ref() == Some(&listener) { port.ranges.clone() } else { Vec::new() };
        let mut matches = json!({"transport_protocol": "raw_buffer"});
        if !ranges.is_empty() {
            let prefix = |(ip, bits): &(IpAddr, u8)| json!({"address_prefix": ip, "prefix_len": bits});
            matches["prefix_ranges"] = ranges.iter().map(prefix).collect();
        }
        if taken.0.insert((listener.clone(), ranges)) {
            let ours = json!({"name": name, "filter_chain_match": matches, "filters": filters});
            patches.push(patch::add_chains(&listener, &[&[ours], others].concat()));
        }
    }
    patches
}

fn server(port: &MeshPort<'_>, output: &mut Compiled) {
    let inlet_name = port.extension_name("inlet", Side::Server);
    let mut patches = Vec::new();
    for target in &port.targets {
        let place = Place { side: Side::Server, listeners: Listeners::Named(INBOUND), destination_port: Some(*target) };
        patches.push(patch::insert(&place, TCP_PROXY, &inlet_name, false));
        let cluster = mesh::inbound_cluster(*target);
        let name = mesh::inbound_name(port.host, port.number, *target);
        patches.push(patch::replace_tcp_proxy(&place, manager(&name, &cluster)));
        patches.push(patch::add_chain(&place, keeper(&name)));
        patches.push(patch::bridge(Side::Server, json!({"portNumber": target}), &outlet(port)));
    }
    let config = InletConfig { authority: Some(port.authority()), ..inlet(port) };
    patches.push(patch::inlet(&inlet_name, &config));
    let name = port.filter_name(Side::Server);
    output.desired.push(patch::envoy_filter(port.namespace, name, Some(port.origin), port.selector, patches));
}

/// An HCM from our xDS server; until that answers, one with a route to `cluster`.
fn manager(name: &str, cluster: &str) -> Value {
    let header = |key: &str, value: &str| json!({"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"});
    let default = json!({
        "@type": HCM_TYPE,
        "stat_prefix": name,
        "codec_type": "HTTP2",
        "http2_protocol_options": {"max_concurrent_streams": 2_147_483_647u32},
        "common_http_protocol_options": {"idle_timeout": "0s", "max_headers_count": 200},
        "max_request_headers_kb": 96,
        "stream_idle_timeout": "0s",
        "generate_request_id": false,
        "skip_xff_append": true,
        "normalize_path": false,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "server_header_transformation": "PASS_THROUGH",
        "local_reply_config": {"mappers": [{
            "filter": {"status_code_filter": {"comparison":
                {"op": "GE", "value": {"default_value": 100, "runtime_key": "meltemi.local_reply"}}}},
            "headers_to_add": [
                header(names::DETAILS, "%RESPONSE_CODE_DETAILS%"), header(names::FLAGS, "%RESPONSE_FLAGS%"),
            ],
        }]},
        // A service that goes may leave a listener to others, for as long as it takes to be patched no longer.
        "route_config": {"name": "default", "validate_clusters": false, "virtual_hosts": [
            {"name": "default", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}},
            ]},
        ]},
        "http_filters": [router()],
    });
    json!({"name": name, "config_discovery": {
        "config_source": ours(),
        "type_urls": [HCM_TYPE],
        "default_config": default,
    }})
}

/// A chain that no connection takes, for the sake of its routes. Envoy starts the subscription of routes while a listener
/// starts; a manager that comes later, as one by ECDS may, finds it running or never has any.
fn keeper(name: &str) -> Value {
    json!({
        "name": format!("meltemi-keeper-{name}"),
        // No two chains of a listener match the same.
        "filter_chain_match": {"application_protocols": [format!("meltemi-keeper-{name}")]},
        // istiod unpacks what has Envoy's name of a manager, and patches it as if it were its own.
        "filters": [{"name": "meltemi.keeper", "typed_config": {
            "@type": HCM_TYPE,
            "stat_prefix": name,
            "rds": {"config_source": ours(), "route_config_name": name},
            "http_filters": [router()],
        }}],
    })
}

fn router() -> Value {
    json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": true,
    }})
}
