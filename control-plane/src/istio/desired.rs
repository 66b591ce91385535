//! An object that we want in the cluster, whoever writes it there.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use serde::{Serialize, Serializer};
use serde_json::Value;

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
    pub spec: Spec,
}

/// What an object says, as JSON: there are thousands, and a tree of each would be many times larger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    json: Box<str>,
    digest: Digest,
}

/// What an object says, as a number: thousands of objects are compared, not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest(u64);

impl Desired {
    /// `Kind namespace/name`.
    pub fn display(&self) -> String {
        self.kind.display(&self.namespace, &self.name)
    }
}

impl Spec {
    /// Its JSON, as a tree.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.json).unwrap_or_default()
    }

    /// For comparison with what an object in a cluster says.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The same with another field.
    pub(super) fn with(&self, field: &str, value: Value) -> Self {
        let mut all = self.value();
        if let Some(fields) = all.as_object_mut() {
            fields.insert(field.to_owned(), value);
        }
        (&all).into()
    }
}

impl From<&Value> for Spec {
    fn from(value: &Value) -> Self {
        Self { json: value.to_string().into(), digest: Digest::of(value) }
    }
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl Digest {
    /// Of a specification.
    pub fn of(spec: &Value) -> Self {
        // Nobody can make two that are taken for one without the key.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self(KEY.hash_one(spec))
    }
}
