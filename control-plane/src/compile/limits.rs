//! Rate limits: local ones counted in each proxy, global ones by a rate limit service.
//!
//! Both filters stand in the listener's filter list. Which limit a request counts towards is said by descriptors: those
//! of stage 1 are for the local filter, those of stage 0 for the global one.

use std::{collections::HashMap, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{ApiVersion, GrpcService, grpc_service},
            ratelimit::v3::RateLimitServiceConfig,
            route::v3::{
                HeaderMatcher, RateLimit as Descriptors, Route as EnvoyRoute,
                rate_limit::{
                    Action,
                    action::{ActionSpecifier, GenericKey, HeaderValueMatch, RequestHeaders},
                },
                route::Action as RouteActionKind,
            },
        },
        extensions::{
            common::ratelimit::v3::{LocalRateLimitDescriptor, rate_limit_descriptor::Entry},
            filters::http::{
                local_ratelimit::v3::LocalRateLimit as LocalFilter, ratelimit::v3::RateLimit as GlobalFilter,
            },
        },
        r#type::v3::TokenBucket as EnvoyBucket,
    },
    google::protobuf::Any,
};
use meltemi_engine::names;

use super::{
    cluster, matcher,
    packing::{any, boolean, number, runtime_fraction, span},
    services::{Protocol, Services},
};
use crate::{
    model::{MetaRouter, Object, TokenBucket},
    problem::{Kind, Problem},
};

pub(super) const LOCAL_FILTER: &str = "envoy.filters.http.local_ratelimit";
const STAT_PREFIX: &str = "meltemi";
const LOCAL_STAGE: u32 = 1;
/// How long the rate limit service may take, as in Aeraki.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(20);

/// The limits of one router.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// Of single routes, by their index.
    routes: HashMap<usize, EnvoyBucket>,
    /// Of certain requests.
    conditions: Vec<(Vec<HeaderMatcher>, EnvoyBucket)>,
    default: Option<EnvoyBucket>,
    global: Option<Global>,
}

#[derive(Debug)]
struct Global {
    filter: GlobalFilter,
    actions: Vec<Action>,
    /// Which requests are counted; all if empty.
    only: Vec<HeaderMatcher>,
    cluster: (String, u16),
}

impl Limits {
    /// Reads the limits of a router. Those that are wrong are left out and reported.
    pub(super) fn new(
        router: Option<&Object<MetaRouter>>,
        protocol: &Protocol,
        services: &Services<'_>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut limits = Self::default();
        let Some(router) = router else { return limits };
        let origin = &router.origin;
        let mut wrong = |field: &str, (below, reason): matcher::Wrong| {
            problems.push(origin.error(format!("{field}.{below}"), reason));
        };
        let bucket = |spec: &TokenBucket, field: &str, wrong: &mut dyn FnMut(&str, matcher::Wrong)| {
            envoy_bucket(spec).map_err(|error| wrong(field, error)).ok()
        };
        for (index, route) in router.spec.routes.iter().enumerate() {
            if let Some(spec) = &route.local_rate_limit {
                let field = format!("spec.routes[{index}].localRateLimit");
                limits.routes.extend(bucket(spec, &field, &mut wrong).map(|bucket| (index, bucket)));
            }
        }
        if let Some(local) = &router.spec.local_rate_limit {
            let field = "spec.localRateLimit";
            let default = local.token_bucket.as_ref();
            limits.default = default.and_then(|spec| bucket(spec, &format!("{field}.tokenBucket"), &mut wrong));
            for (index, condition) in local.conditions.iter().enumerate() {
                let field = format!("{field}.conditions[{index}]");
                let spec = &condition.token_bucket;
                let Some(bucket) = bucket(spec, &format!("{field}.tokenBucket"), &mut wrong) else { continue };
                match matcher::headers(&condition.r#match, protocol.service_aliases) {
                    Ok(headers) if headers.is_empty() => {
                        let reason = "missing; the limit for all requests is spec.localRateLimit.tokenBucket";
                        wrong(&format!("{field}.match"), ("attributes".to_owned(), reason.to_owned()));
                    }
                    Ok(headers) => limits.conditions.push((headers, bucket)),
                    Err(error) => wrong(&format!("{field}.match"), error),
                }
            }
        }
        match global(router, protocol, services) {
            Ok(global) => limits.global = global,
            Err(problem) => problems.push(*problem),
        }
        limits
    }

    /// Those of single routes, for the client's side of a mesh, and those of the service, for the server's.
    pub(super) fn of_sides(self) -> (Self, Self) {
        let Self { routes, conditions, default, global } = self;
        let client = Self { routes, ..Self::default() };
        (client, Self { routes: HashMap::new(), conditions, default, global })
    }

