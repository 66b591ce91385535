//! A MetaRouter → a RouteConfiguration.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
        route::v3::{
            DirectResponseAction, HeaderMatcher, RetryPolicy, Route as EnvoyRoute, RouteAction, RouteConfiguration,
            RouteMatch as EnvoyMatch, VirtualHost, WeightedCluster,
            retry_policy::{RetryHostPredicate, retry_host_predicate},
            route::Action,
            route_action::{ClusterSpecifier, HashPolicy, RequestMirrorPolicy},
            route_match::PathSpecifier,
            weighted_cluster::ClusterWeight,
        },
    },
    extensions::{
        filters::{
            common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
            http::fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
        },
        retry::host::previous_hosts::v3::PreviousHostsPredicate,
    },
};
use meltemi::MutationSupport;
use meltemi_engine::names;

use super::{
    cluster, hash,
    limits::{self, Limits},
    listener::FAULT_FILTER,
    matcher,
    packing::{any, fraction, number, runtime_fraction, span},
    services::{Port, Protocol, Services},
};
use crate::{
    model::{Destination, Fault, KeyValue, MetaRouter, Mode, Object, Percent, Retries, Route},
    problem::Problem,
};

/// Tries after the first for what no server has seen, as in Istio.
const DEFAULT_RETRIES: u32 = 2;

/// Bytes of a name or value that Envoy takes in a route: 16 KiB, of which escaping may need three for one.
const MAX_HEADER: usize = 5000;

/// Routes of a port. Routes that are wrong are left out and reported.
pub(super) fn configuration(
    name: &str,
    port: &Port,
    protocol: &Protocol,
    router: Option<&Object<MetaRouter>>,
    limits: &Limits,
    services: &Services<'_>,
    problems: &mut Vec<Problem>,
) -> RouteConfiguration {
    let mut routes = Vec::new();
    if let Some(router) = router {
        for (index, route) in router.spec.routes.iter().enumerate() {
            let scope = Scope { port, protocol, router, services, field: format!("spec.routes[{index}]") };
            match scope.route(index, route, limits, problems) {
                Ok(compiled) => routes.extend(limits.split(compiled)),
                Err(problem) => problems.push(*problem),
            }
        }
    }
    if router.is_none_or(|router| router.spec.routes.is_empty()) {
        let cluster = ClusterSpecifier::Cluster(cluster::name(&port.host, port.number, None));
        let action = RouteAction {
            cluster_specifier: Some(cluster),
            timeout: span(Duration::ZERO),
            retry_policy: retry_policy(None),
            hash_policy: hash::of_destination(services, protocol, &port.host, port.number, None),
            rate_limits: limits.for_all(),
            ..RouteAction::default()
        };
        let route = route("default", Vec::new(), Action::Route(action));
        routes.extend(limits.split(route));
    }
    let host = VirtualHost { name: port.host.clone(), domains: vec!["*".to_owned()], routes, ..VirtualHost::default() };
    RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..RouteConfiguration::default() }
}

