//! What must be written so that the cluster is as we want it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::super::live::{LiveObject, Target};
use crate::istio::{Digest, Spec};

/// An object as we want it.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Wanted {
    pub(in super::super) spec: Spec,
    pub(in super::super) owner: Option<OwnerReference>,
}

/// What we last wrote, and what the API server made of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written {
    pub(super) wanted: Digest,
    pub(super) owner: Option<OwnerReference>,
    /// The API server drops fields that its schema lacks: that is no drift.
    pub(super) became: Digest,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// There is none of ours: another's may be in its place. `drift`: somebody took ours away.
    Create { drift: bool },
    /// The object of this uid, and no other of its name, is not as it should be. `drift`: somebody else changed it.
    Update { uid: String, drift: bool },
    /// It has our label, but we did not write it.
    Foreign,
    /// Ours, and no longer wanted.
    Delete { uid: String, version: String },
}

impl Action {
    /// What is new goes first and what is no longer wanted last: where one object takes over from another, both are there
    /// for a while, and never none.
    const fn turn(&self) -> u8 {
        match self {
            Self::Create { .. } => 0,
            Self::Update { .. } | Self::Foreign => 1,
            Self::Delete { .. } => 2,
        }
    }
}

/// Compares, and gives what to write in its order. `held`: uids of owners about which nothing good is known, whose objects stay.
pub(super) fn plan(
    wanted: &BTreeMap<Target, Wanted>,
    live: &BTreeMap<Target, LiveObject>,
    written: &BTreeMap<Target, Written>,
    held: &BTreeSet<String>,
) -> Vec<(Target, Action)> {
    let mut actions = Vec::new();
    for (target, wanted) in wanted {
        // What was written before another content was wanted tells nothing about drift.
        let written = written
            .get(target)
            .filter(|written| written.wanted == wanted.spec.digest() && written.owner == wanted.owner);
        match live.get(target) {
            None => actions.push((target.clone(), Action::Create { drift: written.is_some() })),
            Some(object) if !object.ours => actions.push((target.clone(), Action::Foreign)),
            // It is made anew when it is gone.
            Some(object) if object.deleted => {}
            Some(object) => {
                let expected = written.map_or(wanted.spec.digest(), |written| written.became);
                if object.spec != expected || !has_owner(object, wanted) {
                    let action = Action::Update { uid: object.uid.clone(), drift: written.is_some() };
                    actions.push((target.clone(), action));
                }
            }
        }
    }
    for (target, object) in live {
        let held = object.owners.iter().any(|owner| held.contains(&owner.uid));
        if object.ours && !object.deleted && !held && !wanted.contains_key(target) {
            let action = Action::Delete { uid: object.uid.clone(), version: object.version.clone() };
            actions.push((target.clone(), action));
        }
    }
    actions.sort_by_key(|(_, action)| action.turn());
    actions
}

fn has_owner(object: &LiveObject, wanted: &Wanted) -> bool {
    match &wanted.owner {
        Some(owner) => object.owners.iter().any(|own| own.uid == owner.uid),
        None => object.owners.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::istio::DesiredKind;

    fn target(name: &str) -> Target {
        Target { kind: DesiredKind::EnvoyFilter, namespace: "a".to_owned(), name: name.to_owned() }
    }

    fn wanted(spec: Value) -> Wanted {
        Wanted { spec: (&spec).into(), owner: None }
    }

    fn live(spec: Value) -> LiveObject {
        LiveObject {
            uid: "u".to_owned(),
            version: "7".to_owned(),
            spec: Digest::of(&spec),
            owners: Vec::new(),
            ours: true,
            deleted: false,
        }
    }

    fn written(wanted: &Value, became: &Value) -> Written {
        Written { wanted: Digest::of(wanted), owner: None, became: Digest::of(became) }
    }

    fn one(wanted: Option<Wanted>, live: Option<LiveObject>, written: Option<Written>) -> Option<Action> {
        let map = |value| [(target("x"), value)];
        let actions = plan(
            &wanted.map(map).into_iter().flatten().collect(),
            &live.into_iter().map(|value| (target("x"), value)).collect(),
            &written.into_iter().map(|value| (target("x"), value)).collect(),
            &BTreeSet::new(),
        );
        assert!(actions.len() <= 1);
        actions.into_iter().next().map(|(_, action)| action)
    }

    #[test]
    fn equal_content_is_not_written() {
        let same = json!({"a": 1});
        assert_eq!(one(Some(wanted(same.clone())), Some(live(same.clone())), None), None);
        let before = written(&same, &same);
        assert_eq!(one(Some(wanted(same.clone())), Some(live(same)), Some(before)), None);
    }

    #[test]
    fn what_the_server_drops_is_written_once() {
        let (full, pruned) = (json!({"a": 1, "b": 2}), json!({"a": 1}));
        let before = written(&full, &pruned);
        let update = Action::Update { uid: "u".to_owned(), drift: false };
        assert_eq!(one(Some(wanted(full.clone())), Some(live(pruned.clone())), None), Some(update.clone()));
        assert_eq!(one(Some(wanted(full)), Some(live(pruned.clone())), Some(before.clone())), None);
        let other = one(Some(wanted(json!({"a": 3}))), Some(live(pruned)), Some(before));
        assert_eq!(other, Some(update), "a new wish is no drift");
    }

    #[test]
    fn drift_is_told_from_news() {
        let ours = json!({"a": 1});
        let before = || Some(written(&json!({"a": 1}), &json!({"a": 1})));
        let edited = one(Some(wanted(ours.clone())), Some(live(json!({"a": 9}))), before());
        assert_eq!(edited, Some(Action::Update { uid: "u".to_owned(), drift: true }));
        let gone = one(Some(wanted(ours.clone())), None, before());
        assert_eq!(gone, Some(Action::Create { drift: true }));
        assert_eq!(one(Some(wanted(ours)), None, None), Some(Action::Create { drift: false }));
    }

    #[test]
    fn only_ours_is_changed_or_deleted() {
        let foreign = LiveObject { ours: false, ..live(json!({})) };
        assert_eq!(one(None, Some(foreign.clone()), None), None);
        assert_eq!(one(Some(wanted(json!({"a": 1}))), Some(foreign), None), Some(Action::Foreign));
        let delete = Action::Delete { uid: "u".to_owned(), version: "7".to_owned() };
        assert_eq!(one(None, Some(live(json!({}))), None), Some(delete));
        let leaving = LiveObject { deleted: true, ..live(json!({})) };
        assert_eq!(one(None, Some(leaving.clone()), None), None);
        assert_eq!(one(Some(wanted(json!({"a": 1}))), Some(leaving), None), None);
    }

    #[test]
    fn objects_of_owners_that_are_wrong_stay() {
        let owner = OwnerReference { uid: "router".to_owned(), ..OwnerReference::default() };
        let owned = LiveObject { owners: vec![owner.clone()], ..live(json!({})) };
        let live_now = BTreeMap::from([(target("x"), owned.clone())]);
        let held = BTreeSet::from(["router".to_owned()]);
        assert_eq!(plan(&BTreeMap::new(), &live_now, &BTreeMap::new(), &held), []);
        assert_eq!(plan(&BTreeMap::new(), &live_now, &BTreeMap::new(), &BTreeSet::new()).len(), 1);
        let wanted = Wanted { spec: (&json!({})).into(), owner: Some(owner) };
        assert_eq!(one(Some(wanted.clone()), Some(owned), None), None);
        let update = Action::Update { uid: "u".to_owned(), drift: false };
        assert_eq!(one(Some(wanted), Some(live(json!({}))), None), Some(update), "its owner is missing");
    }
}
