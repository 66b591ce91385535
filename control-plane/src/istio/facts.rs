use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{MODULE_LABEL, WASM_LABEL};
use crate::model::Object;

/// What we must know of a cluster beside the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Namespace whose EnvoyFilters are for all namespaces.
    pub root_namespace: String,
    /// Pods.
    pub workloads: Vec<Workload>,
    /// The user's own objects of Istio and the Gateway API, of the kinds of `LOOKED_AT`, that may not fit ours.
    pub others: Vec<Arc<Object<Value>>>,
}

/// Kinds that are only looked at, by group and kind.
pub const LOOKED_AT: [(&str, &str); 6] = [
    ("networking.istio.io", "VirtualService"),
    ("security.istio.io", "AuthorizationPolicy"),
    ("networking.istio.io", "EnvoyFilter"),
    ("networking.istio.io", "Sidecar"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
    ("gateway.networking.k8s.io", "GRPCRoute"),
];

impl Default for Facts {
    fn default() -> Self {
        Self { root_namespace: "istio-system".to_owned(), workloads: Vec::new(), others: Vec::new() }
    }
}

impl Facts {
    /// Those of one kind.
    pub(super) fn others(&self, kind: &str) -> impl Iterator<Item = &Object<Value>> {
        self.others.iter().map(AsRef::as_ref).filter(move |object| object.origin.kind == kind)
    }
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Workload {
    /// Its sidecar has the module.
    pub fn has_module(&self) -> bool {
        self.labels.get(MODULE_LABEL.0).is_some_and(|generation| generation == MODULE_LABEL.1)
    }

    /// Its sidecar may run our filters in Wasm.
    pub fn has_wasm(&self) -> bool {
        self.labels.get(WASM_LABEL.0).is_some_and(|generation| generation == WASM_LABEL.1)
    }

    /// A service of this namespace with this selector, which is not empty, has it as an endpoint.
    pub fn is_selected(&self, namespace: &str, selector: &BTreeMap<String, String>) -> bool {
        self.namespace == namespace
            && !selector.is_empty()
            && selector.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}
