use envoy_types::pb::{
    envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::filters::network::{dynamic_modules::v3::DynamicModuleNetworkFilter, tcp_proxy::v3::TcpProxy},
    },
    google::protobuf::StringValue,
};
use prost::Message;
use serde_json::Value;

use super::*;

fn connections(protocol: &str) -> String {
    service(protocol).replace("{name: a}", "{name: a, annotations: {meltemi.dev/mode.80: connection}}")
}

fn relay(snapshot: &Snapshot) -> Value {
    let extension: TypedExtensionConfig = get(snapshot, TypeUrl::ExtensionConfig, "relay|a.test:80");
    let filter = DynamicModuleNetworkFilter::decode(extension.typed_config.unwrap().value.as_slice()).unwrap();
    assert_eq!(filter.filter_name, "relay");
    let text = StringValue::decode(filter.filter_config.unwrap().value.as_slice()).unwrap();
    serde_json::from_str(&text.value).unwrap()
}

fn proxy(snapshot: &Snapshot) -> TcpProxy {
    let listener: Listener = get(snapshot, TypeUrl::Listener, "a.test:80");
    let Some(ConfigType::TypedConfig(any)) = &listener.filter_chains[0].filters[1].config_type else { panic!() };
    TcpProxy::decode(any.value.as_slice()).unwrap()
}

#[test]
fn routes_are_ours() {
    let snapshot = good(
        &[
            connections("dubbo"),
            rule("  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}"),
            router(
                "  routes:
  - name: one
    match: {attributes: {interface: {exact: x}, a: {regex: '*'}}}
    route: [{destination: {host: a.test, subset: v1}, weight: 1}, {destination: {host: a.test, subset: v2}, weight: 2}]
    hashPolicy: [interface]
    localRateLimit: {maxTokens: 3, fillInterval: 2s}
    requestMutation: [{key: k, value: v}]
    fault: {abort: {percentage: {value: 50}}}
  - {deny: true}",
            ),
        ]
        .concat(),
    );
    let routes = relay(&snapshot)["routes"].clone();
    assert_eq!(routes[0]["clusters"][1]["weight"], 2);
    assert_eq!((&routes[0]["hash"][0], &routes[0]["abort_millionths"]), (&"service".into(), &500_000.into()));
    assert_eq!(routes[0]["rate_limit"]["fill_interval_ms"], 2000);
    assert_eq!(routes[1]["deny"], true);
    assert_eq!(proxy(&snapshot).hash_policy.len(), 1, "by the client's address");
}

#[test]
fn what_is_checked_in_request_mode_is_checked_here() {
    let fields = |protocol: &str, route: &str| {
        let compiled = all(&[
            connections(protocol),
            rule(""),
            router(&format!("  routes: [{{name: x, match: {{attributes: {{method: {{exact: a}}}}}}, {route}}}]")),
        ]
        .concat());
        let routes = relay(&compiled.snapshot)["routes"].clone();
        let fields: Vec<String> = compiled.problems.iter().map(|problem| problem.field.clone()).collect();
        (fields.join(" "), routes[0]["abort_millionths"] == 1_000_000 && routes[0]["matches"][0]["key"] == "method")
    };
    let to = "route: [{destination: {host: a.test}}]";
    let in_two = |first: &str| {
        format!(
            "route: [{{destination: {{host: a.test, subset: v1}}{first}}}, {{destination: {{host: a.test, subset: v2}}, weight: 1}}]"
        )
    };
    let wrong = |field: &str| (format!("spec.routes[0].{field}"), true);
    assert_eq!(fields("dubbo", &in_two("")), wrong("route[0].weight"));
    assert_eq!(fields("dubbo", "route: []"), wrong("route"));
    assert_eq!(fields("dubbo", &format!("{to}, timeout: 1s")), wrong("timeout"));
    assert_eq!(
        fields("dubbo", &format!("{to}, responseMutation: [{{key: '', value: x}}]")),
        wrong("responseMutation[0].key")
    );
    assert_eq!(
        fields("dubbo", &format!("{to}, requestMutation: [{{key: method, value: x}}]")),
        wrong("requestMutation[0].key")
    );
    assert_eq!(
        fields("dubbo", &format!("{to}, fault: {{abort: {{percentage: {{value: 101}}}}}}")),
        wrong("fault.abort.percentage.value")
    );
    assert_eq!(
        fields("dubbo", &format!("{to}, fault: {{abort: {{httpStatus: 200}}}}")),
        wrong("fault.abort.httpStatus")
    );
    assert_eq!(
        fields("dubbo", &format!("{to}, fault: {{abort: {{httpStatus: 429, percentage: {{value: 1}}}}}}")),
        ("spec.routes[0].fault.abort.httpStatus".to_owned(), false)
    );
    assert_eq!(
        fields("dubbo", &format!("{to}, localRateLimit: {{maxTokens: 0}}")),
        ("spec.routes[0].localRateLimit.maxTokens".to_owned(), false)
    );
    assert_eq!(fields("dubbo", &format!("{to}, hashPolicy: ['']")), wrong("hashPolicy[0]"));
}

#[test]
fn a_hash_that_has_no_effect_is_told() {
    let rule = rule("  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: user}}}");
    let compiled =
        all(&[connections("dubbo"), rule, router("  routes: [{route: [{destination: {host: a.test}}]}]")].concat());
    assert_eq!(warnings(&compiled)[0].0, "spec.trafficPolicy.loadBalancer.consistentHash.httpHeaderName");
    assert!(proxy(&compiled.snapshot).hash_policy.is_empty());
}

#[test]
fn limits_of_the_service_need_requests() {
    let compiled = all(&[connections("dubbo"), router("  localRateLimit: {tokenBucket: {maxTokens: 1}}")].concat());
    assert_eq!(errors(&compiled)[0].0, "spec.localRateLimit");
}
