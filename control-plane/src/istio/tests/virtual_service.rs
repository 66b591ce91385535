//! What a MetaRouter becomes on native ports.

use super::*;

/// A native Service and a MetaRouter of it, with this in its spec.
fn routed(spec: &str) -> String {
    service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}")
        + "apiVersion: meltemi.dev/v1alpha1\nkind: MetaRouter\nmetadata: {name: orders, namespace: shop}\nspec:\n"
        + "  hosts: [orders]\n"
        + spec
}

#[test]
fn a_router_of_a_native_port_becomes_a_virtual_service() {
    let yaml = service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}")
        + "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: orders, namespace: shop}
spec:
  host: orders.shop.svc.cluster.local
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: meltemi.dev/v1alpha1
kind: MetaRouter
metadata: {name: orders, namespace: shop}
spec:
  hosts: [orders]
  gateways: [edge]
  routes:
  - match: {attributes: {method: {prefix: get}, user: {exact: a, invert: true}, env: {suffix: x.y}}}
    timeout: 1.5s
    retries: {attempts: 1, idempotent: true}
    requestMutation: [{key: seen, value: mesh}, {key: gone, remove: true}]
    route:
    - {destination: {host: orders, subset: v1}, weight: 80}
    - {destination: {host: orders, subset: v2}, weight: 20}
  - deny: true
";
    let compiled = compiled(&yaml);
    assert_eq!(compiled.problems, []);
    let service = object(&compiled, "meltemi-orders");
    assert_eq!((service.kind, service.namespace.as_str()), (DesiredKind::VirtualService, "shop"));
    assert_eq!(service.spec.value()["gateways"], serde_json::json!(["mesh", "edge"]), "sidecars keep the routes");
    let first = service.spec.value()["http"][0].clone();
    let headers = serde_json::json!({"x-meltemi-method": {"prefix": "get"}, "env": {"regex": ".*x\\.y"}});
    assert_eq!(first["match"][0]["headers"], headers);
    assert_eq!(first["match"][0]["withoutHeaders"], serde_json::json!({"user": {"exact": "a"}}));
    assert_eq!(first["timeout"], "1.5s");
    assert_eq!(first["route"][0]["destination"]["host"], "orders.shop.svc.cluster.local");
    assert_eq!(first["headers"]["request"], serde_json::json!({"set": {"seen": "mesh"}, "remove": ["gone"]}));
    assert_eq!(first["retries"]["retryOn"], "connect-failure,refused-stream,reset-before-request,reset,gateway-error");
    assert_eq!(service.spec.value()["http"][1]["directResponse"]["status"], 403);
}

#[test]
fn a_virtual_service_for_the_same_calls_is_told_and_so_is_the_router() {
    let yaml = routed("  routes: [{route: [{destination: {host: orders}}]}]\n");
    let of = |change: Value| {
        let mut spec = serde_json::json!({"hosts": ["else", "orders"], "http": [{"route": [{"destination": {"host": "orders"}}]}]});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let all = check::found(&yaml, |facts| facts.others.push(check::other("VirtualService", spec)));
        all.into_iter().filter(|problem| problem.contains("the older one")).collect::<Vec<_>>()
    };
    let told = of(serde_json::json!({}));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("MetaRouter shop/orders") && told[0].contains("VirtualService shop/theirs"), "{told:?}");
    assert!(told[1].contains("VirtualService shop/theirs: spec.hosts[1]"), "{told:?}");
    assert_eq!(of(serde_json::json!({"gateways": ["edge"]})), Vec::<String>::new(), "not for sidecars");
    assert_eq!(of(serde_json::json!({"hosts": ["users"]})), Vec::<String>::new());
}

#[test]
fn what_a_virtual_service_cannot_say_is_reported() {
    let yaml = routed(
        "  localRateLimit: {tokenBucket: {maxTokens: 1}}
  routes:
  - {match: {attributes: {n: {range: {start: 1, end: 2}}}}, route: [{destination: {host: orders}}]}
  - {hashPolicy: [user], route: [{destination: {host: orders}}]}
  - {route: [{destination: {host: nobody}}]}
  - {match: {attributes: {n: {regex: '(?x) a'}}}, route: [{destination: {host: orders}}]}
  - {match: {attributes: {n: {regex: a, ignoreCase: true}}}, route: [{destination: {host: orders}}]}
",
    );
    let compiled = compiled(&yaml);
    let fields: Vec<&str> = compiled.problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.routes[0].match.attributes.n",
            "spec.routes[1].hashPolicy",
            "spec.routes[2].route[0].destination.host",
            "spec.routes[3].match.attributes.n",
            "spec.routes[4].match.attributes.n",
            "spec.localRateLimit",
        ]
    );
}