pub(super) fn route(name: &str, headers: Vec<HeaderMatcher>, action: Action) -> EnvoyRoute {
    let path = PathSpecifier::Prefix("/".to_owned());
    EnvoyRoute {
        name: name.to_owned(),
        r#match: Some(EnvoyMatch { path_specifier: Some(path), headers, ..EnvoyMatch::default() }),
        action: Some(action),
        ..EnvoyRoute::default()
    }
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

    fn route(&self, index: usize, spec: &Route, limits: &Limits, problems: &mut Vec<Problem>) -> Result<EnvoyRoute> {
        let limit = limits.of_route(index);
        let headers = match &spec.r#match {
            Some(conditions) => matcher::headers(conditions, self.protocol.service_aliases)
                .or_else(|(field, reason)| self.wrong(&format!("match.{field}"), reason))?,
            None => Vec::new(),
        };
        if spec.deny {
            // Envoy's own words for a denied request, which the inlet turns into the protocol's.
            let deny = DirectResponseAction { status: 403, ..DirectResponseAction::default() };
            return Ok(route(&spec.name, headers, Action::DirectResponse(deny)));
        }
        let action = RouteAction {
            cluster_specifier: Some(self.destinations(spec)?),
            timeout: span(spec.timeout.map_or(Duration::ZERO, |timeout| timeout.0)),
            retry_policy: retry_policy(spec.retries.as_ref()),
            request_mirror_policies: self.mirror(spec)?,
            hash_policy: self.hash_policy(spec, problems)?,
            rate_limits: limit.map(limits::route_action).into_iter().chain(limits.for_all()).collect(),
            ..RouteAction::default()
        };
        let mut compiled = route(&spec.name, headers, Action::Route(action));
        let (add, remove) = self.mutation(&spec.request_mutation, true, "requestMutation")?;
        (compiled.request_headers_to_add, compiled.request_headers_to_remove) = (add, remove);
        let (add, remove) = self.mutation(&spec.response_mutation, false, "responseMutation")?;
        (compiled.response_headers_to_add, compiled.response_headers_to_remove) = (add, remove);
        if let Some(fault) = &spec.fault {
            let fault = self.fault(fault)?;
            compiled.typed_per_filter_config.extend(any(&fault).map(|config| (FAULT_FILTER.to_owned(), config)));
        }
        Ok(compiled)
    }

    fn destinations(&self, spec: &Route) -> Result<ClusterSpecifier> {
        match spec.route.as_slice() {
            [] => self.wrong("route", "a route needs a destination"),
            [one] => Ok(ClusterSpecifier::Cluster(self.cluster(&one.destination, "route[0].destination")?)),
            several => {
                let mut clusters = Vec::new();
                let mut total = 0u64;
                for (index, weighted) in several.iter().enumerate() {
                    let Some(weight) = weighted.weight else {
                        return self
                            .wrong(&format!("route[{index}].weight"), "needed where there are several destinations");
                    };
                    total = total.saturating_add(u64::from(weight));
                    let name = self.cluster(&weighted.destination, &format!("route[{index}].destination"))?;
                    clusters.push(ClusterWeight { name, weight: number(weight), ..ClusterWeight::default() });
                }
                if total == 0 || total > u64::from(u32::MAX) {
                    return self.wrong("route", format!("the weights add up to {total}"));
                }
                Ok(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() }))
            }
        }
    }

    /// The cluster of a destination, which must speak the same protocol.
    fn cluster(&self, to: &Destination, field: &str) -> Result<String> {
        let number = self.number(to);
        let host = self.services.host_of(&to.host, &self.router.metadata);
        let Some(port) = self.services.port(&host, number) else {
            return if self.services.has_host(&host) {
                self.wrong(&format!("{field}.port"), format!("`{host}` has no port {number}"))
            } else {
                self.wrong(&format!("{field}.host"), format!("there is no Service or ServiceEntry for `{host}`"))
            };
        };
        match &port.protocol {
            Some(protocol) if protocol.mode != Mode::Request => {
                return self
                    .wrong(&format!("{field}.host"), "its port is in connection mode, this one in request mode");
            }
            Some(protocol) if protocol.codec.name == self.protocol.codec.name => {}
            Some(protocol) => {
                let (theirs, ours) = (&protocol.codec.name, &self.protocol.codec.name);
                return self.wrong(&format!("{field}.host"), format!("it speaks {theirs}, this service {ours}"));
            }
            None => return self.wrong(&format!("{field}.port"), format!("port {number} is not named as one of ours")),
        }
        if let Some(subset) = &to.subset
            && self.services.subset(&host, subset).is_none()
        {
            return self.wrong(&format!("{field}.subset"), format!("no DestinationRule of `{host}` has `{subset}`"));
        }
        Ok(cluster::name(&host, number, to.subset.as_deref()))
    }

    fn mirror(&self, spec: &Route) -> Result<Vec<RequestMirrorPolicy>> {
        let Some(mirror) = &spec.mirror else { return Ok(Vec::new()) };
        self.percentage(spec.mirror_percentage, "mirrorPercentage")?;
        Ok(vec![RequestMirrorPolicy {
            cluster: self.cluster(mirror, "mirror")?,
            runtime_fraction: runtime_fraction(spec.mirror_percentage),
            ..RequestMirrorPolicy::default()
        }])
    }

    /// What the route says, else what the destinations' rules say.
    fn hash_policy(&self, spec: &Route, problems: &mut Vec<Problem>) -> Result<Vec<HashPolicy>> {
        let targets = spec.route.iter().map(|weighted| &weighted.destination);
        let target = |to: &Destination| (self.services.host_of(&to.host, &self.router.metadata), self.number(to));
        if spec.hash_policy.is_empty() {
            let mut all: Vec<HashPolicy> = Vec::new();
            for to in targets {
                let (host, number) = target(to);
                for policy in hash::of_destination(self.services, self.protocol, &host, number, to.subset.as_deref()) {
                    if !all.contains(&policy) {
                        all.push(policy);
                    }
                }
            }
            return Ok(all);
        }
        if let Some(index) = spec.hash_policy.iter().position(String::is_empty) {
            return self.wrong(&format!("hashPolicy[{index}]"), "empty");
        }
        let mut hashed = targets.map(|to| {
            let (host, number) = target(to);
            self.services
                .policy(&host, number, to.subset.as_deref())
                .load_balancer
                .is_some_and(|lb| lb.consistent_hash.is_some())
        });
        if !hashed.any(|hashed| hashed) {
            let reason = "has no effect: no DestinationRule of the destinations sets loadBalancer.consistentHash";
            problems.push(self.router.origin.warning(format!("{}.hashPolicy", self.field), reason));
        }
        Ok(spec.hash_policy.iter().map(|key| hash::of_metadata(key, self.protocol)).collect())
    }

    fn number(&self, to: &Destination) -> u16 {
        to.port.map_or(self.port.number, |port| port.number)
    }

    fn mutation(
        &self,
        changes: &[KeyValue],
        request: bool,
        field: &str,
    ) -> Result<(Vec<HeaderValueOption>, Vec<String>)> {
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        let capabilities = &self.protocol.capabilities;
        let support = if request { capabilities.request_mutation } else { capabilities.reply_mutation };
        for (index, change) in changes.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if support == MutationSupport::None {
                return self
                    .wrong(&field, format!("{} has no headers that could be changed", self.protocol.codec.name));
            }
            if change.key.is_empty() {
                return self.wrong(&format!("{field}.key"), "missing");
            }
            if change.key.len().max(change.value.len()) > MAX_HEADER {
                return self.wrong(&field, format!("longer than {MAX_HEADER} bytes"));
            }
            if matches!(change.key.as_str(), "service" | "method") {
                return self.wrong(&format!("{field}.key"), "service and method cannot be changed");
            }
            // The header may have come under either name.
            if names::is_safe_name(change.key.as_bytes()) {
                remove.push(change.key.to_ascii_lowercase());
            }
            remove.push(names::meta_name(&change.key));
            if !change.remove {
                let (key, value) = names::mutation_header(&change.key, &change.value);
                // `%` starts a command in Envoy's header values.
                let header = HeaderValue { key, value: value.replace('%', "%%"), ..HeaderValue::default() };
                add.push(HeaderValueOption {
                    header: Some(header),
                    append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
                    keep_empty_value: true,
                    ..HeaderValueOption::default()
                });
            }
        }
        Ok((add, remove))
    }

    fn percentage(&self, percent: Option<Percent>, field: &str) -> Result<()> {
        match percent {
            Some(Percent { value }) if !(0.0..=100.0).contains(&value) => {
                self.wrong(&format!("{field}.value"), format!("{value} is not between 0 and 100"))
            }
            _ => Ok(()),
        }
    }

    fn fault(&self, fault: &Fault) -> Result<HttpFault> {
        self.percentage(fault.abort.as_ref().and_then(|abort| abort.percentage), "fault.abort.percentage")?;
        self.percentage(fault.delay.as_ref().and_then(|delay| delay.percentage), "fault.delay.percentage")?;
        if fault.delay.as_ref().is_some_and(|delay| delay.fixed_delay.0.is_zero()) {
            return self.wrong("fault.delay.fixedDelay", "must be more than 0");
        }
        let abort = match &fault.abort {
            Some(abort) => {
                let status = abort.http_status.unwrap_or(503);
                if !(400..600).contains(&status) {
                    return self.wrong("fault.abort.httpStatus", format!("{status} is no failure: 400 to 599"));
                }
                Some(FaultAbort {
                    percentage: Some(fraction(abort.percentage)),
                    error_type: Some(ErrorType::HttpStatus(status)),
                    ..FaultAbort::default()
                })
            }
            None => None,
        };
        let delay = fault.delay.as_ref().map(|delay| FaultDelay {
            percentage: Some(fraction(delay.percentage)),
            fault_delay_secifier: span(delay.fixed_delay.0).map(FaultDelaySecifier::FixedDelay),
        });
        Ok(HttpFault { delay, abort, ..HttpFault::default() })
    }
}

/// What is tried again. Without a word from the user: only what no server has seen.
fn retry_policy(retries: Option<&Retries>) -> Option<RetryPolicy> {
    let attempts = retries.map_or(DEFAULT_RETRIES, |retries| retries.attempts);
    if attempts == 0 {
        return None;
    }
    let idempotent = retries.is_some_and(|retries| retries.idempotent);
    let unsent = "connect-failure,refused-stream,reset-before-request";
    let previous_hosts = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: any(&PreviousHostsPredicate {}).map(retry_host_predicate::ConfigType::TypedConfig),
    };
    Some(RetryPolicy {
        retry_on: if idempotent { format!("{unsent},reset,gateway-error") } else { unsent.to_owned() },
        num_retries: number(attempts),
        per_try_timeout: retries.and_then(|retries| retries.per_try_timeout).and_then(|timeout| span(timeout.0)),
        retry_host_predicate: vec![previous_hosts],
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    })
}
