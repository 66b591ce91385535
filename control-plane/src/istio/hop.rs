//! Outlets in Wasm in a sidecar: before a cluster of istiod's a cluster of ours, whose only endpoint is an internal listener
//! with the outlet, and behind it a manager that turns `CONNECT` into a connection to a server.
//!
//! ```text
//! routes ─▶ cluster hop|C ─▶ listener hop|C: outlet, manager ─▶ cluster C
//! ```
//!
//! Endpoints, TLS and policies are C's, so a server is chosen for a connection, not for a request.

use serde_json::{Value, json};

use super::{
    manager::router,
    patch::{self, Side},
};
/// Under which the listener filter `original_dst` of an internal listener finds where a connection was meant to go.
const DESTINATION: &str = "envoy.filters.listener.original_dst.local_ip";

/// Calls after which a connection is given up, so that one caller's do not all go to one server for ever.
const CALLS: u32 = 100;
const NO_LIMIT: u32 = u32::MAX;
/// Other servers that are tried for a connection.
const TRIES: u32 = 2;

/// The patches that put a hop of this name before a cluster of istiod's.
pub(super) fn patches(side: Side, name: &str, cluster: &str, outlet: &Value) -> [Value; 2] {
    [patch::add_cluster_of(side, self::cluster(name)), patch::add_listener(side, listener(name, cluster, outlet))]
}

/// What stands before an inlet for the sake of the hops behind it: some of istiod's clusters, as those of headless services
/// and of a pod itself, send a connection to where its client's was meant to go.
pub(super) fn remember() -> Value {
    json!({"name": "envoy.filters.network.set_filter_state", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config",
        "on_new_connection": [{
            "object_key": DESTINATION,
            "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_LOCAL_ADDRESS%"}},
            "shared_with_upstream": "ONCE",
        }],
    }})
}

fn cluster(name: &str) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        // Those of the cluster behind count.
        "circuit_breakers": {"thresholds": [{
            "max_connections": NO_LIMIT, "max_pending_requests": NO_LIMIT, "max_requests": NO_LIMIT, "max_retries": NO_LIMIT,
        }]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"envoy_internal_address": {"server_listener_name": name}}}},
        ]}]},
        "transport_socket": {"name": "envoy.transport_sockets.internal_upstream", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
            "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
            }},
        }},
        "typed_extension_protocol_options": {options: {
            "@type": format!("type.googleapis.com/{options}"),
            "common_http_protocol_options": {"max_requests_per_connection": CALLS},
            // One request at a time on a connection: that is one connection to the server.
            "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 1}},
        }},
    })
}

fn listener(name: &str, cluster: &str, outlet: &Value) -> Value {
    let route = json!({"match": {"connect_matcher": {}}, "route": {
        "cluster": cluster,
        "timeout": "0s",
        // Nothing has been said to a server yet.
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": TRIES,
            "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
            }}],
            "host_selection_retry_max_attempts": 10,
        },
        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
    }});
    let manager = json!({
        "@type": patch::HCM_TYPE,
        "stat_prefix": name,
        "codec_type": "HTTP2",
        "http2_protocol_options": {"allow_connect": true},
        "common_http_protocol_options": {"idle_timeout": "0s"},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "stream_idle_timeout": "0s",
        "generate_request_id": false,
        // A subset may be known here before istiod has made its cluster.
        "route_config": {"name": name, "validate_clusters": false, "virtual_hosts": [
            {"name": "server", "domains": ["*"], "routes": [route]},
        ]},
        "http_filters": [router()],
    });
    // istiod unpacks what has Envoy's name of a manager, and patches it as if it were its own.
    json!({
        "name": name,
        "stat_prefix": name,
        "internal_listener": {},
        "listener_filters": [{"name": "envoy.filters.listener.original_dst", "typed_config": {"@type": patch::ORIGINAL_DST}}],
        "filter_chains": [{"filters": [outlet, {"name": "meltemi.hop", "typed_config": manager}]}],
    })
}
