//! The manager in the place of `tcp_proxy`, as istiod is told of it.

use serde_json::{Value, json};

use super::{messages, patch::HCM_TYPE};
use crate::compile::{Host, mesh};

/// Our xDS server as the source of a configuration.
fn ours() -> Value {
    messages::config_source(&mesh::ours())
}

/// An HCM from our xDS server; until that answers, one like it with a route to `cluster` alone.
pub(super) fn manager(runner: &Host, name: &str, cluster: &str) -> Value {
    let mut default = messages::manager(&mesh::bare_manager(runner, name));
    // A service that goes may leave a listener to others, for as long as it takes to be patched no longer.
    default["route_config"] = json!({"name": "default", "validate_clusters": false, "virtual_hosts": [
        {"name": "default", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}},
        ]},
    ]});
    default["http_filters"] = json!([router()]);
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
