//! Writes status and events, while we hold the lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    MANAGER,
    cache::{About, Cache},
    events::{Events, Word},
    lease::Leadership,
    live::Target,
    status::{Progress, judge, status, transitions},
    writer::{Report, in_words},
};
use crate::{
    problem::{Key, Problem, Severity},
    store::Store,
};

/// Between looks at what proxies say.
const LOOK: Duration = Duration::from_secs(1);
/// Time for a change to reach proxies before it is called pending.
const GRACE: Duration = Duration::from_millis(300);
/// Until the API server must have answered.
const PATIENCE: Duration = Duration::from_secs(4);

/// What was compiled last.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// Number of the order that came of it.
    pub(super) number: u64,
    /// The objects, in the generation that was compiled.
    pub(super) about: Vec<Arc<About>>,
    /// The user's objects that are only looked at.
    pub(super) others: Vec<(Key, Arc<ObjectReference>)>,
    pub(super) problems: Vec<Problem>,
    /// From which object each written one is made.
    pub(super) owners: BTreeMap<Target, String>,
}

pub(super) struct Reporter {
    pub(super) client: Client,
    pub(super) cache: Arc<Cache>,
    pub(super) store: Arc<Store>,
    pub(super) leadership: Leadership,
    pub(super) events: Events,
    pub(super) report: watch::Receiver<Report>,
    pub(super) judged: watch::Receiver<Arc<Judged>>,
}

impl Reporter {
    /// Follows what is to be said; never ends.
    pub(super) async fn run(mut self) {
        // What was said about objects that have no status of ours.
        let mut said = BTreeSet::new();
        loop {
            tokio::select! {
                () = self.cache.touched.notified() => {}
                changed = self.report.changed() => if changed.is_err() { return },
                changed = self.judged.changed() => if changed.is_err() { return },
                () = self.leadership.changed() => {}
                () = sleep(LOOK) => {}
            }
            sleep(GRACE).await;
            let judged = self.judged.borrow_and_update().clone();
            if !self.leadership.holds() || judged.number == 0 {
                said.clear();
                continue;
            }
            self.say_problems(&judged, &mut said);
            let report = self.report.borrow_and_update().clone();
            self.write(&judged, &report).await;
        }
    }

    async fn write(&self, judged: &Judged, report: &Report) {
        if report.number != judged.number {
            // The writer is at work; it tells when it is done.
            return;
        }
        let progress = Progress::of(&self.store.proxies(), self.store.now().generation);
        let compiled: BTreeMap<&str, &About> =
            judged.about.iter().map(|about| (about.uid.as_str(), &**about)).collect();
        for now in self.cache.ours() {
            let Some(about) = compiled.get(now.uid.as_str()) else { continue };
            let problems: Vec<&Problem> =
                judged.problems.iter().filter(|problem| problem.origin.key() == about.key).collect();
            let open: Vec<String> = report
                .open
                .iter()
                .filter(|(target, _)| judged.owners.get(target) == Some(&about.uid))
                .map(|(target, reason)| format!("{target}: {reason}"))
                .collect();
            let verdicts = judge(&problems, &open, &progress);
            let Some(new) = status(&verdicts, about.generation, now.status.as_ref(), Timestamp::now()) else {
                continue;
            };
            if !self.leadership.holds() {
                return;
            }
            match timeout(PATIENCE, self.patch(about, new)).await {
                Ok(Ok(())) => {
                    for verdict in transitions(&verdicts, now.status.as_ref()) {
                        let word = if verdict.holds { Word::normal } else { Word::warning };
                        self.events.say(&about.reference(), word(verdict.reason, verdict.kind, &verdict.message));
                    }
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => debug!("{}: gone meanwhile", about.name),
                Ok(Err(error)) => warn!("{}: the status cannot be written: {}", about.key.name, in_words(&error)),
                Err(_) => warn!("{}: the status cannot be written: no answer", about.key.name),
            }
        }
    }

    async fn patch(&self, about: &About, status: serde_json::Value) -> kube::Result<()> {
        let resource = about.watched.resource();
        let api: Api<DynamicObject> = match &about.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let object = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": about.name, "uid": about.uid},
            "status": status,
        });
        api.patch_status(&about.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await.map(|_| ())
    }

    /// Says what is wrong with objects of others, once.
    fn say_problems(&self, judged: &Judged, said: &mut BTreeSet<(String, String, String)>) {
        let mut wrong: BTreeMap<Key, Vec<&Problem>> = BTreeMap::new();
        for problem in judged.problems.iter().filter(|problem| problem.severity == Severity::Error) {
            wrong.entry(problem.origin.key()).or_default().push(problem);
        }
        let theirs = judged.about.iter().filter(|about| !about.watched.is_ours());
        let theirs = theirs.map(|about| (&about.key, Arc::new(about.reference())));
        let others = judged.others.iter().map(|(key, reference)| (key, reference.clone()));
        let mut now = BTreeSet::new();
        for (key, reference) in theirs.chain(others) {
            for problem in wrong.get(key).into_iter().flatten() {
                let uid = reference.uid.clone().unwrap_or_default();
                let word = (uid, problem.field.clone(), problem.reason.clone());
                if !said.contains(&word) {
                    let note = format!("{}: {}", problem.field, problem.reason);
                    self.events.say(&reference, Word::warning("Invalid", "Compile", &note));
                }
                now.insert(word);
            }
        }
        *said = now;
    }
}
