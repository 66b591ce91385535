//! Writes what we want, while we hold the lease.

mod pacing;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::DynamicObject,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{info, warn};

use self::{
    pacing::Pacing,
    plan::{Action, Written, plan},
};
use super::{
    MANAGED_BY, MANAGER,
    events::{Events, Word},
    kinds::written,
    lease::Leadership,
    live::{Live, Target, is_ours},
};
use crate::istio::Digest;

pub(super) use plan::Wanted;

/// Writes at a time.
const AT_ONCE: usize = 8;
/// Until the API server must have answered: less than the lease outlasts our belief in it.
const PATIENCE: Duration = Duration::from_secs(4);

/// Everything that should be in the cluster.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Order {
    /// Counts up.
    pub(super) number: u64,
    pub(super) wanted: BTreeMap<Target, Wanted>,
    /// Uids of owners about which nothing good is known, whose objects stay.
    pub(super) held: BTreeSet<String>,
}

/// How far the cluster is from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The order that it is about.
    pub(super) number: u64,
    /// What is not as it should be, and why.
    pub(super) open: BTreeMap<Target, String>,
}

pub(super) struct Writer {
    client: Client,
    live: Arc<Live>,
    leadership: Leadership,
    events: Events,
    report: watch::Sender<Report>,
    written: BTreeMap<Target, Written>,
    pacing: Pacing,
}

/// What became of an action.
enum Outcome {
    Wrote(Box<DynamicObject>, bool),
    Deleted,
    Foreign,
    Failed(String),
    /// The lease is lost.
    Stopped,
}

impl Writer {
    pub(super) fn new(
        client: Client,
        live: Arc<Live>,
        leadership: Leadership,
        events: Events,
        report: watch::Sender<Report>,
    ) -> Self {
        let (written, pacing) = (BTreeMap::new(), Pacing::default());
        Self { client, live, leadership, events, report, written, pacing }
    }

