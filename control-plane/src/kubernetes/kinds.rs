//! The kinds of objects that we read and write.

use kube::core::{ApiResource, GroupVersionKind};

use super::MANAGED_BY;
use crate::istio::DesiredKind;

/// A kind that we watch as a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Watched {
    Service,
    /// Pods' addresses of headless services, and numbers of named target ports.
    EndpointSlice,
    ServiceEntry,
    DestinationRule,
    Gateway,
    /// Of the Gateway API.
    ApiGateway,
    ApplicationProtocol,
    MetaRouter,
    /// Aeraki's of the same name: read, never written.
    AerakiApplicationProtocol,
    AerakiMetaRouter,
    /// Metadata alone.
    Pod,
}

impl Watched {
    pub(super) const ALL: [Self; 11] = [
        Self::Service,
        Self::EndpointSlice,
        Self::ServiceEntry,
        Self::DestinationRule,
        Self::Gateway,
        Self::ApiGateway,
        Self::ApplicationProtocol,
        Self::MetaRouter,
        Self::AerakiApplicationProtocol,
        Self::AerakiMetaRouter,
        Self::Pod,
    ];

    /// Group, version, kind, plural.
    const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Service => ("", "v1", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::ServiceEntry => ("networking.istio.io", "v1", "ServiceEntry", "serviceentries"),
            Self::DestinationRule => ("networking.istio.io", "v1", "DestinationRule", "destinationrules"),
            Self::Gateway => ("networking.istio.io", "v1", "Gateway", "gateways"),
            Self::ApiGateway => ("gateway.networking.k8s.io", "v1", "Gateway", "gateways"),
            Self::ApplicationProtocol => ("meltemi.dev", "v1alpha1", "ApplicationProtocol", "applicationprotocols"),
            Self::MetaRouter => ("meltemi.dev", "v1alpha1", "MetaRouter", "metarouters"),
            Self::AerakiApplicationProtocol => {
                ("metaprotocol.aeraki.io", "v1alpha1", "ApplicationProtocol", "applicationprotocols")
            }
            Self::AerakiMetaRouter => ("metaprotocol.aeraki.io", "v1alpha1", "MetaRouter", "metarouters"),
            Self::Pod => ("", "v1", "Pod", "pods"),
        }
    }

    pub(super) fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.names();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// What stands as its kind where people read it: of two kinds of one name the less usual is told from the other.
    pub(super) const fn display(self) -> &'static str {
        match self {
            Self::AerakiApplicationProtocol => "ApplicationProtocol.metaprotocol.aeraki.io",
            Self::AerakiMetaRouter => "MetaRouter.metaprotocol.aeraki.io",
            Self::ApiGateway => "Gateway.gateway.networking.k8s.io",
            _ => self.names().2,
        }
    }

    /// We define it, and so we write its status.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self, Self::ApplicationProtocol | Self::MetaRouter)
    }

    /// Needed by some users alone: Aeraki's, and those of the Gateway API.
    pub(super) const fn is_optional(self) -> bool {
        matches!(self, Self::AerakiApplicationProtocol | Self::AerakiMetaRouter | Self::ApiGateway)
    }

    /// Every cluster has it; the definition of another kind may not be installed, or not yet.
    pub(super) const fn is_built_in(self) -> bool {
        matches!(self, Self::Service | Self::EndpointSlice | Self::Pod)
    }
}

/// Selects by label what we wrote.
pub(super) fn ours() -> String {
    format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)
}

/// Selects the rest: of what we wrote there may be thousands.
pub(super) fn not_ours() -> String {
    format!("{}!={}", MANAGED_BY.0, MANAGED_BY.1)
}

/// How the API names a kind that we write.
pub(super) fn written(kind: DesiredKind) -> ApiResource {
    let (version, name, plural) = match kind {
        DesiredKind::EnvoyFilter => ("v1alpha3", "EnvoyFilter", "envoyfilters"),
        DesiredKind::VirtualService => ("v1", "VirtualService", "virtualservices"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("networking.istio.io", version, name), plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_objects_that_are_compiled() {
        for kind in [DesiredKind::EnvoyFilter, DesiredKind::VirtualService] {
            assert_eq!(written(kind).api_version, kind.api_version());
        }
    }
}
