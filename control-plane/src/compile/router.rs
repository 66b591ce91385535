//! Connection mode: our route table in the filter `relay`, in front of `tcp_proxy`.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::listener::v3::Filter,
    extensions::filters::network::tcp_proxy::v3::{TcpProxy, UpstreamConnectMode, tcp_proxy::ClusterSpecifier},
};
use meltemi::MutationSupport;
use meltemi_engine::{
    relay::RelayConfig,
    route::config::{BucketConfig, ChangeConfig, ClusterConfig, MatchConfig, RouteConfig, Test},
};

use super::{
    cluster,
    listener::{discovered, plain},
    matcher::{self, metadata_key},
    packing::{number, span},
    services::{Port, Protocol, Services},
};
use crate::{
    model::{Destination, KeyValue, MetaRouter, Mode, Object, Route, StringMatch},
    problem::Problem,
};

/// Bytes of the first requests that wait until the connection to the server is there.
const EARLY_BYTES: u32 = 1024 * 1024;

/// The relay's configuration, and the chain's filters. Routes that are wrong are left out and reported.
pub(super) fn filters(
    name: &str,
    port: &Port,
    protocol: &Protocol,
    router: Option<&Object<MetaRouter>>,
    services: &Services<'_>,
    problems: &mut Vec<Problem>,
) -> (RelayConfig, Vec<Filter>) {
    let own = cluster::name(&port.host, port.number, None);
    let mut routes = Vec::new();
    if let Some(router) = router {
        for (index, route) in router.spec.routes.iter().enumerate() {
            let scope = Scope { port, protocol, router, services, field: format!("spec.routes[{index}]") };
            match scope.route(route) {
                Ok(compiled) => routes.push(compiled),
                Err(problem) => problems.push(*problem),
            }
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
        ..TcpProxy::default()
    };
    (config, vec![discovered(&format!("relay|{name}")), plain("envoy.filters.network.tcp_proxy", &proxy)])
}

fn to(cluster: String) -> Vec<ClusterConfig> {
    vec![ClusterConfig { name: cluster, weight: 1 }]
}

struct Scope<'a> {
    port: &'a Port,
    protocol: &'a Protocol,
    router: &'a Object<MetaRouter>,
    services: &'a Services<'a>,
    field: String,
}

type Result<T> = std::result::Result<T, Box<Problem>>;

impl Scope<'_> {
    fn wrong<T>(&self, field: &str, reason: impl Into<String>) -> Result<T> {
        Err(Box::new(self.router.origin.error(format!("{}.{field}", self.field), reason)))
    }

    fn route(&self, spec: &Route) -> Result<RouteConfig> {
        let needs_requests = [
            ("timeout", spec.timeout.is_some()),
            ("retries", spec.retries.is_some()),
            ("mirror", spec.mirror.is_some()),
            ("fault.delay", spec.fault.as_ref().is_some_and(|fault| fault.delay.is_some())),
        ];
        if let Some((field, _)) = needs_requests.into_iter().find(|(_, given)| *given) {
            return self.wrong(field, "needs request mode: this port routes connections");
        }
        let mut matches = Vec::new();
        if let Some(conditions) = &spec.r#match {
            // The same checks as for Envoy's own matchers.
            matcher::headers(conditions, self.protocol.service_aliases)
                .or_else(|(field, reason)| self.wrong(&format!("match.{field}"), reason))?;
            matches
                .extend(conditions.attributes.iter().map(|(key, condition)| self.condition(key, condition.as_ref())));
        }
        let mut clusters = Vec::new();
        for (index, weighted) in spec.route.iter().enumerate().filter(|_| !spec.deny) {
            let name = self.cluster(&weighted.destination, &format!("route[{index}].destination"))?;
            clusters.push(ClusterConfig { name, weight: weighted.weight.unwrap_or(1) });
        }
        if clusters.iter().all(|cluster| cluster.weight == 0) && !spec.deny {
            return self.wrong("route", "a route needs a destination with a weight above 0");
        }
        let abort = spec.fault.as_ref().and_then(|fault| fault.abort.as_ref());
        let percent = abort.map_or(0.0, |abort| abort.percentage.map_or(100.0, |percentage| percentage.value));
        Ok(RouteConfig {
            name: spec.name.clone(),
            matches,
            clusters,
            hash: spec
                .hash_policy
                .iter()
                .map(|key| metadata_key(key, self.protocol.service_aliases).to_owned())
                .collect(),
            deny: spec.deny,
            abort_millionths: (percent.clamp(0.0, 100.0) * 10_000.0).round() as u32,
            rate_limit: spec.local_rate_limit.as_ref().map(|bucket| BucketConfig {
                max_tokens: bucket.max_tokens,
                tokens_per_fill: bucket.tokens_per_fill.unwrap_or(1).max(1),
                fill_interval_ms: bucket
                    .fill_interval
                    .map_or(1000, |interval| u64::try_from(interval.0.as_millis()).unwrap_or(u64::MAX))
                    .max(1),
            }),
            request_mutation: self.changes(&spec.request_mutation, "requestMutation")?,
            response_mutation: self.changes(&spec.response_mutation, "responseMutation")?,
        })
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

    /// The cluster of a destination, which must be one that connections can be proxied to.
    fn cluster(&self, to: &Destination, field: &str) -> Result<String> {
        let number = to.port.map_or(self.port.number, |port| port.number);
        let host = self.services.host_of(&to.host, &self.router.metadata);
        let Some(port) = self.services.port(&host, number) else {
            return self.wrong(&format!("{field}.host"), format!("there is no `{host}` with a port {number}"));
        };
        let same = port.protocol.as_ref().is_some_and(|protocol| {
            protocol.codec.name == self.protocol.codec.name && protocol.mode == Mode::Connection
        });
        if !same {
            let codec = &self.protocol.codec.name;
            return self.wrong(&format!("{field}.host"), format!("it is no {codec} service in connection mode"));
        }
        if let Some(subset) = &to.subset
            && self.services.subset(&host, subset).is_none()
        {
            return self.wrong(&format!("{field}.subset"), format!("no DestinationRule of `{host}` has `{subset}`"));
        }
        Ok(cluster::name(&host, number, to.subset.as_deref()))
    }

    fn changes(&self, changes: &[KeyValue], field: &str) -> Result<Vec<ChangeConfig>> {
        if !changes.is_empty() && self.protocol.capabilities.request_mutation == MutationSupport::None {
            return self.wrong(field, format!("{} has no headers that could be changed", self.protocol.codec.name));
        }
        Ok(changes
            .iter()
            .map(|change| ChangeConfig {
                key: change.key.clone(),
                value: (!change.remove).then(|| change.value.clone()),
            })
            .collect())
    }
}
