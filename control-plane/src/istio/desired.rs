//! An object that we want in the cluster, whoever writes it there.

use serde::Serialize;

use crate::problem::Origin;

/// Istio's kinds that we write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum DesiredKind {
    /// `networking.istio.io/v1alpha3`.
    EnvoyFilter,
    /// `networking.istio.io/v1`, from a MetaRouter on a `native` port.
    VirtualService,
}

impl DesiredKind {
    /// Its `apiVersion`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::EnvoyFilter => "networking.istio.io/v1alpha3",
            Self::VirtualService => "networking.istio.io/v1",
        }
    }

    /// `Kind namespace/name` of an object of the kind.
    pub(super) fn display(self, namespace: &str, name: &str) -> String {
        format!("{self:?} {namespace}/{name}")
    }
}

/// An object that we want, as it should be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Desired {
    /// Its kind.
    pub kind: DesiredKind,
    /// Where.
    pub namespace: String,
    /// Its name, the same for the same purpose from run to run.
    pub name: String,
    /// The object of the user, in the same namespace, that it is made from and goes with; `None`: made from several.
    pub owner: Option<Origin>,
    /// What it says.
    pub spec: serde_json::Value,
}

impl Desired {
    /// `Kind namespace/name`.
    pub fn display(&self) -> String {
        self.kind.display(&self.namespace, &self.name)
    }
}
