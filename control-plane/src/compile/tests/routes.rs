use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::HeaderValueOption,
            route::v3::{
                HeaderMatcher,
                header_matcher::HeaderMatchSpecifier,
                route_action::{ClusterSpecifier, hash_policy::PolicySpecifier},
            },
        },
        extensions::filters::http::fault::v3::{HttpFault, fault_abort::ErrorType},
        r#type::matcher::v3::string_matcher::MatchPattern,
    },
    google::protobuf::Duration,
};
use prost::Message;

use super::*;

fn spec(routes: &str) -> Vec<Route> {
    self::routes(&good(&[service("dubbo"), rule(""), router(routes)].concat()))
}

fn span(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

#[test]
fn without_a_router_all_goes_to_the_service() {
    let routes = routes(&good(&service("dubbo")));
    assert_eq!(routes.len(), 1);
    assert_eq!(action(&routes[0]).cluster_specifier, Some(ClusterSpecifier::Cluster("outbound|80||a.test".to_owned())));
    assert_eq!(action(&routes[0]).timeout, span(0, 0), "Envoy's own is 15 s");
    let retry = action(&routes[0]).retry_policy.as_ref().unwrap();
    assert_eq!(
        (retry.retry_on.as_str(), retry.num_retries.unwrap().value),
        ("connect-failure,refused-stream,reset-before-request", 2)
    );
}

#[test]
fn every_kind_of_match() {
    let routes = spec(
        "  routes:
  - match:
      attributes:
        interface: {exact: Demo}
        method: {prefix: get}
        é: {suffix: ü}
        Env: {exact: Gray, ignoreCase: true}
        a: {regex: '[0-9]+', invert: true}
        b: {range: {start: 1, end: 5}}
        c: {present: false}
        d:
        e: {}
        f: {regex: '*'}
    deny: true",
    );
    assert_eq!(answer(&routes[0]), 403);
    let headers: BTreeMap<&str, &HeaderMatcher> =
        routes[0].r#match.as_ref().unwrap().headers.iter().map(|header| (header.name.as_str(), header)).collect();
    let pattern = |name: &str| match &headers[name].header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(string)) => string.match_pattern.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    let present = |name: &str| match headers[name].header_match_specifier {
        Some(HeaderMatchSpecifier::PresentMatch(present)) => present,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(pattern("x-meltemi-service"), MatchPattern::Exact("Demo".to_owned()));
    assert_eq!(pattern("x-meltemi-method"), MatchPattern::Prefix("get".to_owned()));
    assert_eq!(pattern("x-meltemi-meta-%c3%a9"), MatchPattern::Suffix("%c3%bc".to_owned()));
    assert_eq!(pattern("env"), MatchPattern::Exact("Gray".to_owned()));
    assert!(
        matches!(&headers["env"].header_match_specifier, Some(HeaderMatchSpecifier::StringMatch(s)) if s.ignore_case)
    );
    assert!(matches!(pattern("a"), MatchPattern::SafeRegex(regex) if regex.regex == "[0-9]+"));
    assert!(headers["a"].invert_match && headers["a"].treat_missing_header_as_empty);
    assert!(
        matches!(headers["b"].header_match_specifier, Some(HeaderMatchSpecifier::RangeMatch(r)) if (r.start, r.end) == (1, 5))
    );
    assert_eq!([present("c"), present("d"), present("e"), present("f")], [false, true, true, true]);
}

#[test]
fn a_rule_on_a_name_sees_every_value() {
    // Under one name stands every value, escaped where it must be: what is looked for is escaped alike.
    let routes = spec(
        "  routes:
  - {match: {attributes: {user: {exact: 'é '}}}, deny: true}
  - {match: {attributes: {user: {prefix: ' é'}}}, deny: true}
  - {match: {attributes: {user: {suffix: '% '}}}, deny: true}
  - {match: {attributes: {user: {present: true}}}, deny: true}",
    );
    let header = |index: usize| &routes[index].r#match.as_ref().unwrap().headers[0];
    let pattern = |index: usize| match &header(index).header_match_specifier {
        Some(HeaderMatchSpecifier::StringMatch(string)) => string.match_pattern.clone().unwrap(),
        other => panic!("{other:?}"),
    };
    assert!((0..4).all(|index| header(index).name == "user"));
    assert_eq!(pattern(0), MatchPattern::Exact("%c3%a9%20".to_owned()));
    assert_eq!(pattern(1), MatchPattern::Prefix("%20%c3%a9".to_owned()));
    assert_eq!(pattern(2), MatchPattern::Suffix("%25%20".to_owned()));
}

#[test]
fn weights_mirror_timeout_and_retries() {
    let routes = spec(
        "  routes:
  - name: shared
    route:
    - {destination: {host: a.test, subset: v1}, weight: 20}
    - {destination: {host: a.test, subset: v2, port: {number: 80}}, weight: 80}
    mirror: {host: a.test, subset: v2}
    mirrorPercentage: {value: 0.5}
    timeout: 1.5s
    retries: {attempts: 4, perTryTimeout: 200ms, idempotent: true}
  - {name: once, route: [{destination: {host: a.test}}], retries: {attempts: 0}, mirror: {host: a.test}}",
    );
    let shared = action(&routes[0]);
    let Some(ClusterSpecifier::WeightedClusters(weighted)) = &shared.cluster_specifier else { panic!() };
    let shares: Vec<_> = weighted.clusters.iter().map(|c| (c.name.as_str(), c.weight.unwrap().value)).collect();
    assert_eq!(shares, [("outbound|80|v1|a.test", 20), ("outbound|80|v2|a.test", 80)]);
    assert_eq!(shared.timeout, span(1, 500_000_000));
    let retry = shared.retry_policy.as_ref().unwrap();
    assert_eq!(retry.retry_on, "connect-failure,refused-stream,reset-before-request,reset,gateway-error");
    assert_eq!((retry.num_retries.unwrap().value, retry.per_try_timeout), (4, span(0, 200_000_000)));
    assert_eq!(retry.retry_host_predicate.len(), 1);
    let mirror = |index: usize| {
        let mirror = &action(&routes[index]).request_mirror_policies[0];
        (mirror.cluster.clone(), mirror.runtime_fraction.as_ref().unwrap().default_value.unwrap().numerator)
    };
    assert_eq!(mirror(0), ("outbound|80|v2|a.test".to_owned(), 5_000));
    assert_eq!(mirror(1), ("outbound|80||a.test".to_owned(), 1_000_000));
    assert_eq!(action(&routes[1]).retry_policy, None);
}

#[test]
fn mutations() {
    let routes = spec(
        "  routes:
  - route: [{destination: {host: a.test}}]
    requestMutation: [{key: color, value: '100% é'}, {key: batchId, value: '7'}, {key: gone, remove: true}]
    responseMutation: [{key: seen, value: 'yes'}]",
    );
    let set = |headers: &[HeaderValueOption]| -> Vec<(String, String)> {
        headers.iter().filter_map(|h| h.header.clone()).map(|h| (h.key, h.value)).collect()
    };
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(
        set(&routes[0].request_headers_to_add),
        owned(&[("color", "100%%25 %%c3%%a9"), ("x-meltemi-meta-batch%49d", "7")])
    );
    assert!(routes[0].request_headers_to_remove.contains(&"gone".to_owned()));
    assert!(routes[0].request_headers_to_remove.contains(&"batchid".to_owned()), "whatever case it came in");
    assert_eq!(set(&routes[0].response_headers_to_add), owned(&[("seen", "yes")]));
}

#[test]
fn faults() {
    let routes = spec(
        "  routes:
  - route: [{destination: {host: a.test}}]
    fault: {delay: {fixedDelay: 10ms, percentage: {value: 25}}, abort: {httpStatus: 429, percentage: {value: 0.0001}}}
  - {route: [{destination: {host: a.test}}], fault: {abort: {}}}",
    );
    let fault = |index: usize| {
        HttpFault::decode(routes[index].typed_per_filter_config["envoy.filters.http.fault"].value.as_slice()).unwrap()
    };
    let (delay, abort) = (fault(0).delay.unwrap(), fault(0).abort.unwrap());
    assert_eq!(delay.percentage.unwrap().numerator, 250_000);
    assert_eq!((abort.percentage.unwrap().numerator, abort.error_type), (1, Some(ErrorType::HttpStatus(429))));
    assert_eq!(fault(1).abort.unwrap().error_type, Some(ErrorType::HttpStatus(503)));
    assert_eq!(fault(1).delay, None);
}

#[test]
fn hashes() {
    let names = |routes: &[Route]| -> Vec<String> {
        action(&routes[0])
            .hash_policy
            .iter()
            .map(|policy| match policy.policy_specifier.as_ref().unwrap() {
                PolicySpecifier::Header(header) => header.header_name.clone(),
                PolicySpecifier::ConnectionProperties(by) if by.source_ip => "source".to_owned(),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    let with = |hash: &str, routes: &str| {
        let rule = rule(&format!("  trafficPolicy: {{loadBalancer: {{consistentHash: {hash}}}}}"));
        names(&self::routes(&good(&[service("dubbo"), rule, router(routes)].concat())))
    };
    let plain = "  routes: [{route: [{destination: {host: a.test}}]}]";
    assert_eq!(with("{useSourceIp: true}", plain), ["source"]);
    assert_eq!(with("{httpHeaderName: interface}", plain), ["x-meltemi-service"]);
    assert_eq!(with("{httpHeaderName: user}", "  routes: []"), ["user"]);
    let own = "  routes: [{route: [{destination: {host: a.test}}], hashPolicy: [user, method]}]";
    assert_eq!(with("{useSourceIp: true}", own), ["user", "x-meltemi-method"]);
    let useless = all(&[service("dubbo"), router(own)].concat());
    assert_eq!(warnings(&useless)[0].0, "spec.routes[0].hashPolicy");
}

#[test]
fn a_wrong_route_answers_with_an_error_and_the_others_go_on() {
    let compiled = all(&[service("dubbo"), router("  routes:
  - {name: lost, match: {attributes: {method: {exact: a}}}, route: [{destination: {host: a.test, subset: v9}}]}
  - {name: odd, match: {attributes: {method: {prefix: ''}}}, route: [{destination: {host: a.test}}]}
  - {name: no, match: {attributes: {method: {exact: c}}}, deny: true, timeout: 1s, route: [{destination: {host: nobody}}]}
  - {name: rest, route: [{destination: {host: a.test}}]}")].concat());
    assert_eq!(
        errors(&compiled).iter().map(|e| e.0).collect::<Vec<_>>(),
        ["spec.routes[0].route[0].destination.subset", "spec.routes[1].match.attributes.method",]
    );
    let routes = routes(&compiled.snapshot);
    assert_eq!(routes.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["lost", "no", "rest"]);
    assert_eq!((answer(&routes[0]), answer(&routes[1])), (503, 403));
    assert_eq!(routes[0].r#match.as_ref().unwrap().headers.len(), 1, "only its own requests");
    action(&routes[2]);
}
