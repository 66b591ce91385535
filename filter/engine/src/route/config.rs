//! Configuration of a route table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Its name.
    pub name: String,
    /// Conditions, all of which must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<MatchConfig>,
    /// Where to, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<ClusterConfig>,
    /// Metadata whose values pick the cluster, instead of chance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hash: Vec<String>,
    /// Nobody may call this.
    pub deny: bool,
    /// So many of a million requests fail on purpose.
    pub abort_millionths: u32,
    /// Limit of this route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<BucketConfig>,
    /// Changes of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_mutation: Vec<ChangeConfig>,
    /// Changes of the reply.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub response_mutation: Vec<ChangeConfig>,
}

/// A condition on one value of the metadata. Without any test the value must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MatchConfig {
    /// `service`, `method`, or the name of a header.
    pub key: String,
    /// What is tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// Holds if the test does not.
    pub invert: bool,
    /// Literals are compared without regard to ASCII case.
    pub ignore_case: bool,
}

/// A test of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// The whole value.
    Exact(String),
    /// Its beginning.
    Prefix(String),
    /// Its end.
    Suffix(String),
    /// The whole value, as an expression of the crate `regex`.
    Regex(String),
    /// An integer, from the first (included) to the second (excluded).
    Range(i64, i64),
    /// It is there, or not.
    Present(bool),
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Envoy's cluster.
    pub name: String,
    /// Its share.
    pub weight: u32,
}

/// A change of one header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeConfig {
    /// Its name.
    pub key: String,
    /// Its new value; it is taken out if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// Tokens that fit in.
    pub max_tokens: u32,
    /// Tokens that come at each fill.
    pub tokens_per_fill: u32,
    /// Milliseconds between fills.
    pub fill_interval_ms: u64,
}
