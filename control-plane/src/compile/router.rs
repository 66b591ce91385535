//! Connection mode: our route table in the filter `relay`, in front of `tcp_proxy`.

use std::time::Duration;

use envoy_types::pb::envoy::{
    extensions::filters::network::tcp_proxy::v3::{TcpProxy, UpstreamConnectMode, tcp_proxy::ClusterSpecifier},
    r#type::v3::{
        HashPolicy,
        hash_policy::{PolicySpecifier, SourceIp},
    },
};
use meltemi_engine::{
    relay::RelayConfig,
    route::config::{BucketConfig, ChangeConfig, ClusterConfig, MatchConfig, RouteConfig, Test},
};

use super::{
    cluster,
    matcher::{self, metadata_key},
    packing::{fraction, number, span},
    scope::{Result, Scope},
    services::{Port, Protocol, Services},
};
use crate::{
    model::{KeyValue, MetaRouter, Object, Route, StringMatch},
    problem::Problem,
};

/// Bytes of the first requests that wait until the connection to the server is there.
const EARLY_BYTES: u32 = 1024 * 1024;
/// All requests, in `abort_millionths`.
const MILLION: u32 = 1_000_000;
/// The status of an abort without one.
const DEFAULT_ABORT: u32 = 503;

/// The relay's configuration, and the filter behind it. A route that is wrong is reported and answers with an error; one
/// whose match is wrong is left out.
pub(super) fn filters(
    name: &str,
    port: &Port,
    protocol: &Protocol,
    router: Option<&Object<MetaRouter>>,
    services: &Services<'_>,
    problems: &mut Vec<Problem>,
) -> (RelayConfig, TcpProxy) {
    let own = cluster::name(&port.host, port.number, None);
    let mut routes = Vec::new();
    if let Some(router) = router {
        for (index, route) in router.spec.routes.iter().enumerate() {
            let scope = Scope { port, protocol, router, services, field: format!("spec.routes[{index}]") };
            if let Err(problem) = scope.conditions(route) {
                problems.push(*problem);
                continue;
            }
            routes.push(scope.compiled(route, problems).unwrap_or_else(|problem| {
                // Its requests are not given to the routes behind it, which are not meant for them.
                problems.push(*problem);
                let matches = scope.matches(route);
                let (clusters, name) = (to(own.clone()), route.name.clone());
                RouteConfig { name, matches, clusters, abort_millionths: MILLION, ..RouteConfig::default() }
            }));
        }
        let unsupported = [
            ("localRateLimit", router.spec.local_rate_limit.is_some()),
            ("globalRateLimit", router.spec.global_rate_limit.is_some()),
        ];
        for (field, _) in unsupported.into_iter().filter(|(_, given)| *given) {
            problems.push(
                router.origin.error(format!("spec.{field}"), "needs request mode; routes can have a localRateLimit"),
            );
        }
    }
    if router.is_none_or(|router| router.spec.routes.is_empty()) {
        routes.push(RouteConfig { name: "default".to_owned(), clusters: to(own.clone()), ..RouteConfig::default() });
    }
    let mut config = RelayConfig::new(protocol.codec.clone(), routes);
    config.limits = protocol.limits.clone();
    let proxy = TcpProxy {
        stat_prefix: name.to_owned(),
        // The relay says which, before there is anything to proxy.
        cluster_specifier: Some(ClusterSpecifier::Cluster(own)),
        upstream_connect_mode: UpstreamConnectMode::OnDownstreamData.into(),
        max_early_data_bytes: number(EARLY_BYTES),
        idle_timeout: span(Duration::ZERO),
        hash_policy: source_hash(router, port, services, problems),
        ..TcpProxy::default()
    };
    (config, proxy)
}

/// What picks the endpoint of destinations with a consistent hash: the client's address, if a rule says so.
fn source_hash(
    router: Option<&Object<MetaRouter>>,
    port: &Port,
    services: &Services<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<HashPolicy> {
    let mut by_source = false;
    let named = router.iter().flat_map(|router| {
        router.spec.routes.iter().flat_map(|route| &route.route).map(|to| {
            let to = &to.destination;
            let number = to.port.map_or(port.number, |port| port.number);
            (services.host_of(&to.host, &router.metadata), number, to.subset.as_deref())
        })
    });
    for (host, number, subset) in named.chain([(port.host.clone(), port.number, None)]) {
        let balancer = services.policy(&host, number, subset).load_balancer;
        let Some(hash) = balancer.and_then(|balancer| balancer.consistent_hash) else { continue };
        by_source |= hash.use_source_ip;
        if let (Some(_), Some(rule)) = (hash.http_header_name.filter(|name| !name.is_empty()), services.rule_of(&host))
        {
            let field = "spec.trafficPolicy.loadBalancer.consistentHash.httpHeaderName";
            let reason =
                "has no effect in connection mode, which can hash by `useSourceIp`: endpoints are picked by chance";
            problems.push(rule.origin.warning(field, reason));
        }
    }
    let source = HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp {})) };
    if by_source { vec![source] } else { Vec::new() }
}

