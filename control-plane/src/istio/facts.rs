use std::collections::BTreeMap;

use super::MODULE_LABEL;

/// What we must know of a cluster beside the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Namespace whose EnvoyFilters are for all namespaces.
    pub root_namespace: String,
    /// Pods.
    pub workloads: Vec<Workload>,
}

impl Default for Facts {
    fn default() -> Self {
        Self { root_namespace: "istio-system".to_owned(), workloads: Vec::new() }
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

    /// A service of this namespace with this selector, which is not empty, has it as an endpoint.
    pub fn is_selected(&self, namespace: &str, selector: &BTreeMap<String, String>) -> bool {
        self.namespace == namespace
            && !selector.is_empty()
            && selector.iter().all(|(name, value)| self.labels.get(name) == Some(value))
    }
}
