//! Routes of the Gateway API that lead calls astray.

use serde_json::json;

use super::{
    check::{found, other},
    *,
};

fn services() -> String {
    service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}")
        + &service("moved", "10.96.0.13", "{name: rpc, port: 9191, appProtocol: meltemi.dev/thrift}")
        + &service("users", "10.96.0.14", "{name: rpc, port: 20880, appProtocol: meltemi.dev/dubbo}")
        + &service("bills", "10.96.0.15", "{name: tcp-metaprotocol-thrift, port: 9092}")
        + &service("web", "10.96.0.16", "{name: http, port: 80}")
}

/// The fields that are wrong in routes of both kinds.
fn wrong(yaml: &str, spec: &Value) -> Vec<String> {
    let [http, grpc] = ["HTTPRoute", "GRPCRoute"].map(|kind| {
        let all = found(yaml, |facts| facts.others.push(other(kind, spec.clone())));
        let prefix = format!("error: {kind} shop/theirs: ");
        let of_kind = all.iter().filter_map(|problem| problem.strip_prefix(&prefix));
        of_kind.map(|problem| problem.split(": ").next().unwrap().to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(http, grpc);
    http
}

fn route(parent: Value, backend: &Value) -> Value {
    json!({"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]})
}

fn of_service(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name})
}

const BACKEND: [&str; 1] = ["spec.rules[0].backendRefs[0]"];

#[test]
fn calls_that_are_led_to_another_protocol_or_to_nothing_are_found() {
    let of = |backend: Value| wrong(&services(), &route(of_service("orders"), &backend));
    for (name, port) in [("orders", 9091), ("moved", 9191), ("bills", 9092)] {
        assert!(of(json!({"name": name, "port": port})).is_empty(), "{name} speaks the same");
    }
    assert!(of(json!({"group": "test", "kind": "Function", "name": "f"})).is_empty(), "not ours to judge");
    let host = json!({"group": "networking.istio.io", "kind": "Hostname", "name": "users.shop.svc.cluster.local", "port": 20880});
    assert_eq!(of(host), BACKEND);
    for (name, port) in [("orders", 80), ("users", 20880), ("web", 80), ("nobody", 9091)] {
        assert_eq!(of(json!({"name": name, "port": port})), BACKEND, "{name}");
    }
    assert_eq!(of(json!({"name": "orders", "namespace": "other", "port": 9091})), BACKEND);
    let mirror = json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web", "port": 80}}});
    let spec = json!({"parentRefs": [of_service("orders")], "rules": [{"filters": [{"type": "URLRewrite"}, mirror]}]});
    assert_eq!(wrong(&services(), &spec), ["spec.rules[0].filters[1].requestMirror.backendRef"]);
}

#[test]
fn routes_of_a_port_that_is_tcp_to_istio_do_nothing() {
    let several = "{name: tcp-metaprotocol-thrift, port: 9092}\n  - {name: http, port: 80}";
    let yaml = services() + &service("both", "10.96.0.17", several);
    let on = |name: &str, port: Option<u16>| {
        let mut parent = of_service(name);
        if let Some(port) = port {
            parent["port"] = json!(port);
        }
        wrong(&yaml, &route(parent, &json!({"name": name, "port": port.unwrap_or(80)})))
    };
    assert_eq!(on("bills", Some(9092)), ["spec.parentRefs[0]"]);
    assert_eq!(on("both", Some(9092)), ["spec.parentRefs[0]"]);
    assert!(on("both", None).is_empty() && on("both", Some(80)).is_empty(), "there is HTTP that it is for");
}

#[test]
fn http_that_is_led_to_a_port_of_ours_is_found() {
    let of =
        |parent: Value, name: &str, port: u16| wrong(&services(), &route(parent, &json!({"name": name, "port": port})));
    assert_eq!(of(of_service("web"), "orders", 9091), BACKEND);
    assert!(of(of_service("web"), "web", 80).is_empty());
    let several = "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}\n  - {name: http, port: 80}";
    let yaml = service("both", "10.96.0.12", several);
    let on = |port: u16| {
        let parent = json!({"group": "", "kind": "Service", "name": "both", "port": port});
        wrong(&yaml, &route(parent, &json!({"name": "both", "port": 9091})))
    };
    assert!(on(9091).is_empty());
    assert_eq!(on(80), BACKEND);
}

#[test]
fn calls_of_a_gateway_are_looked_at_as_well() {
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: calls, namespace: shop, annotations: \
                   {meltemi.dev/codec: thrift}}\nspec:\n  gatewayClassName: istio\n  listeners:\n  - {name: rpc, port: 9090, \
                   protocol: HTTP}\n---\n";
    let yaml = services() + gateway;
    let of = |parent: Value, name: &str, port: u16| wrong(&yaml, &route(parent, &json!({"name": name, "port": port})));
    assert!(of(json!({"name": "calls"}), "orders", 9091).is_empty());
    assert_eq!(of(json!({"name": "calls"}), "users", 20880), BACKEND);
    assert!(of(json!({"name": "calls", "port": 80}), "users", 20880).is_empty(), "another listener");
    assert!(of(json!({"name": "calls", "namespace": "edge"}), "users", 20880).is_empty(), "another gateway");
}
