use std::sync::Arc;

use super::{
    ApplicationProtocol, DestinationRule, EndpointSlice, Gateway, MetaRouter, Metadata, Model, Object, Service,
    ServiceEntry,
};
use crate::problem::{Key, Origin};

/// An object of a kind that we read.
#[derive(Debug, Clone, PartialEq)]
pub enum AnyObject {
    /// Kubernetes.
    Service(Arc<Object<Service>>),
    /// Kubernetes.
    EndpointSlice(Arc<Object<EndpointSlice>>),
    /// Istio.
    ServiceEntry(Arc<Object<ServiceEntry>>),
    /// Istio.
    DestinationRule(Arc<Object<DestinationRule>>),
    /// Istio's, or of the Gateway API.
    Gateway(Arc<Object<Gateway>>),
    /// Ours, or Aeraki's.
    MetaRouter(Arc<Object<MetaRouter>>),
    /// Ours, or Aeraki's.
    ApplicationProtocol(Arc<Object<ApplicationProtocol>>),
}

macro_rules! each {
    ($any:expr, $object:ident => $do:expr) => {
        match $any {
            AnyObject::Service($object) => $do,
            AnyObject::EndpointSlice($object) => $do,
            AnyObject::ServiceEntry($object) => $do,
            AnyObject::DestinationRule($object) => $do,
            AnyObject::Gateway($object) => $do,
            AnyObject::MetaRouter($object) => $do,
            AnyObject::ApplicationProtocol($object) => $do,
        }
    };
}

impl AnyObject {
    /// Where it comes from.
    pub fn origin(&self) -> &Origin {
        each!(self, object => &object.origin)
    }

    /// What it says about itself.
    pub fn metadata(&self) -> &Metadata {
        each!(self, object => &object.metadata)
    }

    /// Which object it is.
    pub fn key(&self) -> Key {
        self.origin().key()
    }

    /// Whether it says the same, wherever it comes from.
    pub fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Service(a), Self::Service(b)) => a.says_the_same(b),
            (Self::EndpointSlice(a), Self::EndpointSlice(b)) => a.says_the_same(b),
            (Self::ServiceEntry(a), Self::ServiceEntry(b)) => a.says_the_same(b),
            (Self::DestinationRule(a), Self::DestinationRule(b)) => a.says_the_same(b),
            (Self::Gateway(a), Self::Gateway(b)) => a.says_the_same(b),
            (Self::MetaRouter(a), Self::MetaRouter(b)) => a.says_the_same(b),
            (Self::ApplicationProtocol(a), Self::ApplicationProtocol(b)) => a.says_the_same(b),
            _ => false,
        }
    }
}

macro_rules! from {
    ($($kind:ident)*) => {
        $(impl From<Object<$kind>> for AnyObject {
            fn from(object: Object<$kind>) -> Self {
                Self::$kind(object.into())
            }
        })*
    };
}

from! { Service EndpointSlice ServiceEntry DestinationRule Gateway MetaRouter ApplicationProtocol }

impl<T: PartialEq> Object<T> {
    fn says_the_same(&self, other: &Self) -> bool {
        self.metadata == other.metadata && self.spec == other.spec
    }
}

impl Extend<AnyObject> for Model {
    fn extend<I: IntoIterator<Item = AnyObject>>(&mut self, objects: I) {
        for object in objects {
            match object {
                AnyObject::Service(object) => self.services.push(object),
                AnyObject::EndpointSlice(object) => self.endpoint_slices.push(object),
                AnyObject::ServiceEntry(object) => self.service_entries.push(object),
                AnyObject::DestinationRule(object) => self.destination_rules.push(object),
                AnyObject::Gateway(object) => self.gateways.push(object),
                AnyObject::MetaRouter(object) => self.meta_routers.push(object),
                AnyObject::ApplicationProtocol(object) => self.application_protocols.push(object),
            }
        }
    }
}

impl FromIterator<AnyObject> for Model {
    fn from_iter<I: IntoIterator<Item = AnyObject>>(objects: I) -> Self {
        let mut model = Self::default();
        model.extend(objects);
        model
    }
}

impl Model {
    /// All objects, those of a kind in their order.
    pub fn into_objects(self) -> impl Iterator<Item = AnyObject> {
        let services = self.services.into_iter().map(AnyObject::Service);
        services
            .chain(self.endpoint_slices.into_iter().map(AnyObject::EndpointSlice))
            .chain(self.service_entries.into_iter().map(AnyObject::ServiceEntry))
            .chain(self.destination_rules.into_iter().map(AnyObject::DestinationRule))
            .chain(self.gateways.into_iter().map(AnyObject::Gateway))
            .chain(self.meta_routers.into_iter().map(AnyObject::MetaRouter))
            .chain(self.application_protocols.into_iter().map(AnyObject::ApplicationProtocol))
    }
}
