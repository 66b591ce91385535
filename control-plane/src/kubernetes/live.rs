//! What we wrote, as it is in the cluster now.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    core::{DynamicObject, ObjectMeta},
    runtime::watcher::Event,
};
use serde_json::Value;
use tokio::sync::Notify;

use super::{
    MANAGED_BY, MANAGER,
    cache::map,
    listing::{Key, Listing},
};
use crate::istio::{Desired, DesiredKind, Digest};

/// The kinds that we write.
pub(super) const KINDS: [DesiredKind; 2] = [DesiredKind::EnvoyFilter, DesiredKind::VirtualService];

/// An object by its kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Target {
    pub(super) kind: DesiredKind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Target {
    /// Of an object that we want.
    pub(super) fn of(desired: &Desired) -> Self {
        Self { kind: desired.kind, namespace: desired.namespace.clone(), name: desired.name.clone() }
    }
}

/// An object with our label.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LiveObject {
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) spec: Digest,
    pub(super) owners: Vec<OwnerReference>,
    /// It has our label, and we are known to have written it.
    pub(super) ours: bool,
    /// It is on its way out.
    pub(super) deleted: bool,
}

/// All objects with our label.
#[derive(Debug, Default)]
pub(super) struct Live {
    state: Mutex<BTreeMap<DesiredKind, State>>,
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    listing: Listing<LiveObject>,
    /// The newest version that the watch has told of; it tells in their order.
    told: u128,
    /// The kind is not installed.
    absent: bool,
}

impl Live {
    /// Takes what a watch tells.
    pub(super) fn take(&self, kind: DesiredKind, event: Event<DynamicObject>) {
        let mut all = self.lock();
        let state = all.entry(kind).or_default();
        state.absent = false;
        if let Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) = &event {
            state.told = state.told.max(version(&object.metadata).unwrap_or_default());
        }
        if let Event::Apply(object) | Event::Delete(object) = &event
            && state.listing.get(&key(&object.metadata)).is_some_and(|known| is_older(&object.metadata, known))
        {
            // What we wrote since came back before this.
            return;
        }
        let changed = state.listing.take(map(event, entry), LiveObject::eq);
        drop(all);
        if changed {
            self.changed.notify_one();
        }
    }

    /// The kind is not installed.
    pub(super) fn absent(&self, kind: DesiredKind) {
        let mut all = self.lock();
        let state = all.entry(kind).or_default();
        state.absent = true;
        let changed = state.listing.absent();
        drop(all);
        if changed {
            self.changed.notify_one();
        }
    }

    /// Takes what a write came back with, unless the watch has told of it already: and perhaps of what became of it since.
    pub(super) fn wrote(&self, kind: DesiredKind, object: DynamicObject) {
        let mut all = self.lock();
        let state = all.entry(kind).or_default();
        if version(&object.metadata).is_none_or(|version| version > state.told) {
            let (key, object) = entry(object);
            state.listing.put(key, object);
        }
    }

    /// It is no longer there.
    pub(super) fn removed(&self, target: &Target) {
        let key = (target.namespace.clone(), target.name.clone());
        if let Some(state) = self.lock().get_mut(&target.kind) {
            state.listing.remove(&key);
        }
    }

    /// All of them; `None` while something is missing.
    pub(super) fn read(&self) -> Option<BTreeMap<Target, LiveObject>> {
        let all = self.lock();
        if !KINDS.iter().all(|kind| all.get(kind).is_some_and(|state| state.listing.is_complete())) {
            return None;
        }
        let objects = all.iter().flat_map(|(kind, state)| {
            state.listing.entries().iter().map(|((namespace, name), object)| {
                (Target { kind: *kind, namespace: namespace.clone(), name: name.clone() }, object.clone())
            })
        });
        Some(objects.collect())
    }

    /// Kinds that cannot be written because they are not installed.
    pub(super) fn missing(&self) -> Vec<DesiredKind> {
        self.lock().iter().filter(|(_, state)| state.absent).map(|(kind, _)| *kind).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<DesiredKind, State>> {
        // Nothing panics while it is held; if it did, the maps would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it is ours to change, by label and by manager.
pub(super) fn is_ours(metadata: &ObjectMeta) -> bool {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0));
    let managers = metadata.managed_fields.as_deref().unwrap_or_default();
    label.is_some_and(|value| value == MANAGED_BY.1)
        && managers.iter().any(|entry| entry.manager.as_deref() == Some(MANAGER))
}

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

fn entry(object: DynamicObject) -> (Key, LiveObject) {
    let DynamicObject { metadata, data, .. } = object;
    let live = LiveObject {
        ours: is_ours(&metadata),
        uid: metadata.uid.clone().unwrap_or_default(),
        version: metadata.resource_version.clone().unwrap_or_default(),
        spec: Digest::of(data.get("spec").unwrap_or(&Value::Null)),
        deleted: metadata.deletion_timestamp.is_some(),
        owners: metadata.owner_references.clone().unwrap_or_default(),
    };
    (key(&metadata), live)
}

/// Versions of one kind are numbers that count up.
fn version(metadata: &ObjectMeta) -> Option<u128> {
    metadata.resource_version.as_deref()?.parse().ok()
}

/// Whether an event is from before what we know.
fn is_older(metadata: &ObjectMeta, known: &LiveObject) -> bool {
    let same = metadata.uid.as_deref() == Some(known.uid.as_str());
    same && version(metadata).zip(known.version.parse().ok()).is_some_and(|(told, known): (_, u128)| told < known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KIND: DesiredKind = DesiredKind::EnvoyFilter;

    fn object(version: u32, spec: u32) -> DynamicObject {
        let metadata = json!({"name": "x", "namespace": "a", "uid": "u", "resourceVersion": version.to_string()});
        let object = json!({"apiVersion": "v1", "kind": "K", "metadata": metadata, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn live() -> Live {
        let live = Live::default();
        for kind in KINDS {
            live.take(kind, Event::Init);
            live.take(kind, Event::InitDone);
        }
        live
    }

    fn spec(live: &Live) -> Option<Digest> {
        live.read().unwrap().into_values().next().map(|object| object.spec)
    }

    #[test]
    fn the_answer_to_a_write_is_news_only_before_the_watch_tells_of_it() {
        let live = live();
        live.wrote(KIND, object(5, 1));
        assert_eq!(spec(&live), Some(Digest::of(&json!(1))));
        live.take(KIND, Event::Apply(object(4, 0)));
        assert_eq!(spec(&live), Some(Digest::of(&json!(1))), "from before the write");
        // Somebody changes it, and the answer to our write is looked at only then.
        live.take(KIND, Event::Apply(object(5, 1)));
        live.take(KIND, Event::Apply(object(6, 2)));
        live.wrote(KIND, object(5, 1));
        assert_eq!(spec(&live), Some(Digest::of(&json!(2))));
        live.take(KIND, Event::Delete(object(7, 2)));
        live.wrote(KIND, object(5, 1));
        assert_eq!(spec(&live), None, "it is gone since");
        live.wrote(KIND, object(8, 1));
        assert_eq!(spec(&live), Some(Digest::of(&json!(1))), "made anew");
    }
}
