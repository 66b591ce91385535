//! Objects of the API into the objects of the model, by the same types as a folder's.

use std::{collections::BTreeMap, sync::Arc};

use kube::core::{ApiResource, DynamicObject, ObjectMeta};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::kinds::Watched;
use crate::{
    model::{
        AnyObject, ApiGateway, ApplicationProtocol, DestinationRule, EndpointSlice, Gateway, IstioGateway, MetaRouter,
        Metadata, Object, Service, ServiceEntry,
    },
    problem::{Origin, Problem},
};

/// Annotations that mean something to us; all others come and go without a word.
const ANNOTATIONS: [&str; 2] = ["meltemi.dev/", "networking.istio.io/"];

/// The object's name in what we say about it.
pub(super) fn origin(resource: &ApiResource, metadata: &ObjectMeta) -> Origin {
    let name = metadata.name.as_deref().unwrap_or_default();
    // As in a folder, where objects without a namespace are in `default`: kinds of a cluster are no exception.
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let (group, kind) = (resource.group.clone(), resource.kind.clone());
    Origin { group, kind, name: format!("{namespace}/{name}"), ..Origin::default() }
}

/// Reads an object, or says which field is wrong.
pub(super) fn parse(watched: Watched, metadata: &ObjectMeta, data: &Value) -> Result<AnyObject, Box<Problem>> {
    let mut origin = origin(&watched.resource(), metadata);
    let metadata = Metadata {
        name: metadata.name.clone().unwrap_or_default(),
        namespace: metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        labels: metadata.labels.clone().unwrap_or_default(),
        annotations: annotations(metadata),
    };
    origin.document = document(watched, &metadata, data);
    Ok(match watched {
        Watched::Service => object::<Service>(origin, metadata, data)?.into(),
        Watched::EndpointSlice => flat::<EndpointSlice>(origin, metadata, data)?.into(),
        Watched::ServiceEntry => {
            let mut entry: Object<ServiceEntry> = object(origin, metadata, data)?;
            let assigned = data.pointer("/status/addresses").cloned().unwrap_or_default();
            entry.spec.assigned = serde_json::from_value(assigned).unwrap_or_default();
            entry.into()
        }
        Watched::DestinationRule => object::<DestinationRule>(origin, metadata, data)?.into(),
        Watched::Gateway => {
            let gateway: Object<IstioGateway> = object(origin, metadata, data)?;
            gateway.map(|_, spec| Gateway::from(spec)).into()
        }
        Watched::ApiGateway => {
            let gateway: Object<ApiGateway> = object(origin, metadata, data)?;
            gateway.map(|metadata, spec| spec.named(&metadata.name)).into()
        }
        Watched::ApplicationProtocol | Watched::AerakiApplicationProtocol => {
            object::<ApplicationProtocol>(origin, metadata, data)?.into()
        }
        Watched::MetaRouter => object::<MetaRouter>(origin, metadata, data)?.into(),
        Watched::AerakiMetaRouter => {
            let router: Object<MetaRouter> = object(origin, metadata, data)?;
            router.map(|_, spec| spec.from_aeraki()).into()
        }
        Watched::Pod => return Err(Box::new(origin.error("", "pods have nothing to be parsed"))),
    })
}

/// All that is needed to read the object again. Endpoints are never wrong, and many.
fn document(watched: Watched, metadata: &Metadata, data: &Value) -> Option<Arc<str>> {
    if watched == Watched::EndpointSlice {
        return None;
    }
    let resource = watched.resource();
    let Metadata { name, namespace, labels, annotations } = metadata;
    let metadata = json!({"name": name, "namespace": namespace, "labels": labels, "annotations": annotations});
    let (version, kind) = (resource.api_version, resource.kind);
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": data.get("spec")});
    if watched == Watched::ServiceEntry
        && let Some(addresses) = data.pointer("/status/addresses")
        && let Some(fields) = object.as_object_mut()
    {
        fields.insert("status".to_owned(), json!({"addresses": addresses}));
    }
    Some(object.to_string().into())
}

/// Reads the document of an object.
pub(super) fn read_again(document: &str) -> Option<AnyObject> {
    let object: DynamicObject = serde_json::from_str(document).ok()?;
    let types = object.types.as_ref()?;
    let is_it = |watched: &Watched| {
        let resource = watched.resource();
        (&resource.api_version, &resource.kind) == (&types.api_version, &types.kind)
    };
    let watched = Watched::ALL.into_iter().find(is_it)?;
    parse(watched, &object.metadata, &object.data).ok()
}

