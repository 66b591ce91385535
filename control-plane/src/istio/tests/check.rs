//! What does not fit our ports, found in the user's own objects.

use std::sync::Arc;

use serde_json::Value;

use super::{Facts, compiled, compiled_with, facts, service};
use crate::{
    model::{Metadata, Object},
    problem::Origin,
};

pub(super) fn other(kind: &str, spec: Value) -> Arc<Object<Value>> {
    let origin = Origin { kind: kind.to_owned(), name: "shop/theirs".to_owned(), ..Origin::default() };
    let metadata = Metadata { name: "theirs".to_owned(), namespace: "shop".to_owned(), ..Metadata::default() };
    Arc::new(Object { origin, metadata, spec })
}

/// `field: reason` of all problems that `change` of the facts brings.
pub(super) fn found(yaml: &str, change: impl FnOnce(&mut Facts)) -> Vec<String> {
    let mut facts = facts();
    change(&mut facts);
    compiled_with(yaml, &facts).problems.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_without_the_module_are_named() {
    let port = "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}";
    let found = found(&service("orders", "10.96.0.12", port), |_| {});
    assert!(
        found.len() == 1 && found[0].contains("1 of its pods have no module") && found[0].contains("orders-2"),
        "{found:?}"
    );
}

#[test]
fn a_port_that_istio_takes_for_tcp_is_refused() {
    let port = "{name: rpc, port: 3306, appProtocol: meltemi.dev/thrift}";
    let compiled = compiled(&service("db", "10.96.0.12", port));
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", compiled.problems) };
    assert!(problem.reason.contains("plain TCP whatever its appProtocol"), "{problem}");
    assert_eq!(compiled.desired, [], "a bridge would fail every call");
}

#[test]
fn a_policy_with_http_fields_on_a_tcp_port_is_found() {
    let tcp = service("orders", "10.96.0.11", "{name: tcp-metaprotocol-thrift, port: 9090}");
    let policy = |action: &str, operation: Value| {
        other(
            "AuthorizationPolicy",
            serde_json::json!({"action": action, "rules": [{"to": [{"operation": operation}]}]}),
        )
    };
    let of = |yaml: &str, policy: Arc<Object<Value>>| {
        let all = found(yaml, |facts| facts.others.push(policy));
        all.into_iter().filter(|problem| problem.contains("AuthorizationPolicy")).collect::<Vec<_>>()
    };
    let paths = serde_json::json!({"paths": ["/hello"]});
    let denied = of(&tcp, policy("DENY", paths.clone()));
    assert!(
        denied.len() == 1 && denied[0].contains("spec.rules[0].to") && denied[0].contains("denies every call"),
        "{denied:?}"
    );
    assert!(of(&tcp, policy("ALLOW", paths.clone()))[0].contains("allows no call"));
    assert!(of(&tcp, policy("DENY", serde_json::json!({"ports": ["9090"]}))).is_empty(), "no field of HTTP");
    let elsewhere = serde_json::json!({"ports": ["80"], "paths": ["/hello"]});
    assert!(of(&tcp, policy("DENY", elsewhere)).is_empty(), "another port");
    let native = service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}");
    assert!(of(&native, policy("DENY", paths)).is_empty());
}

#[test]
fn fields_of_http_are_found_in_all_parts_of_a_rule_and_without_pods() {
    let tcp = service("orders", "10.96.0.11", "{name: tcp-metaprotocol-thrift, port: 9090}");
    let of = |rule: Value, labels: Value, with_pods: bool| {
        let spec = serde_json::json!({"selector": {"matchLabels": labels}, "rules": [rule]});
        let all = found(&tcp, |facts| {
            facts.others.push(other("AuthorizationPolicy", spec));
            if !with_pods {
                facts.workloads.clear();
            }
        });
        all.into_iter().find(|problem| problem.contains("AuthorizationPolicy"))
    };
    let app = || serde_json::json!({"app": "orders"});
    for (field, rule) in [
        ("from", serde_json::json!({"from": [{"source": {"requestPrincipals": ["*"]}}]})),
        ("when", serde_json::json!({"when": [{"key": "request.headers[user]", "values": ["a"]}]})),
        ("to", serde_json::json!({"to": [{"operation": {"ports": ["9090"], "methods": ["POST"]}}]})),
    ] {
        for with_pods in [true, false] {
            let said = of(rule.clone(), app(), with_pods).unwrap_or_default();
            assert!(said.contains(&format!("spec.rules[0].{field}")), "{field} {with_pods}: {said}");
        }
    }
    let when = serde_json::json!({"when": [{"key": "request.headers[user]", "values": ["a"]}]});
    assert_eq!(of(when.clone(), serde_json::json!({"app": "users"}), false), None, "of pods of another service");
    let elsewhere = serde_json::json!({"to": [{"operation": {"ports": ["80"]}}], "when": when["when"]});
    assert_eq!(of(elsewhere, app(), true), None, "of another port");
    let connection = serde_json::json!({"from": [{"source": {"principals": ["*"]}}], "when": [{"key": "source.ip", "values": ["10.0.0.1"]}]});
    assert_eq!(of(connection, app(), true), None);
}

