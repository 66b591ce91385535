//! What the cluster's objects say now, in the form that is compiled.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    core::{ApiResource, DynamicObject, ObjectMeta},
    runtime::watcher::Event,
};
use serde_json::Value;
use tokio::sync::Notify;

use super::{
    kinds::Watched,
    listing::{Key, Listing},
    others::{Other, Others},
    parse::{origin, parse},
};
use crate::{
    istio::Workload,
    model::{AnyObject, Model},
    problem::{Key as ObjectKey, Problem},
};

/// All watched objects.
#[derive(Debug, Default)]
pub(super) struct Cache {
    state: Mutex<State>,
    others: Others,
    /// What was good before we started, by uid.
    remembered: HashMap<String, AnyObject>,
    /// What is compiled may be another.
    pub(super) changed: Notify,
    /// What stands beside it, such as generations and status, may be another.
    pub(super) touched: Notify,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Watched, Listing<Entry>>,
    pods: Listing<BTreeMap<String, String>>,
}

/// An object as it was last seen.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    about: Arc<About>,
    content: Result<AnyObject, Problem>,
    /// Its last content without an error.
    good: Option<AnyObject>,
}

/// What is needed to write about an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct About {
    pub(super) watched: Watched,
    pub(super) key: ObjectKey,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) generation: Option<i64>,
    created: Option<Timestamp>,
    /// Of our own kinds alone.
    pub(super) status: Option<Value>,
}

/// What the API tells about an object.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) metadata: ObjectMeta,
    pub(super) data: Value,
}

/// Everything at one time.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) model: Model,
    pub(super) problems: Vec<Problem>,
    pub(super) workloads: Vec<Workload>,
    pub(super) others: Vec<Other>,
    pub(super) about: Vec<Arc<About>>,
}

impl Cache {
    /// Knows what was good before, by uid.
    pub(super) fn remembering(remembered: HashMap<String, AnyObject>) -> Self {
        Self { remembered, ..Self::default() }
    }

    /// Takes what a watch of objects tells.
    pub(super) fn take(&self, watched: Watched, event: Event<Told>) {
        let mut state = self.lock();
        let listing = state.objects.entry(watched).or_default();
        let entry = |told: Told| {
            let key = key(&told.metadata);
            let before = listing.get(&key);
            let content = parse(watched, &told.metadata, &told.data).map_err(|problem| *problem);
            // What says the same is the same to all who hold it.
            let content =
                before.map(|before| &before.content).filter(|known| **known == content).cloned().unwrap_or(content);
            let good = match (&content, before) {
                // The object is another if it was made anew, though it has the name of the old one.
                (Err(_), Some(before)) if Some(&before.about.uid) == told.metadata.uid.as_ref() => before.good.clone(),
                (Err(_), _) => told.metadata.uid.as_ref().and_then(|uid| self.remembered.get(uid)).cloned(),
                (Ok(parsed), _) => Some(parsed.clone()),
            };
            (key, Entry { about: Arc::new(About::new(watched, told)), content, good })
        };
        let event = map(event, entry);
        let changed = listing.take(event, |old, new| old.content == new.content && old.about.is_same(&new.about));
        drop(state);
        if changed {
            self.changed.notify_one();
        }
        self.touched.notify_one();
    }

    /// Takes what the watch of pods tells.
    pub(super) fn take_pod(&self, event: Event<ObjectMeta>) {
        let event = map(event, |mut metadata| (key(&metadata), metadata.labels.take().unwrap_or_default()));
        if self.lock().pods.take(event, |old, new| old == new) {
            self.changed.notify_one();
        }
    }

    /// Takes what a watch of the user's other objects tells; `None`: their kind is not installed.
    pub(super) fn take_other(&self, resource: &ApiResource, event: Option<Event<DynamicObject>>) {
        let news = event.map_or_else(|| self.others.absent(resource), |event| self.others.take(resource, event));
        if news {
            self.changed.notify_one();
        }
    }

    /// The kind is not installed.
    pub(super) fn absent(&self, watched: Watched) {
        if self.lock().objects.entry(watched).or_default().absent() {
            self.changed.notify_one();
        }
    }

    /// Whether there is something of the kind.
    pub(super) fn is_empty(&self, watched: Watched) -> bool {
        self.lock().objects.get(&watched).is_none_or(|listing| listing.entries().is_empty())
    }

    /// Kinds that were not told whole yet.
    pub(super) fn incomplete(&self) -> Vec<&'static str> {
        let state = self.lock();
        let complete = |watched: &Watched| match watched {
            Watched::Pod => state.pods.is_complete(),
            _ => state.objects.get(watched).is_some_and(Listing::is_complete),
        };
        Watched::ALL.into_iter().filter(|watched| !complete(watched)).map(Watched::display).collect()
    }

    /// Everything, oldest first, so that of two objects that claim the same the older one wins; `None` while something is
    /// missing.
    pub(super) fn read(&self) -> Option<Seen> {
        if !self.incomplete().is_empty() {
            return None;
        }
        let state = self.lock();
        let mut entries: Vec<&Entry> = state.objects.values().flat_map(|listing| listing.entries().values()).collect();
        entries.sort_by(|a, b| a.about.order(&b.about));
        let mut seen = Seen { others: self.others.read(), ..Seen::default() };
        for entry in entries {
            if let Err(problem) = &entry.content {
                seen.problems.push(problem.clone());
            }
            seen.model.extend(entry.good.clone());
            seen.about.push(entry.about.clone());
        }
        let pods = state.pods.entries().iter();
        seen.workloads = pods
            .map(|((namespace, name), labels)| Workload {
                namespace: namespace.clone(),
                name: name.clone(),
                labels: labels.clone(),
            })
            .collect();
        Some(seen)
    }

    /// Our own kinds' objects as they are now.
    pub(super) fn ours(&self) -> Vec<Arc<About>> {
        let state = self.lock();
        let ours = state.objects.iter().filter(|(watched, _)| watched.is_ours());
        ours.flat_map(|(_, listing)| listing.entries().values()).map(|entry| entry.about.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if it did, the maps would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl About {
    fn new(watched: Watched, told: Told) -> Self {
        let Told { metadata, mut data } = told;
        let status = if watched.is_ours() { data.get_mut("status").map(Value::take) } else { None };
        Self {
            watched,
            key: origin(&watched.resource(), &metadata).key(),
            namespace: metadata.namespace,
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation,
            created: metadata.creation_timestamp.map(|time| time.0),
            status,
        }
    }

    /// The same object; of our own kinds, whose status tells so, also the same generation.
    fn is_same(&self, other: &Self) -> bool {
        let generation = |about: &Self| about.generation.filter(|_| about.watched.is_ours());
        self.uid == other.uid && generation(self) == generation(other)
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = |about: &Self| (about.created, about.namespace.clone(), about.name.clone(), about.watched);
        key(self).cmp(&key(other))
    }

    /// As events and owner references name it.
    pub(super) fn reference(&self) -> ObjectReference {
        let resource = self.watched.resource();
        ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: self.namespace.clone(),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

pub(super) fn map<K, V>(event: Event<K>, mut with: impl FnMut(K) -> V) -> Event<V> {
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(with(object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(with(object)),
        Event::Delete(object) => Event::Delete(with(object)),
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
