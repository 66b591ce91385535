//! Kubernetes Events: what happened, told at the object that it happened to.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::time::timeout;
use tracing::debug;

use super::MANAGER;

/// Bytes of a note, as the API server takes them.
const NOTE: usize = 1000;

/// Until a word counts as not heard.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where events go.
#[derive(Clone)]
pub(super) struct Events {
    recorder: Recorder,
}

/// What is said.
pub(super) struct Word<'a> {
    kind: EventType,
    reason: &'a str,
    action: &'static str,
    note: &'a str,
}

impl<'a> Word<'a> {
    pub(super) const fn warning(reason: &'a str, action: &'static str, note: &'a str) -> Self {
        Self { kind: EventType::Warning, reason, action, note }
    }

    pub(super) const fn normal(reason: &'a str, action: &'static str, note: &'a str) -> Self {
        Self { kind: EventType::Normal, reason, action, note }
    }
}

impl Events {
    pub(super) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Says it without waiting; a word that is not heard is no reason to stop.
    pub(super) fn say(&self, about: &ObjectReference, word: Word<'_>) {
        let mut end = word.note.len().min(NOTE);
        while !word.note.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let event = Event {
            type_: word.kind,
            reason: word.reason.to_owned(),
            note: word.note.get(..end).map(str::to_owned),
            action: word.action.to_owned(),
            secondary: None,
        };
        let (recorder, about) = (self.recorder.clone(), about.clone());
        tokio::spawn(async move {
            match timeout(PATIENCE, recorder.publish(&event, &about)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!("an event was not taken: {error}"),
                Err(_) => debug!("an event was not taken in time"),
            }
        });
    }
}
