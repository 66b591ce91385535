//! Takes what we wrote out of a mesh, for good.

use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Preconditions},
    core::{DynamicObject, ObjectMeta},
};
use tokio::time::sleep;

use super::{
    kinds::{ours, written},
    lease,
    live::{KINDS, Target, is_ours},
    look::list,
};

/// How long nobody writes after a removal from a control plane that may still run: time to end it.
const HOLD: Duration = Duration::from_secs(30);
/// What a removal may take.
const WHILE: Duration = Duration::from_secs(300);
/// Deletions at a time.
const AT_ONCE: usize = 8;

/// The removal of everything that is ours, by label and field manager.
pub struct Removal {
    client: Client,
    namespace: String,
    identity: String,
}

impl Removal {
    /// `namespace`: where the control plane is, or was.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        let identity = format!("removal_{:x}", std::process::id());
        Self { client, namespace: namespace.to_owned(), identity }
    }

    /// What would be deleted.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn plan(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.find().await?.iter().map(|(target, _)| target.to_string()).collect())
    }

    /// Keeps the control plane from writing, deletes, and tells each thing that was done. Gives for how long it keeps a control plane
    /// that had the lease from writing again; a lease that nobody had is free afterwards.
    ///
    /// # Errors
    /// If the API server does not answer, or refuses.
    pub async fn run(&self, mut tell: impl FnMut(String)) -> anyhow::Result<Option<Duration>> {
        let holder = self.seize(WHILE).await?;
        if let Some(holder) = &holder {
            tell(format!("the lease of {holder} is taken; waiting {:?} for it to stop writing", lease::DURATION));
            sleep(lease::DURATION).await;
        }
        let found = self.find().await?;
        let mut deletions = futures_util::stream::iter(&found)
            .map(|(target, uid)| async move { (target, self.delete(target, uid).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((target, result)) = deletions.next().await {
            result.with_context(|| format!("cannot delete {target}"))?;
            tell(format!("deleted {target}"));
        }
        if holder.is_some() {
            self.seize(HOLD).await?;
            return Ok(Some(HOLD));
        }
        let given = lease::give_back(&self.client, &self.namespace, &self.identity).await;
        given.context("cannot give back the lease of the control plane")?;
        Ok(None)
    }

    async fn seize(&self, time: Duration) -> anyhow::Result<Option<String>> {
        let taken = lease::seize(&self.client, &self.namespace, &self.identity, time).await;
        taken.with_context(|| format!("cannot take the lease of the control plane in namespace {}", self.namespace))
    }

    async fn find(&self) -> anyhow::Result<Vec<(Target, String)>> {
        let labelled = ListParams::default().labels(&ours());
        let mut found = Vec::new();
        for kind in KINDS {
            let objects = list(&self.client, &written(kind), &labelled).await;
            let objects = objects.with_context(|| format!("cannot list {kind:?}s"))?;
            for DynamicObject { metadata, .. } in objects.into_iter().filter(|object| is_ours(&object.metadata)) {
                let ObjectMeta { namespace, name, uid, .. } = metadata;
                let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
                found.push((Target { kind, namespace, name }, uid.unwrap_or_default()));
            }
        }
        Ok(found)
    }

    async fn delete(&self, target: &Target, uid: &str) -> kube::Result<()> {
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let api = Api::<DynamicObject>::namespaced_with(self.client.clone(), &target.namespace, &written(target.kind));
        match api.delete(&target.name, &params).await {
            Ok(_) => Ok(()),
            // Gone by itself, or another has its name now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