    /// The route has a limit of its own.
    pub(super) fn of_route(&self, index: usize) -> Option<usize> {
        self.routes.contains_key(&index).then_some(index)
    }

    /// Descriptors that every route of the service gets. Those of a virtual host are not for routes with their own.
    pub(super) fn for_all(&self) -> Vec<Descriptors> {
        let conditions = self.conditions.iter().enumerate().map(|(index, (headers, _))| {
            // The first condition that holds is the one that counts.
            let earlier = self
                .conditions
                .iter()
                .take(index)
                .enumerate()
                .map(|(index, (headers, _))| header_action(index, headers, false));
            descriptors(LOCAL_STAGE, earlier.chain([header_action(index, headers, true)]).collect())
        });
        let counted = self.global.as_ref().filter(|global| global.only.is_empty());
        conditions.chain(counted.map(|global| descriptors(0, global.actions.clone()))).collect()
    }

    /// A route as it is, or cut in two: those of its requests that the global limit counts, and the others.
    pub(super) fn split(&self, route: EnvoyRoute) -> Vec<EnvoyRoute> {
        let Some(global) = self.global.as_ref().filter(|global| !global.only.is_empty()) else { return vec![route] };
        let mut counted = route.clone();
        if let Some(conditions) = &mut counted.r#match {
            conditions.headers.extend(global.only.clone());
        }
        let Some(RouteActionKind::Route(action)) = &mut counted.action else { return vec![route] };
        action.rate_limits.push(descriptors(0, global.actions.clone()));
        vec![counted, route]
    }

    /// The filter for local limits, if there are any.
    pub(super) fn local_filter(&self) -> Option<LocalFilter> {
        if self.default.is_none() && self.routes.is_empty() && self.conditions.is_empty() {
            return None;
        }
        let mut routes: Vec<(&usize, &EnvoyBucket)> = self.routes.iter().collect();
        routes.sort_by_key(|(index, _)| **index);
        let of_routes = routes
            .into_iter()
            .map(|(index, bucket)| descriptor(vec![entry("generic_key", route_name(*index))], bucket));
        let of_conditions = self.conditions.iter().enumerate().map(|(index, (_, bucket))| {
            let entries = (0..index).map(|earlier| condition_name(earlier, false)).chain([condition_name(index, true)]);
            descriptor(entries.map(|name| entry("header_match", name)).collect(), bucket)
        });
        Some(LocalFilter {
            stat_prefix: STAT_PREFIX.to_owned(),
            // Without a bucket for the rest, the rest is not limited; the filter demands one all the same.
            token_bucket: Some(self.default.unwrap_or(EnvoyBucket {
                max_tokens: u32::MAX,
                tokens_per_fill: number(u32::MAX),
                fill_interval: span(Duration::from_secs(1)),
            })),
            filter_enabled: runtime_fraction(None),
            filter_enforced: runtime_fraction(None),
            descriptors: of_routes.chain(of_conditions).collect(),
            stage: LOCAL_STAGE,
            always_consume_default_token_bucket: boolean(false),
            ..LocalFilter::default()
        })
    }

    /// The local limits as part of routes, for managers with [`idle_filter`].
    pub(super) fn of_host(&self) -> HashMap<String, Any> {
        let filter = self.local_filter().and_then(|filter| any(&filter));
        filter.map(|filter| (LOCAL_FILTER.to_owned(), filter)).into_iter().collect()
    }

    /// The filter for the global limit, if there is one.
    pub(super) fn global_filter(&self) -> Option<&GlobalFilter> {
        self.global.as_ref().map(|global| &global.filter)
    }

    /// The service that counts.
    pub(super) fn service(&self) -> Option<&(String, u16)> {
        self.global.as_ref().map(|global| &global.cluster)
    }
}

/// A filter for local limits that knows none: they come with the routes, and so to connections that are open.
pub(super) fn idle_filter() -> LocalFilter {
    LocalFilter { stat_prefix: STAT_PREFIX.to_owned(), ..LocalFilter::default() }
}

/// The descriptor of a route with a limit of its own.
pub(super) fn route_action(index: usize) -> Descriptors {
    let key = GenericKey { descriptor_value: route_name(index), ..GenericKey::default() };
    descriptors(LOCAL_STAGE, vec![Action { action_specifier: Some(ActionSpecifier::GenericKey(key)) }])
}

fn route_name(index: usize) -> String {
    format!("route-{index}")
}

fn condition_name(index: usize, holds: bool) -> String {
    if holds { format!("condition-{index}") } else { format!("not-condition-{index}") }
}