    /// Follows the orders; never ends.
    pub(super) async fn run(mut self, mut orders: watch::Receiver<Option<Arc<Order>>>) {
        loop {
            let order = orders.borrow_and_update().clone();
            if let Some(order) = order {
                self.bring_about(&order).await;
            }
            let due = self.pacing.next(Instant::now());
            let live = self.live.clone();
            tokio::select! {
                changed = orders.changed() => if changed.is_err() { return },
                () = live.changed.notified() => {}
                () = self.leadership.changed() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    /// Makes the cluster as the order says, as far as it goes now.
    async fn bring_about(&mut self, order: &Order) {
        if !self.leadership.holds() {
            // Whoever holds it writes now: what differs from our last write is no drift.
            self.written.clear();
            return;
        }
        let Some(live) = self.live.read() else { return };
        let missing = self.live.missing();
        self.written.retain(|target, _| order.wanted.contains_key(target));
        self.pacing.retain(|target| order.wanted.contains_key(target) || live.contains_key(target));
        let mut open: BTreeMap<Target, String> = BTreeMap::new();
        let before = self.report.borrow().open.clone();
        let now = Instant::now();
        let mut due = Vec::new();
        for (target, action) in plan(&order.wanted, &live, &self.written, &order.held) {
            if missing.contains(&target.kind) {
                open.insert(target, "this kind is not installed in the cluster".to_owned());
            } else if self.pacing.is_due(&target, now) {
                due.push((target, action));
            } else {
                let reason = before.get(&target).cloned().unwrap_or_else(|| "somebody keeps changing it".to_owned());
                open.insert(target, reason);
            }
        }
        let outcomes: Vec<(Target, Outcome)> = futures_util::stream::iter(due)
            .map(|(target, action)| {
                let this = &*self;
                async move {
                    let outcome = this.perform(&target, action, order.wanted.get(&target)).await;
                    (target, outcome)
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (target, outcome) in outcomes {
            if let Some(reason) = self.settle(&target, outcome, order) {
                open.insert(target, reason);
            }
        }
        let new = Report { number: order.number, open };
        self.report.send_if_modified(|report| {
            let changed = *report != new;
            *report = new;
            changed
        });
    }

    async fn perform(&self, target: &Target, action: Action, wanted: Option<&Wanted>) -> Outcome {
        if !self.leadership.holds() {
            return Outcome::Stopped;
        }
        let outcome = match (action, wanted) {
            (Action::Create { drift }, Some(wanted)) => timeout(PATIENCE, self.create(target, wanted, drift)).await,
            (Action::Update { uid, drift }, Some(wanted)) => {
                timeout(PATIENCE, self.apply(target, wanted, Some(&uid), drift)).await
            }
            (Action::Delete { uid, version }, _) => timeout(PATIENCE, self.delete(target, uid, version)).await,
            (Action::Foreign | Action::Create { .. } | Action::Update { .. }, _) => return Outcome::Foreign,
        };
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Failed(in_words(&error)),
            Err(_) => Outcome::Failed("the API server does not answer".to_owned()),
        }
    }

    async fn create(&self, target: &Target, wanted: &Wanted, drift: bool) -> kube::Result<Outcome> {
        // An apply would merge into an object that somebody else made.
        match self.api(target).get_metadata_opt(&target.name).await? {
            Some(found) if !is_ours(&found.metadata) => Ok(Outcome::Foreign),
            Some(found) => self.apply(target, wanted, found.metadata.uid.as_deref(), drift).await,
            None => self.apply(target, wanted, None, drift).await,
        }
    }

    async fn apply(&self, target: &Target, wanted: &Wanted, uid: Option<&str>, drift: bool) -> kube::Result<Outcome> {
        let mut object = json!({
            "apiVersion": target.kind.api_version(),
            "kind": target.kind,
            "metadata": {"name": target.name, "namespace": target.namespace, "labels": {MANAGED_BY.0: MANAGED_BY.1}},
            "spec": wanted.spec,
        });
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            if let Some(owner) = &wanted.owner {
                metadata.insert("ownerReferences".to_owned(), json!([owner]));
            }
            if let Some(uid) = uid {
                // This very object, and no other that took its name meanwhile.
                metadata.insert("uid".to_owned(), json!(uid));
            }
        }
        // What is ours is taken back by force; in a new object there is nobody to be forced.
        let mut params = PatchParams::apply(MANAGER);
        params.force = uid.is_some();
        let object = self.api(target).patch(&target.name, &params, &Patch::Apply(&object)).await?;
        Ok(Outcome::Wrote(Box::new(object), drift))
    }

    async fn delete(&self, target: &Target, uid: String, version: String) -> kube::Result<Outcome> {
        let preconditions = Preconditions { uid: Some(uid), resource_version: Some(version) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match self.api(target).delete(&target.name, &params).await {
            Ok(_) => Ok(Outcome::Deleted),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Outcome::Deleted),
            Err(error) => Err(error),
        }
    }

    /// Remembers what became of it; gives what is still wrong.
    fn settle(&mut self, target: &Target, outcome: Outcome, order: &Order) -> Option<String> {
        let now = Instant::now();
        match outcome {
            Outcome::Wrote(object, drift) => {
                self.pacing.done(target);
                let became = Digest::of(object.data.get("spec").unwrap_or(&Value::Null));
                self.live.wrote(target.kind, *object);
                if let Some(wanted) = order.wanted.get(target) {
                    let written = Written { wanted: wanted.spec.digest(), owner: wanted.owner.clone(), became };
                    self.written.insert(target.clone(), written);
                }
                if drift && self.pacing.repaired(target, now) {
                    warn!("{target}: somebody else changed it, and it was put right");
                    let note = "somebody else changed this object, and it was put right; change what it is made from";
                    self.events.say(&target.reference(), Word::warning("DriftRepaired", "Apply", note));
                } else if !drift {
                    info!("{target}: written");
                }
                None
            }
            Outcome::Deleted => {
                info!("{target}: deleted, for nothing wants it any more");
                self.pacing.done(target);
                self.live.removed(target);
                None
            }
            Outcome::Foreign => {
                let reason = "an object of this name is there that is not ours; it was left alone";
                if self.pacing.failed(target, now) {
                    warn!("{target}: {reason}");
                    self.events.say(&target.reference(), Word::warning("NotOurs", "Apply", reason));
                }
                Some(reason.to_owned())
            }
            Outcome::Failed(reason) => {
                // A namespace on its way out takes its objects with it, and takes nothing new.
                let ending = reason.contains("is being terminated");
                if self.pacing.failed(target, now) && !ending {
                    warn!("{target}: cannot be written: {reason}");
                }
                Some(reason)
            }
            Outcome::Stopped => Some("the lease was lost".to_owned()),
        }
    }

    fn api(&self, target: &Target) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &target.namespace, &written(target.kind))
    }
}

/// The server's own words, without the object that they come in.
pub(super) fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}

impl Target {
    fn reference(&self) -> ObjectReference {
        let resource = written(self.kind);
        ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            ..ObjectReference::default()
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;
