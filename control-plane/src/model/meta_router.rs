use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Percent, Span, StringMatch};

/// Routes of one service (`MetaRouter`). What Aeraki's has, and more.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct MetaRouter {
    /// The service: exactly one host, as its ServiceEntry or Service names it.
    pub hosts: Vec<String>,
    /// Istio gateways; of no meaning without Istio.
    pub gateways: Vec<String>,
    /// Namespaces; of no meaning without Istio.
    pub export_to: Vec<String>,
    /// The first route that matches is taken; without any, all requests go to the service itself.
    pub routes: Vec<Route>,
    /// Limit counted in each proxy.
    pub local_rate_limit: Option<LocalRateLimit>,
    /// Limit counted by a rate limit service.
    pub global_rate_limit: Option<GlobalRateLimit>,
}

impl MetaRouter {
    /// Where routes lead calls and copies of them: the field, and what it says.
    pub fn destinations(&self) -> impl Iterator<Item = (String, &Destination)> {
        self.routes.iter().enumerate().flat_map(|(index, route)| {
            let field = move |below: &str| format!("spec.routes[{index}].{below}");
            let to = route.route.iter().enumerate();
            let to = to.map(move |(place, to)| (field(&format!("route[{place}].destination")), &to.destination));
            to.chain(route.mirror.iter().map(move |mirror| (field("mirror"), mirror)))
        })
    }
}

/// One route.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Its name in logs and statistics.
    pub name: String,
    /// Which requests; all if absent.
    pub r#match: Option<RouteMatch>,
    /// Where they go, by weight.
    pub route: Vec<Weighted>,
    /// Where a copy goes, whose reply is thrown away.
    pub mirror: Option<Destination>,
    /// Of how many requests; all if absent.
    pub mirror_percentage: Option<Percent>,
    /// Changes of the request.
    pub request_mutation: Vec<KeyValue>,
    /// Changes of the reply.
    pub response_mutation: Vec<KeyValue>,
    /// Until the client gets an error instead of a reply; no limit if absent.
    pub timeout: Option<Span>,
    /// What is tried again.
    pub retries: Option<Retries>,
    /// Metadata that picks the endpoint, for destinations with a consistent hash.
    pub hash_policy: Vec<String>,
    /// Failures on purpose.
    pub fault: Option<Fault>,
    /// Nobody may call this: clients get the protocol's error for "denied".
    pub deny: bool,
    /// Limit of this route alone, counted in each proxy.
    pub local_rate_limit: Option<TokenBucket>,
}

/// Which requests. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteMatch {
    /// By metadata: `service`, `method`, or the name of a header. An empty condition means "present".
    pub attributes: BTreeMap<String, Option<StringMatch>>,
}

/// A destination and its share.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Weighted {
    /// Where.
    pub destination: Destination,
    /// Share among the destinations of the route; needed if there is more than one.
    pub weight: Option<u32>,
}

/// A service, or a part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// The service.
    pub host: String,
    /// A subset that a DestinationRule names.
    pub subset: Option<String>,
    /// Its port; the one the request came for if absent.
    pub port: Option<PortSelector>,
}

/// A port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortSelector {
    /// Its number.
    pub number: u16,
}

/// A change of one header.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeyValue {
    /// Its name.
    pub key: String,
    /// The value it gets.
    pub value: String,
    /// Take it out instead.
    pub remove: bool,
}

/// What is tried again. Without this, what no server has seen is tried twice more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Retries {
    /// Tries after the first; 0 switches retries off.
    pub attempts: u32,
    /// Limit of each try.
    pub per_try_timeout: Option<Span>,
    /// The calls may run twice: also try again what a server may have seen. Otherwise only what was not sent is.
    pub idempotent: bool,
}

/// Failures on purpose.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Make requests wait.
    pub delay: Option<Delay>,
    /// Answer with the protocol's error instead.
    pub abort: Option<Abort>,
}

/// Waiting on purpose.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delay {
    /// How long.
    pub fixed_delay: Span,
    /// Of how many requests; all if absent.
    #[serde(default)]
    pub percentage: Option<Percent>,
}

/// Failing on purpose.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Abort {
    /// HTTP status that the failure stands for, see the error table; 503 if absent.
    pub http_status: Option<u32>,
    /// Of how many requests; all if absent.
    pub percentage: Option<Percent>,
}

/// Limit counted in each proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalRateLimit {
    /// For requests that no condition matches; unlimited if absent.
    pub token_bucket: Option<TokenBucket>,
    /// Limits of their own for certain requests.
    pub conditions: Vec<Condition>,
}

/// A limit for certain requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// Which.
    pub r#match: RouteMatch,
    /// Their limit.
    pub token_bucket: TokenBucket,
}

/// A token bucket: each request takes a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenBucket {
    /// Tokens that fit in.
    pub max_tokens: u32,
    /// Tokens that come at each fill; 1 if absent.
    pub tokens_per_fill: Option<u32>,
    /// Time between fills; 1 s if absent.
    pub fill_interval: Option<Span>,
}

/// Limit counted by a rate limit service with Envoy's API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct GlobalRateLimit {
    /// Which requests; all if absent.
    pub r#match: Option<RouteMatch>,
    /// Domain of the limits in the service.
    pub domain: String,
    /// Until the service counts as failed; 20 ms if absent.
    pub request_timeout: Option<Span>,
    /// If the service fails, refuse requests instead of letting them through.
    pub deny_on_fail: bool,
    /// The service: `host:port`, or Envoy's cluster name `outbound|port||host`.
    pub rate_limit_service: String,
    /// What is counted.
    pub descriptors: Vec<Descriptor>,
}

/// One entry of a descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Descriptor {
    /// The metadata whose value is sent.
    pub property: String,
    /// The key under which it is sent.
    pub descriptor_key: String,
}
