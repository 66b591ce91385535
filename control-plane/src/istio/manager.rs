//! The manager in the place of `tcp_proxy`, as istiod is told of it.

use meltemi_engine::names;
use serde_json::{Value, json};

use super::{patch::HCM_TYPE, xds::ours};
use crate::compile::{Host, host::WIDE};

/// An HCM from our xDS server; until that answers, one with a route to `cluster`.
pub(super) fn manager(runner: &Host, name: &str, cluster: &str) -> Value {
    let header = |key: &str, value: &str| json!({"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"});
    let mut http2 = json!({"max_concurrent_streams": 2_147_483_647u32});
    if runner != &Host::Module {
        // As `Host::adapt` has it.
        http2["initial_stream_window_size"] = json!(WIDE);
        http2["initial_connection_window_size"] = json!(WIDE);
    }
    let default = json!({
        "@type": HCM_TYPE,
        "stat_prefix": name,
        "codec_type": "HTTP2",
        "http2_protocol_options": http2,
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
pub(super) fn keeper(name: &str) -> Value {
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

pub(super) fn router() -> Value {
    json!({"name": "envoy.filters.http.router", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": true,
    }})
}
