//! The objects that users write, as they are, and the set of them that is compiled.

mod aeraki;
mod annotations;
mod any;
mod application_protocol;
mod common;
mod gateway;
mod istio;
mod kube;
mod meta_router;

pub use annotations::check_annotations;
pub use any::AnyObject;
pub use application_protocol::{ApplicationProtocol, Mode};
pub use common::{Metadata, Percent, Span, StringMatch};
pub use gateway::{ApiGateway, Gateway, GatewayProtocol, GatewayServer, IstioGateway, Proxies};
pub use istio::{
    AssignedAddress, ClientTls, ConnectionPool, ConsistentHash, DestinationRule, Endpoint, Host, HttpPool,
    LoadBalancer, Maglev, OutlierDetection, PortPolicy, Resolution, RingHash, ServiceEntry, ServiceEntryPort, SimpleLb,
    Subset, TcpPool, TlsMode, TrafficPolicy, WorkloadSelector,
};
pub use kube::{EndpointPort, EndpointSlice, Service, ServicePort, SliceEndpoint, TargetPort};
pub use meta_router::{
    Abort, Condition, Delay, Descriptor, Destination, Fault, GlobalRateLimit, KeyValue, LocalRateLimit, MetaRouter,
    PortSelector, Retries, Route, RouteMatch, TokenBucket, Weighted,
};

use std::sync::Arc;

use crate::problem::Origin;

/// An object with its metadata and the place it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<T> {
    /// File, line, kind and name.
    pub origin: Origin,
    /// Name, namespace, labels, annotations.
    pub metadata: Metadata,
    /// What it says.
    pub spec: T,
}

impl<T> Object<T> {
    /// The same object, saying something else.
    pub fn map<U>(self, change: impl FnOnce(&Metadata, T) -> U) -> Object<U> {
        let Self { origin, metadata, spec } = self;
        let spec = change(&metadata, spec);
        Object { origin, metadata, spec }
    }
}

/// Everything that is compiled, in the order the source gives it: of two objects that claim the same thing the first one
/// gets it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    /// Kubernetes services.
    pub services: Vec<Arc<Object<Service>>>,
    /// Their endpoints.
    pub endpoint_slices: Vec<Arc<Object<EndpointSlice>>>,
    /// Istio service entries.
    pub service_entries: Vec<Arc<Object<ServiceEntry>>>,
    /// Istio destination rules.
    pub destination_rules: Vec<Arc<Object<DestinationRule>>>,
    /// Gateways, Istio's and those of the Gateway API.
    pub gateways: Vec<Arc<Object<Gateway>>>,
    /// Our routes, and Aeraki's.
    pub meta_routers: Vec<Arc<Object<MetaRouter>>>,
    /// Our protocols, and Aeraki's.
    pub application_protocols: Vec<Arc<Object<ApplicationProtocol>>>,
}
