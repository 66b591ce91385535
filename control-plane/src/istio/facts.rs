use std::collections::BTreeMap;

use serde_json::Value;

use super::MODULE_LABEL;
use crate::{model::Metadata, problem::Origin};

/// What we must know of a cluster beside the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Namespace whose EnvoyFilters are for all namespaces.
    pub root_namespace: String,
    /// Pods.
    pub workloads: Vec<Workload>,
    /// Users' VirtualServices; only looked at.
    pub virtual_services: Vec<Foreign>,
    /// Their AuthorizationPolicies; only looked at.
    pub authorization_policies: Vec<Foreign>,
    /// EnvoyFilters that are not ours; only looked at.
    pub envoy_filters: Vec<Foreign>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".to_owned(),
            workloads: Vec::new(),
            virtual_services: Vec::new(),
            authorization_policies: Vec::new(),
            envoy_filters: Vec::new(),
        }
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

/// An object of Istio that is the user's business, and may not fit ours.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Foreign {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: Value,
}

impl Foreign {
    pub(super) fn origin(&self, kind: &str) -> Origin {
        Origin { kind: kind.to_owned(), name: format!("{}/{}", self.namespace, self.name), ..Origin::default() }
    }

    pub(super) fn metadata(&self) -> Metadata {
        Metadata { name: self.name.clone(), namespace: self.namespace.clone(), ..Metadata::default() }
    }
}
