use std::{collections::BTreeMap, sync::Arc};

use crate::snapshot::{Resource, Snapshot, TypeUrl};

/// The world as one proxy is shown it: the newest snapshot, and what it lost but the proxy's routes may still name.
pub(super) struct View {
    snapshot: Arc<Snapshot>,
    lingering: BTreeMap<TypeUrl, BTreeMap<String, Arc<Resource>>>,
    /// What refers to others is not sent before the proxy has those.
    held: bool,
}

/// Types whose resources others refer to: given first, taken away last.
pub(super) const REFERRED: [TypeUrl; 3] = [TypeUrl::Secret, TypeUrl::Cluster, TypeUrl::Endpoints];
/// Types that refer to them.
pub(super) const REFERRING: [TypeUrl; 3] = [TypeUrl::Listener, TypeUrl::ExtensionConfig, TypeUrl::Route];

/// What a proxy said about the newest response of a type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing yet.
    #[default]
    Pending,
    /// It uses it.
    Taken,
    /// It does not.
    Refused,
}

impl View {
    pub(super) const fn new(snapshot: Arc<Snapshot>) -> Self {
        Self { snapshot, lingering: BTreeMap::new(), held: false }
    }

    /// Goes on to another snapshot; what it no longer has lingers, and what refers to others is held back.
    pub(super) fn advance(&mut self, snapshot: Arc<Snapshot>) {
        for kind in REFERRED {
            let lost = self.snapshot.of(kind).filter(|old| snapshot.get(kind, &old.name).is_none());
            let lingering = self.lingering.entry(kind).or_default();
            lingering.extend(lost.map(|old| (old.name.clone(), old.clone())));
            lingering.retain(|name, _| snapshot.get(kind, name).is_none());
        }
        self.snapshot = snapshot;
        self.held = true;
    }

    pub(super) const fn is_held(&self) -> bool {
        self.held
    }

    pub(super) fn release(&mut self) {
        self.held = false;
    }

    /// Forgets what lingers; `false` if nothing did.
    pub(super) fn settle(&mut self) -> bool {
        let any = self.lingering.values().any(|resources| !resources.is_empty());
        self.lingering.clear();
        any
    }

    pub(super) fn get(&self, kind: TypeUrl, name: &str) -> Option<&Arc<Resource>> {
        self.snapshot.get(kind, name).or_else(|| self.lingering.get(&kind)?.get(name))
    }

    /// All resources of a type, by name.
    pub(super) fn all(&self, kind: TypeUrl) -> BTreeMap<&str, &Arc<Resource>> {
        let lingering =
            self.lingering.get(&kind).into_iter().flatten().map(|(name, resource)| (name.as_str(), resource));
        lingering.chain(self.snapshot.of(kind).map(|resource| (resource.name.as_str(), resource))).collect()
    }
}
