//! What runs our filters in sidecars: which proxies these are, and how a filter is configured there.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Desired, Facts, MODULE_LABEL, WASM_LABEL,
    patch::{self, Side},
};
use crate::{
    compile::{
        Code, Host, MODULE,
        host::{CODE_CLUSTER, FETCH_TIMEOUT, RELOAD, Way},
    },
    first_vm,
    model::Mode,
};

/// Istio has dynamic modules since 1.31.
const WITH_MODULES: &str = r"^1\.(3[1-9]|[4-9][0-9])|^[2-9]\.";
/// Those before, as far as their Envoys have been tried with plugins, which are 1.36 to 1.38.
const WITHOUT_MODULES: &str = r"^1\.(28|29|30)([^0-9]|$)";
/// Of these, those whose `tcp_proxy` waits for a client's first bytes, as Envoy's does since 1.37.
const THAT_WAIT: &str = r"^1\.(29|30)([^0-9]|$)";

const MODULE_FILTER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.dynamic_modules.v3.DynamicModuleNetworkFilter";
const WASM_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm";

/// Proxies of a mesh.
#[derive(Debug, Clone, Copy)]
pub(super) struct Proxies {
    /// A label of their workloads.
    pub(super) label: (&'static str, &'static str),
    /// Their versions: a regular expression.
    pub(super) versions: &'static str,
}

/// Those with the module.
pub(super) const MODULES: Proxies = Proxies { label: MODULE_LABEL, versions: WITH_MODULES };

impl Host {
    /// The proxies in which it runs what a port's mode needs.
    pub(super) const fn proxies(&self, mode: Mode) -> Proxies {
        match (self, mode) {
            (Self::Module, _) => MODULES,
            (Self::Wasm(_), Mode::Request) => Proxies { label: WASM_LABEL, versions: WITHOUT_MODULES },
            (Self::Wasm(_), Mode::Connection) => Proxies { label: WASM_LABEL, versions: THAT_WAIT },
        }
    }

    /// The type of a network filter.
    pub(super) const fn network_type(&self) -> &'static str {
        match self {
            Self::Module => MODULE_FILTER,
            Self::Wasm(_) => WASM_FILTER,
        }
    }

    /// Names of what is configured differently for each.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Module => "",
            Self::Wasm(_) => "wasm.",
        }
    }

    /// One of our network filters.
    pub(super) fn network_config<T: Serialize>(&self, name: &str, filter: &str, config: &T) -> Value {
        match self {
            Self::Module => module_filter(MODULE_FILTER, filter, config),
            Self::Wasm(code) => json!({"@type": WASM_FILTER, "config": {
                "name": name,
                "root_id": filter,
                "configuration": string(config),
                // Never open: what is behind the filter would get bytes that it does not understand.
                "failure_policy": "FAIL_RELOAD",
                "reload_config": {"backoff": {"base_interval": span(RELOAD)}},
                "vm_config": {"vm_id": "meltemi", "runtime": "envoy.wasm.runtime.v8", "code": source(code)},
            }}),
        }
    }
}

/// What proxies have from their beginning that may get plugins, be there ports for them or not.
pub(super) fn first_vm(runner: &Host, facts: &Facts) -> Option<Desired> {
    let proxies = match runner {
        Host::Module => return None,
        Host::Wasm(_) => runner.proxies(Mode::Request),
    };
    let patches = vec![patch::add_listener(Side::Client, first_vm::listener())];
    let name = "meltemi-wasm-first-vm".to_owned();
    Some(patch::envoy_filter_of(proxies, &facts.root_namespace, name, None, &BTreeMap::new(), patches))
}

/// A filter of the module.
pub(super) fn module_filter<T: Serialize>(kind: &str, filter: &str, config: &T) -> Value {
    json!({
        "@type": kind,
        "dynamic_module_config": module(),
        "filter_name": filter,
        "filter_config": string(config),
    })
}

pub(super) fn module() -> Value {
    json!({"name": MODULE, "do_not_close": true})
}

/// A configuration as our filters read it.
pub(super) fn string<T: Serialize>(config: &T) -> Value {
    let text = serde_json::to_string(config).unwrap_or_default();
    json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text})
}

/// Code that is fetched is so by Istio's agent, which knows images as well, and puts a file in its place. The cluster, which
/// must have a name, is none.
fn source(code: &Code) -> Value {
    match code.way() {
        Way::Local(path) => json!({"local": {"filename": path}}),
        Way::Fetched { uri, sha256 } => {
            let uri = json!({"uri": uri, "cluster": CODE_CLUSTER, "timeout": span(FETCH_TIMEOUT)});
            json!({"remote": {"http_uri": uri, "sha256": sha256}})
        }
    }
}

fn span(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}
