//! Kubernetes `Service` and `EndpointSlice`, as far as we read them. Other fields are passed over: they are not ours.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::common::null_is_default;

/// `v1` `Service`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    /// The cluster IP, or `None`.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All of them.
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    pub cluster_ips: Vec<String>,
    /// Its ports.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<ServicePort>,
    /// Labels of the pods behind it; empty if its endpoints are somebody else's business.
    #[serde(deserialize_with = "null_is_default")]
    pub selector: BTreeMap<String, String>,
}

/// A port of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its number.
    #[serde(deserialize_with = "null_is_default")]
    pub port: u16,
    /// What is spoken on it.
    pub app_protocol: Option<String>,
    /// Its number or name in the pods; the same number if absent.
    pub target_port: Option<TargetPort>,
}

/// A port of pods.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the pods' containers give it.
    Name(String),
}

/// `discovery.k8s.io/v1` `EndpointSlice`. Its fields stand beside its metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointSlice {
    /// The endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoints: Vec<SliceEndpoint>,
    /// Their ports, those that have a number.
    #[serde(deserialize_with = "numbered")]
    pub ports: Vec<EndpointPort>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Its addresses; the first one is used.
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    /// Whether it takes requests.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: EndpointConditions,
    /// Not in Kubernetes, where pods have the labels: so that a folder can have subsets.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
}

/// State of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Not ready if `false`.
    pub ready: Option<bool>,
}

/// A port of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EndpointPort {
    /// The name of the service's port.
    pub name: Option<String>,
    /// Its number on the endpoint.
    #[serde(deserialize_with = "null_is_default")]
    pub port: u16,
}

/// Ports with `port: null`, of services that take any, have no number that a cluster could have.
fn numbered<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EndpointPort>, D::Error> {
    let mut ports: Vec<EndpointPort> = null_is_default(deserializer)?;
    ports.retain(|port| port.port != 0);
    Ok(ports)
}