fn annotations(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    let all = metadata.annotations.iter().flatten();
    all.filter(|(key, _)| ANNOTATIONS.iter().any(|prefix| key.starts_with(prefix)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[derive(Deserialize)]
struct WithSpec<T> {
    spec: T,
}

fn object<T: DeserializeOwned>(origin: Origin, metadata: Metadata, data: &Value) -> Result<Object<T>, Box<Problem>> {
    let object: Object<WithSpec<T>> = flat(origin, metadata, data)?;
    Ok(Object { origin: object.origin, metadata: object.metadata, spec: object.spec.spec })
}

/// An object whose content stands beside its metadata.
fn flat<T: DeserializeOwned>(origin: Origin, metadata: Metadata, data: &Value) -> Result<Object<T>, Box<Problem>> {
    match serde_path_to_error::deserialize::<_, T>(data) {
        Ok(spec) => Ok(Object { origin, metadata, spec }),
        Err(error) => {
            let path = error.path().to_string();
            let field = if path == "." || path == "?" { String::new() } else { path };
            Err(Box::new(origin.error(field, error.into_inner().to_string())))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata() -> ObjectMeta {
        ObjectMeta {
            name: Some("echo".to_owned()),
            namespace: Some("shop".to_owned()),
            annotations: Some(
                [("meltemi.dev/codec", "thrift"), ("kubectl.kubernetes.io/last-applied-configuration", "{}")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn the_field_and_the_reason_are_told() {
        let data = json!({"spec": {"hosts": ["a"], "routes": [{"name": "r", "timeout": "5 parsecs"}]}});
        let problem = parse(Watched::MetaRouter, &metadata(), &data).unwrap_err();
        assert_eq!(
            problem.to_string(),
            "error: MetaRouter shop/echo: spec.routes[0].timeout: `5 parsecs` is not a duration; write a number and a \
             unit, such as 1.5s, 20ms or 1m"
        );
        let problem = parse(Watched::AerakiMetaRouter, &metadata(), &json!({})).unwrap_err();
        assert!(problem.to_string().contains("MetaRouter shop/echo: missing field `spec`"));
    }

    #[test]
    fn addresses_that_istiod_has_assigned_are_read() {
        let status = json!({"conditions": [], "addresses": [{"host": "a.test", "value": "240.240.0.1"}]});
        let data = json!({"spec": {"hosts": ["a.test"]}, "status": status});
        let AnyObject::ServiceEntry(entry) = parse(Watched::ServiceEntry, &metadata(), &data).unwrap() else {
            panic!()
        };
        let assigned: Vec<_> = entry.spec.assigned.iter().map(|one| (one.host.as_str(), one.value.as_str())).collect();
        assert_eq!(assigned, [("a.test", "240.240.0.1")]);
    }

    #[test]
    fn a_document_says_the_same_again() {
        let services = json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}, "status": {}});
        let routers = json!({"spec": {"hosts": ["a"], "routes": [{"name": "r", "timeout": "5s"}]}});
        for (watched, data) in [
            (Watched::Service, services),
            (Watched::MetaRouter, routers.clone()),
            (Watched::AerakiMetaRouter, routers),
            (
                Watched::ServiceEntry,
                json!({"spec": {"hosts": ["a"]}, "status": {"addresses": [{"host": "a", "value": "240.240.0.1"}]}}),
            ),
            (Watched::ApiGateway, json!({"spec": {"gatewayClassName": "istio", "listeners": [{"port": 1}]}})),
        ] {
            let object = parse(watched, &metadata(), &data).unwrap();
            let document = object.origin().document.clone().unwrap();
            assert_eq!(read_again(&document), Some(object), "{document}");
        }
        assert_eq!(read_again("{}"), None);
        let slice = parse(Watched::EndpointSlice, &metadata(), &json!({"endpoints": []})).unwrap();
        assert_eq!(slice.origin().document, None);
    }

    #[test]
    fn annotations_of_others_are_passed_over() {
        let data = json!({"spec": {"ports": [{"port": 1, "nodePort": 2}]}, "status": {"loadBalancer": {}}});
        let AnyObject::Service(service) = parse(Watched::Service, &metadata(), &data).unwrap() else { panic!() };
        assert_eq!(service.metadata.annotations.keys().collect::<Vec<_>>(), ["meltemi.dev/codec"]);
    }
}
