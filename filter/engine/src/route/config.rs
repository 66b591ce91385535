//! Configuration of a route table.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::config::{
    Blank, Read, Wrong,
    read::{object, unknown},
    readable,
};

/// One route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
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

readable!(RouteConfig {} or {
    name: String::new(),
    matches: Vec::new(),
    clusters: Vec::new(),
    hash: Vec::new(),
    deny: false,
    abort_millionths: 0,
    rate_limit: None,
    request_mutation: Vec::new(),
    response_mutation: Vec::new()
});

/// A condition on one value of the metadata. Without any test the value must be there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
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

readable!(MatchConfig {} or { key: String::new(), test: None, invert: false, ignore_case: false });

/// A test of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
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

impl Blank for Test {
    fn blank() -> Self {
        Self::Present(true)
    }
}

impl Read for Test {
    fn read(&mut self, value: &Value) -> Result<(), Box<Wrong>> {
        fn of<T: Read + Blank>(value: &Value) -> Result<T, Box<Wrong>> {
            let mut content = T::blank();
            content.read(value).map(|()| content)
        }
        let tests = object(value)?;
        let (Some((name, value)), 1) = (tests.iter().next(), tests.len()) else {
            return Err(Wrong::new(format!("one test is expected, not {}", tests.len())));
        };
        *self = match name.as_str() {
            "exact" => Self::Exact(of(value)?),
            "prefix" => Self::Prefix(of(value)?),
            "suffix" => Self::Suffix(of(value)?),
            "regex" => Self::Regex(of(value)?),
            "range" => match of::<Vec<i64>>(value)?[..] {
                [first, end] => Self::Range(first, end),
                _ => return Err(Wrong::kind(value, "two integers")),
            },
            "present" => Self::Present(of(value)?),
            other => return Err(unknown(other, &["exact", "prefix", "suffix", "regex", "range", "present"])),
        };
        Ok(())
    }
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// Envoy's cluster.
    pub name: String,
    /// Its share.
    pub weight: u32,
}

readable!(ClusterConfig { name, weight } or {});

/// A change of one header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeConfig {
    /// Its name.
    pub key: String,
    /// Its new value; it is taken out if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

readable!(ChangeConfig { key } or { value: None });

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// Tokens that fit in.
    pub max_tokens: u32,
    /// Tokens that come at each fill.
    pub tokens_per_fill: u32,
    /// Milliseconds between fills.
    pub fill_interval_ms: u64,
}

readable!(BucketConfig { max_tokens, tokens_per_fill, fill_interval_ms } or {});
