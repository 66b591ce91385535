//! The tcp shape: istiod sees TCP; in the place of its `tcp_proxy` stands an HCM with routes of our own, both served by our
//! xDS server. In connection mode `tcp_proxy` stays, behind the relay.
//!
//! A proxy that starts while we are not there gets the default that istiod gives it, a route to the service itself, and
//! keeps what it had from us otherwise.

use std::collections::BTreeMap;

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

/// Adds the objects of a port, and what our xDS server has for it.
pub(super) fn add(
    port: &MeshPort<'_>,
    services: &Services<'_>,
    facts: &Facts,
    telemetry: &Telemetry,
    output: &mut Compiled,
) {
    let Some(compiled) = services.port(port.host, port.number) else { return };
    if port.protocol.mode == Mode::Connection {
        connection(port, facts, output);
        mesh::relay(compiled, services, &mut output.snapshot, &mut output.problems);
        return;
    }
    let outbound = compile::cluster_name(port.host, port.number, None);
    let mut patches = Vec::new();
    let inlet_name = port.extension_name("inlet", Side::Client);
    for listener in port.listeners() {
        let place = Place::outbound(Listeners::Named(&listener));
        patches.push(patch::insert(&place, TCP_PROXY, &inlet_name, false));
        let name = mesh::outbound_name(port.host, port.number);
        patches.push(patch::replace_tcp_proxy(&place, manager(&name, &outbound)));
        patches.push(patch::add_chain(&place, keeper(&name)));
    }
    let cluster = json!({"service": port.host, "portNumber": port.number});
    patches.push(patch::bridge(Side::Client, cluster, &outlet(port)));
    let config = InletConfig { authority: Some(port.authority()), ..inlet(port) };
    patches.push(patch::inlet(&inlet_name, &config));
    let owner = (port.namespace == facts.root_namespace).then_some(port.origin);
    let name = port.filter_name(Side::Client);
    output.desired.push(patch::envoy_filter(&facts.root_namespace, name, owner, &BTreeMap::new(), patches));
    if !port.selector.is_empty() {
        server(port, output);
    }
    mesh::managers(compiled, &port.targets, services, telemetry, &mut output.snapshot, &mut output.problems);
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

/// `tcp_proxy` waits for the relay, which says where to.
fn connection(port: &MeshPort<'_>, facts: &Facts, output: &mut Compiled) {
    let name = mesh::relay_name(port.host, port.number);
    let mut patches = Vec::new();
    for listener in port.listeners() {
        let place = Place::outbound(Listeners::Named(&listener));
        patches.push(patch::insert_ours(&place, TCP_PROXY, &name));
        patches.push(patch::wait_for_data(&place));
    }
    let owner = (port.namespace == facts.root_namespace).then_some(port.origin);
    let name = port.filter_name(Side::Client);
    output.desired.push(patch::envoy_filter(&facts.root_namespace, name, owner, &BTreeMap::new(), patches));
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
        "route_config": {"name": "default", "virtual_hosts": [{"name": "default", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}},
        ]}]},
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
        "name": name,
        // No two chains of a listener match the same.
        "filter_chain_match": {"application_protocols": [format!("meltemi-keeper-{name}")]},
        "filters": [{"name": patch::HCM, "typed_config": {
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