/// Adds an entry to a descriptor if the condition holds, or does not; without the entry there is no descriptor.
fn header_action(index: usize, headers: &[HeaderMatcher], holds: bool) -> Action {
    let action = HeaderValueMatch {
        descriptor_value: condition_name(index, holds),
        headers: headers.to_vec(),
        expect_match: boolean(holds),
        ..HeaderValueMatch::default()
    };
    Action { action_specifier: Some(ActionSpecifier::HeaderValueMatch(action)) }
}

fn descriptors(stage: u32, actions: Vec<Action>) -> Descriptors {
    Descriptors { stage: number(stage), actions, ..Descriptors::default() }
}

fn entry(key: &str, value: String) -> Entry {
    Entry { key: key.to_owned(), value }
}

fn descriptor(entries: Vec<Entry>, bucket: &EnvoyBucket) -> LocalRateLimitDescriptor {
    LocalRateLimitDescriptor { entries, token_bucket: Some(*bucket), ..LocalRateLimitDescriptor::default() }
}

pub(super) fn envoy_bucket(spec: &TokenBucket) -> Result<EnvoyBucket, matcher::Wrong> {
    if spec.max_tokens == 0 {
        return Err((
            "maxTokens".to_owned(),
            "must be more than 0; to refuse all requests write `deny: true`".to_owned(),
        ));
    }
    let interval = spec.fill_interval.map_or(Duration::from_secs(1), |interval| interval.0);
    if interval < Duration::from_millis(50) {
        return Err(("fillInterval".to_owned(), "must be at least 50ms".to_owned()));
    }
    Ok(EnvoyBucket {
        max_tokens: spec.max_tokens,
        tokens_per_fill: number(spec.tokens_per_fill.unwrap_or(1).max(1)),
        fill_interval: span(interval),
    })
}

fn global(
    router: &Object<MetaRouter>,
    protocol: &Protocol,
    services: &Services<'_>,
) -> Result<Option<Global>, Box<Problem>> {
    let Some(spec) = &router.spec.global_rate_limit else { return Ok(None) };
    let wrong =
        |field: &str, reason: String| Box::new(router.origin.error(format!("spec.globalRateLimit.{field}"), reason));
    if spec.domain.is_empty() {
        return Err(wrong("domain", "missing".to_owned()));
    }
    if spec.descriptors.is_empty() {
        return Err(wrong("descriptors", "nothing to count by".to_owned()));
    }
    if let Some(index) = spec.descriptors.iter().position(|descriptor| descriptor.property.is_empty()) {
        return Err(wrong(&format!("descriptors[{index}].property"), "missing".to_owned()));
    }
    let cluster = service_name(&spec.rate_limit_service)
        .filter(|(host, port)| services.port(host, *port).is_some())
        .ok_or_else(|| {
            let reason =
                format!("there is no Service or ServiceEntry for `{}`; write `host:port`", spec.rate_limit_service);
            Box::new(wrong("rateLimitService", reason).of(Kind::Reference))
        })?;
    let only = match &spec.r#match {
        Some(conditions) => matcher::headers(conditions, protocol.service_aliases)
            .map_err(|(field, reason)| wrong(&format!("match.{field}"), reason))?,
        None => Vec::new(),
    };
    let actions = spec.descriptors.iter().map(|descriptor| {
        let key = matcher::metadata_key(&descriptor.property, protocol.service_aliases);
        let headers = RequestHeaders {
            header_name: names::match_header(key, None).0,
            descriptor_key: if descriptor.descriptor_key.is_empty() {
                key.to_owned()
            } else {
                descriptor.descriptor_key.clone()
            },
            ..RequestHeaders::default()
        };
        Action { action_specifier: Some(ActionSpecifier::RequestHeaders(headers)) }
    });
    let envoy = grpc_service::EnvoyGrpc {
        cluster_name: cluster::service_name(&cluster.0, cluster.1),
        ..grpc_service::EnvoyGrpc::default()
    };
    let timeout = spec.request_timeout.map_or(DEFAULT_TIMEOUT, |timeout| timeout.0);
    let filter = GlobalFilter {
        domain: spec.domain.clone(),
        timeout: span(timeout),
        failure_mode_deny: spec.deny_on_fail,
        disable_x_envoy_ratelimited_header: true,
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(GrpcService {
                target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
                ..GrpcService::default()
            }),
            transport_api_version: ApiVersion::V3.into(),
        }),
        ..GlobalFilter::default()
    };
    Ok(Some(Global { filter, actions: actions.collect(), only, cluster }))
}

/// `host:port`, or Envoy's `outbound|port||host`.
fn service_name(text: &str) -> Option<(String, u16)> {
    let parts: Vec<&str> = text.split('|').collect();
    match parts.as_slice() {
        ["outbound", port, _, host] => Some(((*host).to_owned(), port.parse().ok()?)),
        _ => {
            let (host, port) = text.rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        }
    }
}
