use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::{
    envoy::config::{
        cluster::v3::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
        },
        core::v3::{AggregatedConfigSource, ApiVersion, ConfigSource, config_source::ConfigSourceSpecifier},
    },
    google::protobuf::Duration,
};

use crate::snapshot::{Resource, Snapshot, TypeUrl};

/// The world as one proxy is shown it: the newest snapshot, and what it lost but the proxy's routes may still name.
pub(super) struct View {
    snapshot: Arc<Snapshot>,
    /// What refers to others is not sent before the proxy has those.
    held: bool,
    /// What refers to others comes from here as long as it is held; nothing is sent of it if there is none.
    shown: Option<Arc<Snapshot>>,
    /// All that refers to others was taken when this was the newest: the proxy's routes may name what is in it.
    taken: Arc<Snapshot>,
    /// What was lost since, until the proxy has answered.
    lost: BTreeMap<TypeUrl, BTreeMap<String, Arc<Resource>>>,
    /// The proxy has more than we know of: from an earlier connection, perhaps to a control plane before this one.
    unknown: bool,
    /// Clusters among that, where all clusters must be sent for one to stay.
    ghosts: BTreeMap<String, Arc<Resource>>,
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
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            held: false,
            shown: None,
            taken: Arc::default(),
            lost: BTreeMap::new(),
            unknown: false,
            ghosts: BTreeMap::new(),
        }
    }

    /// The proxy comes with what it was given before: that stays until it has taken what we have.
    pub(super) fn reconnects(&mut self) {
        (self.held, self.unknown) = (true, true);
    }

    /// Goes on to another snapshot; what it no longer has lingers, and what refers to others is held back.
    pub(super) fn advance(&mut self, snapshot: Arc<Snapshot>) {
        for kind in REFERRED {
            let lost = self.lost.entry(kind).or_default();
            let gone = self.snapshot.of(kind).filter(|old| snapshot.get(kind, &old.name).is_none());
            lost.extend(gone.map(|old| (old.name.to_string(), old.clone())));
            lost.retain(|name, _| snapshot.get(kind, name).is_none());
        }
        self.ghosts.retain(|name, _| snapshot.get(TypeUrl::Cluster, name).is_none());
        let before = core::mem::replace(&mut self.snapshot, snapshot);
        if !self.held {
            self.shown = Some(before);
        }
        self.held = true;
    }

    pub(super) const fn is_held(&self) -> bool {
        self.held
    }

    /// Nothing of this type is sent now.
    pub(super) fn withholds(&self, kind: TypeUrl) -> bool {
        self.held && self.shown.is_none() && REFERRING.contains(&kind)
    }

    /// What the proxy has and we do not know stays.
    pub(super) fn keeps_unknown(&self, kind: TypeUrl) -> bool {
        self.unknown && REFERRED.contains(&kind)
    }

    /// Clusters that the proxy has and we do not know stay, though all clusters must be sent for that: an update that
    /// never becomes warm, as it gets no endpoints, leaves in use what is there.
    pub(super) fn keep_clusters<'n>(&mut self, names: impl IntoIterator<Item = &'n String>) {
        if !self.unknown {
            return;
        }
        for name in names {
            if self.snapshot.get(TypeUrl::Cluster, name).is_none() {
                let ghost = Arc::new(Resource::new(name.as_str(), &ghost(name)));
                self.ghosts.insert(name.clone(), ghost);
            }
        }
    }

    pub(super) fn release(&mut self) {
        self.held = false;
        self.shown = None;
    }

    /// The proxy has answered all that was sent: what no route of its can name any more is forgotten. `taken`: it uses all
    /// of it. Gives `false` if nothing was forgotten.
    pub(super) fn settle(&mut self, taken: bool) -> bool {
        let before = REFERRED.map(|kind| self.all(kind).len());
        let unknown = self.unknown;
        if taken {
            self.taken = self.snapshot.clone();
            self.unknown = false;
            self.lost.clear();
            self.ghosts.clear();
        }
        for (kind, lost) in &mut self.lost {
            lost.retain(|name, _| self.taken.get(*kind, name).is_some());
        }
        unknown != self.unknown || before != REFERRED.map(|kind| self.all(kind).len())
    }

    /// Clusters that are found by name come without endpoints, so that nobody hears when they are warm.
    pub(super) fn has_new_names(&self) -> bool {
        self.snapshot.of(TypeUrl::Cluster).any(|cluster| {
            let shown = self.shown.as_ref().and_then(|shown| shown.get(TypeUrl::Cluster, &cluster.name));
            self.snapshot.get(TypeUrl::Endpoints, &cluster.name).is_none()
                && shown.is_none_or(|shown| shown.version != cluster.version)
        })
    }

    pub(super) fn get(&self, kind: TypeUrl, name: &str) -> Option<&Arc<Resource>> {
        if REFERRING.contains(&kind) {
            return self.referring()?.get(kind, name);
        }
        let lingering = || self.lost.get(&kind)?.get(name).or_else(|| self.taken.get(kind, name));
        self.snapshot.get(kind, name).or_else(lingering)
    }

    /// All resources of a type, by name.
    pub(super) fn all(&self, kind: TypeUrl) -> BTreeMap<&str, &Arc<Resource>> {
        fn named(resource: &Arc<Resource>) -> (&str, &Arc<Resource>) {
            (&*resource.name, resource)
        }
        if REFERRING.contains(&kind) {
            return self.referring().into_iter().flat_map(|snapshot| snapshot.of(kind)).map(named).collect();
        }
        let ghosts = self.ghosts.values().filter(|_| kind == TypeUrl::Cluster);
        let lost = self.lost.get(&kind).into_iter().flat_map(BTreeMap::values);
        // Of one name, the last stays.
        ghosts.chain(self.taken.of(kind)).chain(lost).chain(self.snapshot.of(kind)).map(named).collect()
    }

    /// Version of all resources of a type, if it is one that nothing lingers of.
    pub(super) fn version(&self, kind: TypeUrl) -> Option<&str> {
        Some(self.referring()?.version(kind)).filter(|_| REFERRING.contains(&kind))
    }

    fn referring(&self) -> Option<&Snapshot> {
        if self.held { self.shown.as_deref() } else { Some(&self.snapshot) }
    }

    /// Names of clusters that wait for their endpoints.
    pub(super) fn endpoints(&self) -> BTreeSet<&str> {
        self.all(TypeUrl::Endpoints).into_keys().collect()
    }
}

/// A cluster that never becomes warm.
fn ghost(name: &str) -> Cluster {
    let eds_config = ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout: Some(Duration::default()),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(eds_config), ..EdsClusterConfig::default() }),
        ..Cluster::default()
    }
}
