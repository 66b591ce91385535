//! One look at a cluster, for commands that only tell what would be.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta},
    runtime::watcher::Event,
};
use serde_json::Value;

use super::{
    cache::{Cache, Told},
    kinds::{Watched, written},
    live::is_ours,
};
use crate::{
    istio::{DesiredKind, Facts, Foreign},
    model::Model,
    problem::Problem,
};

/// What a cluster holds now, with what cannot be read of it.
///
/// # Errors
/// If the API server does not answer, or refuses.
pub async fn look(client: &Client, root_namespace: &str) -> anyhow::Result<(Model, Facts, Vec<Problem>)> {
    let cache = Cache::default();
    for watched in Watched::ALL {
        if watched == Watched::Pod {
            let pods = Api::<PartialObjectMeta<Pod>>::all(client.clone()).list(&ListParams::default()).await?;
            cache.take_pod(Event::Init);
            pods.items.into_iter().for_each(|pod| cache.take_pod(Event::InitApply(pod.metadata)));
            cache.take_pod(Event::InitDone);
            continue;
        }
        let objects = list(client, &watched.resource()).await?;
        cache.take(watched, Event::Init);
        for object in objects {
            cache.take(watched, Event::InitApply(Told { metadata: object.metadata, data: object.data }));
        }
        cache.take(watched, Event::InitDone);
    }
    let seen = cache.read().ok_or_else(|| anyhow::anyhow!("something was not listed"))?;
    let policies = GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy");
    let policies = ApiResource::from_gvk_with_plural(&policies, "authorizationpolicies");
    let facts = Facts {
        root_namespace: root_namespace.to_owned(),
        workloads: seen.workloads,
        virtual_services: foreign(list(client, &written(DesiredKind::VirtualService)).await?),
        authorization_policies: foreign(list(client, &policies).await?),
        envoy_filters: foreign(list(client, &written(DesiredKind::EnvoyFilter)).await?),
    };
    Ok((seen.model, facts, seen.problems))
}

/// All objects of a kind; none if it is not installed.
async fn list(client: &Client, resource: &ApiResource) -> kube::Result<Vec<DynamicObject>> {
    match Api::<DynamicObject>::all_with(client.clone(), resource).list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn foreign(objects: Vec<DynamicObject>) -> Vec<Foreign> {
    let theirs = objects.into_iter().filter(|object| !is_ours(&object.metadata));
    theirs
        .map(|mut object| Foreign {
            namespace: object.metadata.namespace.unwrap_or_default(),
            name: object.metadata.name.unwrap_or_default(),
            spec: object.data.get_mut("spec").map(Value::take).unwrap_or_default(),
        })
        .collect()
}
