//! The user's own objects of Istio and the Gateway API that may not fit ours. Nothing is made of them, so nothing waits for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Resource,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::Event,
};
use serde_json::Value;

use super::{
    cache::map,
    kinds::written,
    listing::{Key, Listing},
    parse::origin,
};
use crate::{
    istio::{DesiredKind, LOOKED_AT},
    model::{Metadata, Object},
};

/// How the API names the kinds of `LOOKED_AT`.
pub(super) fn resources() -> [ApiResource; LOOKED_AT.len()] {
    let policies = GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy");
    let sidecars = GroupVersionKind::gvk("networking.istio.io", "v1", "Sidecar");
    let route = |kind: &str| GroupVersionKind::gvk(GATEWAY_API, "v1", kind);
    [
        written(DesiredKind::VirtualService),
        ApiResource::from_gvk_with_plural(&policies, "authorizationpolicies"),
        written(DesiredKind::EnvoyFilter),
        ApiResource::from_gvk_with_plural(&sidecars, "sidecars"),
        ApiResource::from_gvk_with_plural(&route("HTTPRoute"), "httproutes"),
        ApiResource::from_gvk_with_plural(&route("GRPCRoute"), "grpcroutes"),
    ]
}

/// Not every cluster has it.
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Whether there is nothing wrong with a cluster that lacks the kind.
pub(super) fn is_optional(resource: &ApiResource) -> bool {
    resource.group == GATEWAY_API
}

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Other {
    pub(super) object: Arc<Object<Value>>,
    /// As events name it.
    pub(super) reference: Arc<ObjectReference>,
}

impl Other {
    fn new(resource: &ApiResource, object: DynamicObject) -> Self {
        // A version would make each change of a status news.
        let reference = ObjectReference { resource_version: None, ..object.object_ref(resource) };
        let DynamicObject { metadata, mut data, .. } = object;
        let origin = origin(resource, &metadata);
        let (name, namespace) = (metadata.name.unwrap_or_default(), metadata.namespace.unwrap_or_default());
        let metadata = Metadata { name, namespace, ..Metadata::default() };
        let spec = data.get_mut("spec").map(Value::take).unwrap_or_default();
        Self { object: Arc::new(Object { origin, metadata, spec }), reference: Arc::new(reference) }
    }
}

/// All of them, by kind.
#[derive(Debug, Default)]
pub(super) struct Others {
    kinds: Mutex<BTreeMap<String, Listing<Other>>>,
}

impl Others {
    /// Takes what the watch of a kind tells; whether that is news.
    pub(super) fn take(&self, resource: &ApiResource, event: Event<DynamicObject>) -> bool {
        let event = map(event, |object| {
            let other = Other::new(resource, object);
            let key: Key = (other.object.metadata.namespace.clone(), other.object.metadata.name.clone());
            (key, other)
        });
        self.lock().entry(resource.kind.clone()).or_default().take(event, Other::eq)
    }

    /// The kind is not installed.
    pub(super) fn absent(&self, resource: &ApiResource) -> bool {
        self.lock().entry(resource.kind.clone()).or_default().absent()
    }

    /// All that is known now.
    pub(super) fn read(&self) -> Vec<Other> {
        self.lock().values().flat_map(|listing| listing.entries().values()).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Listing<Other>>> {
        // Nothing panics while it is held; if it did, the maps would still be whole.
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_kind_says_is_kept_until_it_says_otherwise() {
        let [virtual_services, policies, ..] = &resources();
        assert_eq!(
            (policies.api_version.as_str(), policies.plural.as_str()),
            ("security.istio.io/v1", "authorizationpolicies")
        );
        assert_eq!(resources().each_ref().map(|resource| (resource.group.as_str(), resource.kind.as_str())), LOOKED_AT);
        let others = Others::default();
        let mut object = DynamicObject::new("orders", virtual_services).within("shop");
        object.data = json!({"spec": {"hosts": ["orders"]}, "status": {"observedGeneration": "1"}});
        assert!(others.take(virtual_services, Event::Apply(object.clone())));
        object.data["status"] = json!({"observedGeneration": "2"});
        assert!(!others.take(virtual_services, Event::Apply(object.clone())), "status is no news");
        let [other] = others.read().try_into().unwrap();
        assert_eq!(
            (other.object.origin.name.as_str(), &other.object.spec),
            ("shop/orders", &json!({"hosts": ["orders"]}))
        );
        assert!(!others.take(policies, Event::Init) && others.take(policies, Event::InitDone));
        assert_eq!(others.read().len(), 1);
        assert!(others.absent(virtual_services) && others.read().is_empty());
    }
}