#[test]
fn a_route_to_what_speaks_another_protocol_is_found() {
    let yaml = service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}")
        + &service("users", "10.96.0.13", "{name: rpc, port: 20880, appProtocol: meltemi.dev/dubbo}")
        + &service("web", "10.96.0.14", "{name: http, port: 80}");
    let to = |host: &str| {
        let spec = serde_json::json!({"hosts": ["orders"], "http": [{"route": [{"destination": {"host": host}}]}]});
        let all = found(&yaml, |facts| facts.others.push(other("VirtualService", spec)));
        all.into_iter().filter(|problem| problem.contains("VirtualService")).collect::<Vec<_>>()
    };
    assert!(to("orders").is_empty());
    for host in ["users", "web", "nobody"] {
        let wrong = to(host);
        assert!(wrong.len() == 1 && wrong[0].contains("spec.http[0].route[0].destination.host"), "{wrong:?}");
    }
    let mirrored = serde_json::json!({"hosts": ["orders"], "http": [{
        "route": [{"destination": {"host": "orders"}}],
        "mirror": {"host": "users"},
        "mirrors": [{"destination": {"host": "orders"}}, {"destination": {"host": "web"}}],
    }]});
    let wrong = found(&yaml, |facts| facts.others.push(other("VirtualService", mirrored)));
    for field in ["spec.http[0].mirror.host", "spec.http[0].mirrors[1].destination.host"] {
        assert_eq!(wrong.iter().filter(|problem| problem.contains(field)).count(), 1, "{wrong:?}");
    }
}

#[test]
fn somebody_elses_filter_in_our_listener_is_a_warning() {
    let yaml = service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}");
    let filter = |listener: Value| {
        other(
            "EnvoyFilter",
            serde_json::json!({"configPatches": [
            {"applyTo": "NETWORK_FILTER", "match": {"context": "SIDECAR_OUTBOUND", "listener": listener},
             "patch": {"operation": "INSERT_FIRST", "value": {}}}]}),
        )
    };
    let of = |listener: Value| {
        let all = found(&yaml, |facts| facts.others.push(filter(listener)));
        all.iter().filter(|problem| problem.contains("EnvoyFilter")).count()
    };
    assert_eq!(of(serde_json::json!({"name": "10.96.0.12_9091"})), 1);
    assert_eq!(of(serde_json::json!({})), 1);
    assert_eq!(of(serde_json::json!({"name": "10.96.0.99_9091"})), 0);
    assert_eq!(of(serde_json::json!({"portNumber": 80})), 0);
}

#[test]
fn http_routes_of_a_port_that_is_tcp_to_istio_are_found() {
    let yaml =
        service("orders", "10.96.0.11", "{name: tcp-metaprotocol-thrift, port: 9090}\n  - {name: http, port: 80}");
    let of = |spec: Value| {
        let all = found(&yaml, |facts| facts.others.push(other("VirtualService", spec)));
        all.into_iter().filter(|problem| problem.contains("has no effect")).collect::<Vec<_>>()
    };
    let routes = |matches: Value| serde_json::json!({"hosts": ["orders"], "http": [{"match": matches, "route": []}]});
    let [told] = &of(routes(serde_json::json!([{"port": 9090}])))[..] else { panic!() };
    let why = "error: VirtualService shop/theirs: spec.http[0]: has no effect: port 9090 of orders.shop.svc.cluster.local is TCP to Istio";
    assert!(told.starts_with(why), "{told}");
    assert!(of(routes(serde_json::json!([]))).is_empty(), "it is for port 80 as well");
    let mut of_gateway = routes(serde_json::json!([{"port": 9090}]));
    of_gateway["gateways"] = serde_json::json!(["edge"]);
    assert!(of(of_gateway).is_empty(), "gateways have it");
}
