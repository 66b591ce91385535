use envoy_types::pb::envoy::{
    config::{
        core::v3::{grpc_service::TargetSpecifier, transport_socket::ConfigType},
        route::v3::rate_limit::action::ActionSpecifier,
    },
    extensions::{
        filters::http::{local_ratelimit::v3::LocalRateLimit, ratelimit::v3::RateLimit},
        transport_sockets::tls::v3::UpstreamTlsContext,
    },
};
use prost::Message;

use super::*;

const LOCAL: &str = "envoy.filters.http.local_ratelimit";
const GLOBAL: &str = "envoy.filters.http.ratelimit";

/// A service that counts, and a rule of it.
fn counter(policy: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: r}}
spec:
  hosts: [r.test]
  ports: [{{number: 8081, name: grpc, protocol: GRPC}}]
  resolution: STATIC
  endpoints: [{{address: 10.0.0.8}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: r}}
spec: {{host: r.test, trafficPolicy: {policy}}}
---
"
    )
}

#[test]
fn local_limits() {
    let snapshot = good(
        &[
            service("dubbo"),
            router(
                "  localRateLimit:
    tokenBucket: {maxTokens: 9, tokensPerFill: 8, fillInterval: 7s}
    conditions:
    - {match: {attributes: {method: {exact: a}}}, tokenBucket: {maxTokens: 1}}
    - {match: {attributes: {method: {exact: b}}}, tokenBucket: {maxTokens: 2}}
  routes:
  - {route: [{destination: {host: a.test}}], localRateLimit: {maxTokens: 3, tokensPerFill: 2, fillInterval: 500ms}}",
            ),
        ]
        .concat(),
    );
    let filter: LocalRateLimit = http_filter(&snapshot, LOCAL).unwrap();
    let bucket = filter.token_bucket.unwrap();
    assert_eq!(
        (bucket.max_tokens, bucket.tokens_per_fill.unwrap().value, bucket.fill_interval.unwrap().seconds),
        (9, 8, 7)
    );
    let buckets: Vec<(Vec<&str>, u32)> = filter
        .descriptors
        .iter()
        .map(|d| (d.entries.iter().map(|entry| entry.value.as_str()).collect(), d.token_bucket.unwrap().max_tokens))
        .collect();
    assert_eq!(buckets, [(vec!["route-0"], 3), (vec!["condition-0"], 1), (vec!["not-condition-0", "condition-1"], 2),]);
    assert_eq!(action(&routes(&snapshot)[0]).rate_limits.len(), 3, "the route's and both conditions'");
    assert!(http_filter::<LocalRateLimit>(&good(&service("dubbo")), LOCAL).is_none());
}

#[test]
fn global_limits() {
    let yaml = |only: &str| {
        [service("dubbo"), counter("{tls: {mode: SIMPLE, caCertificates: /ca.pem}, connectionPool: {tcp: {connectTimeout: 3s, maxConnections: 2}}}"), router(&format!("  globalRateLimit:
    domain: d
    rateLimitService: outbound|8081||r.test
    requestTimeout: 30ms
    denyOnFail: true{only}
    descriptors: [{{property: interface, descriptorKey: s}}, {{property: user}}]
  routes:
  - {{name: one, route: [{{destination: {{host: a.test}}}}]}}"))].concat()
    };
    let snapshot = good(&yaml(""));
    let filter: RateLimit = http_filter(&snapshot, GLOBAL).unwrap();
    assert_eq!(
        (filter.domain.as_str(), filter.failure_mode_deny, filter.timeout.unwrap().nanos),
        ("d", true, 30_000_000)
    );
    let Some(TargetSpecifier::EnvoyGrpc(target)) =
        filter.rate_limit_service.unwrap().grpc_service.unwrap().target_specifier
    else {
        panic!()
    };
    assert_eq!(target.cluster_name, "service|8081||r.test");
    let routes_before = routes(&snapshot);
    let limits = &action(&routes_before[0]).rate_limits;
    let asked: Vec<(&str, &str)> = limits[0]
        .actions
        .iter()
        .map(|action| match action.action_specifier.as_ref().unwrap() {
            ActionSpecifier::RequestHeaders(headers) => (headers.header_name.as_str(), headers.descriptor_key.as_str()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, [("x-meltemi-service", "s"), ("user", "user")]);
    // The service is reached as its rule says.
    let service = cluster(&snapshot, "service|8081||r.test");
    assert_eq!(service.connect_timeout.unwrap().seconds, 3);
    assert_eq!(service.circuit_breakers.unwrap().thresholds[0].max_connections.unwrap().value, 2);
    let Some(ConfigType::TypedConfig(any)) = service.transport_socket.unwrap().config_type else { panic!() };
    let context = UpstreamTlsContext::decode(any.value.as_slice()).unwrap();
    assert_eq!(context.common_tls_context.unwrap().alpn_protocols, ["h2"]);
    // With a match, a route is cut in two.
    let snapshot = good(&yaml("\n    match: {attributes: {method: {exact: a}}}"));
    let counts: Vec<(usize, usize)> = routes(&snapshot)
        .iter()
        .map(|route| (route.r#match.as_ref().unwrap().headers.len(), action(route).rate_limits.len()))
        .collect();
    assert_eq!(counts, [(1, 1), (0, 0)]);
}

#[test]
fn wrong_limits_are_told() {
    let compiled = all(&[
        service("dubbo"),
        router(
            "  localRateLimit: {tokenBucket: {maxTokens: 0}, conditions: [{tokenBucket: {maxTokens: 1}}]}
  globalRateLimit: {domain: d, rateLimitService: nobody:1, descriptors: [{property: method}]}
  routes: [{route: [{destination: {host: a.test}}], localRateLimit: {maxTokens: 1, fillInterval: 1ms}}]",
        ),
    ]
    .concat());
    assert_eq!(
        errors(&compiled).iter().map(|e| e.0).collect::<Vec<_>>(),
        [
            "spec.routes[0].localRateLimit.fillInterval",
            "spec.localRateLimit.tokenBucket.maxTokens",
            "spec.localRateLimit.conditions[0].match.attributes",
            "spec.globalRateLimit.rateLimitService",
        ]
    );
    action(&routes(&compiled.snapshot)[0]);
}
