//! What proxies are served: resources by type and name, versioned by their content.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
};

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};
use serde::Serialize;

/// Types of resources, in the order that lets proxies warm them up: what is referred to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum TypeUrl {
    /// Certificates and keys.
    Secret,
    /// Clusters.
    Cluster,
    /// Their endpoints.
    Endpoints,
    /// Listeners.
    Listener,
    /// Configuration of filters.
    ExtensionConfig,
    /// Routes.
    Route,
}

impl TypeUrl {
    /// All types, make before break.
    pub const ALL: [Self; 6] =
        [Self::Secret, Self::Cluster, Self::Endpoints, Self::Listener, Self::ExtensionConfig, Self::Route];

    /// As it stands in xDS.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type of this name.
    pub fn parse(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == url)
    }

    /// Proxies that name nothing get all of them.
    pub const fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

/// One resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its name; shared with the streams that were given it, which are many.
    pub name: Arc<str>,
    /// Hash of its content; likewise.
    pub version: Arc<str>,
    /// The packed message.
    pub any: Any,
}

impl Resource {
    /// Packs a message.
    pub fn new<M: Message + Name>(name: impl Into<Arc<str>>, message: &M) -> Self {
        let any = Any { type_url: M::type_url(), value: message.encode_to_vec() };
        Self { name: name.into(), version: version_of(&any.value).into(), any }
    }
}

/// A version that changes with the content only.
pub(crate) fn version_of(content: &impl Hash) -> String {
    // The default keys are fixed: the same content has the same version after a restart.
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// All resources at one time; never changed.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    resources: BTreeMap<TypeUrl, BTreeMap<Arc<str>, Arc<Resource>>>,
    /// Of all resources of each type, once somebody has asked.
    versions: OnceLock<BTreeMap<TypeUrl, String>>,
}

impl Snapshot {
    /// Adds a resource; one of the same type and name is replaced.
    pub fn insert(&mut self, kind: TypeUrl, resource: Resource) {
        self.versions = OnceLock::new();
        self.resources.entry(kind).or_default().insert(resource.name.clone(), Arc::new(resource));
    }

    /// The resources of a type, by name.
    pub fn of(&self, kind: TypeUrl) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// One resource.
    pub fn get(&self, kind: TypeUrl, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&kind)?.get(name)
    }

    /// A version that changes with the resources of a type.
    pub fn version(&self, kind: TypeUrl) -> &str {
        let all = || TypeUrl::ALL.into_iter().map(|kind| (kind, version_of_all(self.of(kind)))).collect();
        self.versions.get_or_init(all).get(&kind).map_or("", String::as_str)
    }

    /// Number of resources of a type.
    pub fn count(&self, kind: TypeUrl) -> usize {
        self.resources.get(&kind).map_or(0, BTreeMap::len)
    }
}

/// Version of a set of resources.
pub fn version_of_all<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> String {
    let all: Vec<(&str, &str)> = resources.map(|r| (&*r.name, &*r.version)).collect();
    version_of(&all)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;

    use super::*;

    #[test]
    fn versions_follow_the_content() {
        let cluster = |name: &str| Cluster { name: name.to_owned(), ..Cluster::default() };
        let (one, same, other) =
            (Resource::new("a", &cluster("a")), Resource::new("a", &cluster("a")), Resource::new("a", &cluster("b")));
        assert_eq!(one.version, same.version);
        assert_ne!(one.version, other.version);
        assert_eq!(TypeUrl::parse(&one.any.type_url), Some(TypeUrl::Cluster));
        assert!(TypeUrl::ALL.is_sorted());
    }
}
