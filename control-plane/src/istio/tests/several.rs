//! Services with ports of several protocols.

use super::{
    check::{found, other},
    *,
};

/// Service `orders` that speaks Thrift, Dubbo and HTTP; `users`, Dubbo alone; `moved`, Thrift on another number.
fn services(router: &str) -> String {
    let ports = "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}\n  - {name: dubbo, port: 20880, appProtocol: \
                 meltemi.dev/dubbo}\n  - {name: http, port: 80}";
    service("orders", "10.96.0.12", ports)
        + &service("users", "10.96.0.13", "{name: dubbo, port: 20880, appProtocol: meltemi.dev/dubbo}")
        + &service("moved", "10.96.0.14", "{name: rpc, port: 9191, appProtocol: meltemi.dev/thrift}")
        + router
}

fn router(routes: &str) -> String {
    format!(
        "apiVersion: meltemi.dev/v1alpha1\nkind: MetaRouter\nmetadata: {{name: orders, namespace: shop}}\nspec:\n  \
             hosts: [orders]\n  routes:\n{routes}"
    )
}

#[test]
fn a_router_is_for_each_codec_as_it_names_things_and_leaves_other_ports_alone() {
    let compiled = compiled(&services(&router(
        "  - {match: {attributes: {interface: {exact: a}}}, route: [{destination: {host: orders}}]}\n  - {deny: true}\n",
    )));
    assert_eq!(compiled.problems, []);
    let http = object(&compiled, "meltemi-orders").spec.value()["http"].clone();
    let matches: Vec<Value> = http.as_array().unwrap().iter().map(|route| route["match"].clone()).collect();
    let of = |port: u16, header: &str| serde_json::json!([{"headers": {header: {"exact": "a"}}, "withoutHeaders": {}, "port": port, "gateways": ["mesh"]}]);
    let on = |port: u16| serde_json::json!([{"port": port, "gateways": ["mesh"]}]);
    assert_eq!(matches, [of(9091, "interface"), of(20880, "x-meltemi-service"), on(9091), on(20880)]);
}

#[test]
fn a_route_that_fits_one_codec_is_left_out_for_the_other_and_told() {
    let compiled = compiled(&services(&router("  - {route: [{destination: {host: users}}]}\n")));
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", compiled.problems) };
    assert!(problem.reason.starts_with("left out for port 9091: "), "{problem}");
    assert_eq!(problem.severity, crate::problem::Severity::Warning);
    let http = object(&compiled, "meltemi-orders").spec.value()["http"].clone();
    assert_eq!(http.as_array().unwrap().len(), 1);
    assert_eq!(http[0]["match"], serde_json::json!([{"port": 20880, "gateways": ["mesh"]}]));
}

#[test]
fn gateways_have_the_routes_whatever_their_port() {
    let router = router("  - {deny: true}\n").replace("  routes:", "  gateways: [edge]\n  routes:");
    let compiled = compiled(&services(&router));
    let http = object(&compiled, "meltemi-orders").spec.value()["http"].clone();
    let [mesh, edge] = [serde_json::json!(["mesh"]), serde_json::json!(["edge"])];
    assert_eq!(http[0]["match"], serde_json::json!([{"port": 9091, "gateways": mesh}, {"gateways": edge}]));
    assert_eq!(http[1]["match"], serde_json::json!([{"port": 20880, "gateways": mesh}]));
}

#[test]
fn a_virtual_service_is_looked_at_port_by_port() {
    let yaml = services("");
    let of = |route: Value| {
        let spec = serde_json::json!({"hosts": ["orders"], "http": [route]});
        let all = found(&yaml, |facts| facts.others.push(other("VirtualService", spec)));
        all.into_iter().filter(|problem| problem.contains("VirtualService")).count()
    };
    let to = |host: &str| serde_json::json!([{"destination": {"host": host}}]);
    assert_eq!(of(serde_json::json!({"route": to("orders")})), 0, "each port leads to its like");
    assert_eq!(of(serde_json::json!({"route": to("users")})), 1, "Thrift does not");
    assert_eq!(of(serde_json::json!({"match": [{"port": 20880}], "route": to("users")})), 0, "Dubbo does");
    assert_eq!(of(serde_json::json!({"match": [{"port": 9091}], "route": to("moved")})), 1, "the number is kept");
    let named = serde_json::json!([{"destination": {"host": "moved", "port": {"number": 9191}}}]);
    assert_eq!(of(serde_json::json!({"match": [{"port": 9091}], "route": named})), 0);
    assert_eq!(of(serde_json::json!({"match": [{"port": 80}], "route": to("nobody")})), 0, "not ours");
}
