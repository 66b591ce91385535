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
use meltemi_engine::names;

use super::{
    cluster, hash,
    limits::{self, Limits},
    listener::FAULT_FILTER,
    packing::{any, fraction, number, runtime_fraction, span},
    scope::{self, Result, Scope},
    services::{Port, Protocol, Services},
};
use crate::{
    model::{Fault, KeyValue, MetaRouter, Object, Retries, Route},
    problem::Problem,
};

/// Tries after the first for what no server has seen, as in Istio.
const DEFAULT_RETRIES: u32 = 2;

/// Routes of a port. A route that is wrong is reported and answers with an error; one whose match is wrong is left out.
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
        for (index, spec) in router.spec.routes.iter().enumerate() {
            let scope = Scope { port, protocol, router, services, field: format!("spec.routes[{index}]") };
            let Some(headers) = scope.conditions(spec).map_err(|problem| problems.push(*problem)).ok() else {
                continue;
            };
            let compiled = scope.route(index, spec, headers.clone(), limits, problems).unwrap_or_else(|problem| {
                // Its requests are not given to the routes behind it, which are not meant for them.
                problems.push(*problem);
                route(&spec.name, headers, answer(scope::BROKEN))
            });
            routes.extend(limits.split(compiled));
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

/// Envoy's own answer, which the inlet turns into the protocol's.
fn answer(status: u32) -> Action {
    Action::DirectResponse(DirectResponseAction { status, ..DirectResponseAction::default() })
}

impl Scope<'_> {
    fn route(
        &self,
        index: usize,
        spec: &Route,
        headers: Vec<HeaderMatcher>,
        limits: &Limits,
        problems: &mut Vec<Problem>,
    ) -> Result<EnvoyRoute> {
        if spec.deny {
            return Ok(route(&spec.name, headers, answer(403)));
        }
        let limit = limits.of_route(index);
        let action = RouteAction {
            cluster_specifier: Some(self.specifier(spec)?),
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

    fn specifier(&self, spec: &Route) -> Result<ClusterSpecifier> {
        let mut clusters = self.destinations(spec)?;
        if clusters.len() == 1 {
            return Ok(ClusterSpecifier::Cluster(clusters.remove(0).0));
        }
        let weighted = clusters.into_iter().map(|(name, weight)| ClusterWeight {
            name,
            weight: number(weight),
            ..ClusterWeight::default()
        });
        let clusters = weighted.collect();
        Ok(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() }))
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
        if spec.hash_policy.is_empty() {
            let mut all: Vec<HashPolicy> = Vec::new();
            for to in targets {
                let (host, number) = self.target(to);
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
            let (host, number) = self.target(to);
            self.services
                .policy(&host, number, to.subset.as_deref())
                .load_balancer
                .is_some_and(|lb| lb.consistent_hash.is_some())
        });
        if !hashed.any(|hashed| hashed) {
            let reason = "has no effect: no DestinationRule of the destinations sets loadBalancer.consistentHash";
            problems.push(self.warning("hashPolicy", reason));
        }
        Ok(spec.hash_policy.iter().map(|key| hash::of_metadata(key, self.protocol)).collect())
    }

    fn mutation(
        &self,
        changes: &[KeyValue],
        request: bool,
        field: &str,
    ) -> Result<(Vec<HeaderValueOption>, Vec<String>)> {
        let capabilities = &self.protocol.capabilities;
        let support = if request { capabilities.request_mutation } else { capabilities.reply_mutation };
        self.changes(changes, support, field)?;
        let (mut add, mut remove) = (Vec::new(), Vec::new());
        for change in changes {
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

    fn fault(&self, fault: &Fault) -> Result<HttpFault> {
        self.percentage(fault.delay.as_ref().and_then(|delay| delay.percentage), "fault.delay.percentage")?;
        if fault.delay.as_ref().is_some_and(|delay| delay.fixed_delay.0.is_zero()) {
            return self.wrong("fault.delay.fixedDelay", "must be more than 0");
        }
        let abort = match &fault.abort {
            Some(abort) => Some(FaultAbort {
                percentage: Some(fraction(abort.percentage)),
                error_type: Some(ErrorType::HttpStatus(self.abort_status(abort)?)),
                ..FaultAbort::default()
            }),
            None => None,
        };
        let delay = fault.delay.as_ref().map(|delay| FaultDelay {
            percentage: Some(fraction(delay.percentage)),
            fault_delay_secifier: span(delay.fixed_delay.0).map(FaultDelaySecifier::FixedDelay),
        });
        Ok(HttpFault { delay, abort, ..HttpFault::default() })
    }
}

/// How often a server is chosen anew that was asked before: chance, of two servers, takes the dead one again every other time.
const HOST_SELECTIONS: i64 = 16;

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
        host_selection_retry_max_attempts: HOST_SELECTIONS,
        ..RetryPolicy::default()
    })
}
