//! One look at a cluster, for commands that only tell what would be.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::watcher::Event,
};

use super::{
    cache::{Cache, Told},
    kinds::{self, Watched},
    others,
};
use crate::{istio::Facts, model::Model, problem::Problem};

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
        let objects = list(client, &watched.resource(), &ListParams::default()).await?;
        cache.take(watched, Event::Init);
        for object in objects {
            cache.take(watched, Event::InitApply(Told { metadata: object.metadata, data: object.data }));
        }
        cache.take(watched, Event::InitDone);
    }
    for resource in others::resources() {
        for object in list(client, &resource, &ListParams::default().labels(&kinds::not_ours())).await? {
            cache.take_other(&resource, Some(Event::Apply(object)));
        }
    }
    let seen = cache.read().ok_or_else(|| anyhow::anyhow!("something was not listed"))?;
    let facts = Facts {
        root_namespace: root_namespace.to_owned(),
        workloads: seen.workloads,
        others: seen.others.into_iter().map(|other| other.object).collect(),
    };
    Ok((seen.model, facts, seen.problems))
}

/// All objects of a kind; none if it is not installed.
pub(super) async fn list(
    client: &Client,
    resource: &ApiResource,
    which: &ListParams,
) -> kube::Result<Vec<DynamicObject>> {
    match Api::<DynamicObject>::all_with(client.clone(), resource).list(which).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
