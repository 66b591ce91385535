//! What was good last, over restarts: a ConfigMap with the last good version of each object that is wrong now. Nearly always
//! it is empty.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::warn;

use super::{MANAGER, lease::Leadership, parse::read_again, writer::in_words};
use crate::model::AnyObject;

/// Its name. The chart makes it, without content.
const NAME: &str = "meltemi-last-good";
/// Until the API server must have answered.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between tries.
const RETRY: Duration = Duration::from_secs(2);

/// Documents by the uids of their objects: an object that is made anew under the same name is another.
pub(super) type Documents = BTreeMap<String, String>;

pub(super) struct State {
    api: Api<ConfigMap>,
    leadership: Leadership,
}

impl State {
    pub(super) fn new(client: Client, namespace: &str, leadership: Leadership) -> Self {
        Self { api: Api::namespaced(client, namespace), leadership }
    }

    /// What was good, by uid. Waits for an answer: what was served must not be lost because the API server was slow.
    pub(super) async fn load(&self) -> HashMap<String, AnyObject> {
        let mut told = false;
        loop {
            let failure = match timeout(PATIENCE, self.api.get_opt(NAME)).await {
                Ok(Ok(map)) => {
                    let documents = map.and_then(|map| map.data).unwrap_or_default();
                    return documents.into_iter().filter_map(|(uid, text)| Some((uid, read_again(&text)?))).collect();
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                    warn!("what was good last cannot be read: {}", status.message);
                    return HashMap::new();
                }
                Ok(Err(error)) => in_words(&error),
                Err(_) => "the API server does not answer".to_owned(),
            };
            if !std::mem::replace(&mut told, true) {
                warn!("what was good last cannot be read yet: {failure}");
            }
            sleep(RETRY).await;
        }
    }

    /// Writes it down whenever it is another, while we hold the lease; never ends.
    pub(super) async fn run(mut self, mut documents: watch::Receiver<Option<Arc<Documents>>>) {
        let (mut written, mut failing) = (None, false);
        loop {
            tokio::select! {
                changed = documents.changed() => if changed.is_err() { return },
                () = self.leadership.changed() => {}
                () = sleep(RETRY), if failing => {}
            }
            if !self.leadership.holds() {
                // Whoever holds it writes now.
                (written, failing) = (None, false);
                continue;
            }
            let now = documents.borrow_and_update().clone();
            let Some(news) = now.as_ref().filter(|_| now != written) else { continue };
            let failure = match timeout(PATIENCE, self.write(news)).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(in_words(&error)),
                Err(_) => Some("no answer".to_owned()),
            };
            if let Some(failure) = failure.as_ref().filter(|_| !failing) {
                warn!(
                    "what was good last cannot be written to ConfigMap {NAME}, and a restart would forget it: {failure}"
                );
            }
            failing = failure.is_some();
            if !failing {
                written = now;
            }
        }
    }

    async fn write(&self, documents: &Documents) -> kube::Result<ConfigMap> {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": documents});
        self.api.patch(NAME, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&map)).await
    }
}
