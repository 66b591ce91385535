//! Kubernetes `Service` and `EndpointSlice`, as far as we read them. Other fields are passed over: they are not ours.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `v1` `Service`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Service {
    /// The cluster IP, or `None`.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All of them.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Vec<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Labels of the pods behind it; empty if its endpoints are somebody else's business.
    #[serde(deserialize_with = "super::common::null_is_empty")]
    pub selector: BTreeMap<String, String>,
}

/// A port of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServicePort {
    /// Its name.
    pub name: String,
    /// Its number.
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
    pub endpoints: Vec<SliceEndpoint>,
    /// Their ports.
    pub ports: Vec<EndpointPort>,
}

/// One endpoint of a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// Its addresses; the first one is used.
    pub addresses: Vec<String>,
    /// Whether it takes requests.
    pub conditions: EndpointConditions,
    /// Not in Kubernetes, where pods have the labels: so that a folder can have subsets.
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
    pub port: u16,
}