fn to(cluster: String) -> Vec<ClusterConfig> {
    vec![ClusterConfig { name: cluster, weight: 1 }]
}

impl Scope<'_> {
    fn compiled(&self, spec: &Route, problems: &mut Vec<Problem>) -> Result<RouteConfig> {
        if spec.deny {
            let matches = self.matches(spec);
            return Ok(RouteConfig { name: spec.name.clone(), matches, deny: true, ..RouteConfig::default() });
        }
        let needs_requests = [
            ("timeout", spec.timeout.is_some()),
            ("retries", spec.retries.is_some()),
            ("mirror", spec.mirror.is_some()),
            ("fault.delay", spec.fault.as_ref().is_some_and(|fault| fault.delay.is_some())),
        ];
        if let Some((field, _)) = needs_requests.into_iter().find(|(_, given)| *given) {
            return self.wrong(field, "needs request mode: this port routes connections");
        }
        let clusters = self.destinations(spec)?.into_iter().map(|(name, weight)| ClusterConfig { name, weight });
        let mut clusters: Vec<ClusterConfig> = clusters.collect();
        if let [only] = clusters.as_mut_slice() {
            only.weight = 1;
        }
        let abort_millionths = match spec.fault.as_ref().and_then(|fault| fault.abort.as_ref()) {
            Some(abort) => {
                if self.abort_status(abort)? != DEFAULT_ABORT {
                    let reason = "has no effect in connection mode: clients get the protocol's error for an abort";
                    problems.push(self.warning("fault.abort.httpStatus", reason));
                }
                fraction(abort.percentage).numerator
            }
            None => 0,
        };
        if let Some(index) = spec.hash_policy.iter().position(String::is_empty) {
            return self.wrong(&format!("hashPolicy[{index}]"), "empty");
        }
        let rate_limit = match spec.local_rate_limit.as_ref().map(|bucket| (bucket, self.bucket(bucket))) {
            Some((_, Err(problem))) => {
                problems.push(*problem);
                None
            }
            Some((bucket, Ok(_))) => Some(BucketConfig {
                max_tokens: bucket.max_tokens,
                tokens_per_fill: bucket.tokens_per_fill.unwrap_or(1).max(1),
                fill_interval_ms: bucket
                    .fill_interval
                    .map_or(1000, |interval| u64::try_from(interval.0.as_millis()).unwrap_or(u64::MAX)),
            }),
            None => None,
        };
        let capabilities = &self.protocol.capabilities;
        self.changes(&spec.request_mutation, capabilities.request_mutation, "requestMutation")?;
        self.changes(&spec.response_mutation, capabilities.reply_mutation, "responseMutation")?;
        let hashed = spec.hash_policy.iter().map(|key| metadata_key(key, self.protocol.service_aliases).to_owned());
        Ok(RouteConfig {
            name: spec.name.clone(),
            matches: self.matches(spec),
            clusters,
            hash: hashed.collect(),
            deny: false,
            abort_millionths,
            rate_limit,
            request_mutation: changes(&spec.request_mutation),
            response_mutation: changes(&spec.response_mutation),
        })
    }

    fn matches(&self, spec: &Route) -> Vec<MatchConfig> {
        let conditions = spec.r#match.iter().flat_map(|conditions| &conditions.attributes);
        conditions.map(|(key, condition)| self.condition(key, condition.as_ref())).collect()
    }

    fn condition(&self, key: &str, condition: Option<&StringMatch>) -> MatchConfig {
        let condition = condition.cloned().unwrap_or_default();
        let test = condition
            .exact
            .map(Test::Exact)
            .or(condition.prefix.map(Test::Prefix))
            .or(condition.suffix.map(Test::Suffix))
            .or(condition
                .regex
                .map(|regex| if regex == matcher::ANYTHING { Test::Present(true) } else { Test::Regex(regex) }))
            .or(condition.range.map(|range| Test::Range(range.start, range.end)))
            .or(condition.present.map(Test::Present));
        MatchConfig {
            key: metadata_key(key, self.protocol.service_aliases).to_owned(),
            test,
            invert: condition.invert,
            ignore_case: condition.ignore_case,
        }
    }
}

fn changes(changes: &[KeyValue]) -> Vec<ChangeConfig> {
    let change = |change: &KeyValue| ChangeConfig {
        key: change.key.clone(),
        value: (!change.remove).then(|| change.value.clone()),
    };
    changes.iter().map(change).collect()
}
