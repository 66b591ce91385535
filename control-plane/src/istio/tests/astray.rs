//! What leads to our clusters and is no call.

use super::{
    check::{found, other},
    *,
};

fn services() -> String {
    service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}")
        + &service("bills", "10.96.0.13", "{name: tcp-metaprotocol-thrift, port: 9090}")
        + &service("web", "10.96.0.14", "{name: http, port: 80}")
        + &service("db", "10.96.0.15", "{name: tcp, port: 9091}")
}

/// The fields that are wrong.
fn wrong(kind: &str, spec: Value) -> Vec<String> {
    let all = found(&services(), |facts| facts.others.push(other(kind, spec)));
    let of_kind = |problem: &String| problem.strip_prefix(&format!("error: {kind} shop/theirs: ")).map(str::to_owned);
    all.iter().filter_map(of_kind).map(|problem| problem.split(": ").next().unwrap().to_owned()).collect()
}

fn to(host: &str, port: Option<u16>) -> Value {
    let mut destination = serde_json::json!({"host": host});
    if let Some(port) = port {
        destination["port"] = serde_json::json!({"number": port});
    }
    serde_json::json!([{"route": [{"destination": destination}]}])
}

#[test]
fn connections_and_http_of_other_services_are_found() {
    let routes = |host: &str, kind: &str, routes: Value| {
        let mut spec = serde_json::json!({"hosts": [host]});
        spec[kind] = routes;
        wrong("VirtualService", spec)
    };
    assert_eq!(
        routes("db", "tcp", to("orders", None)),
        ["spec.tcp[0].route[0].destination.host"],
        "the number is kept"
    );
    assert_eq!(routes("db", "tls", to("bills", Some(9090))), ["spec.tls[0].route[0].destination.host"]);
    assert_eq!(routes("web", "http", to("orders", Some(9091))), ["spec.http[0].route[0].destination.host"]);
    assert!(routes("web", "http", to("orders", None)).is_empty(), "there is no such port");
    assert!(routes("web", "http", to("web", None)).is_empty());
    assert!(routes("orders", "tcp", to("orders", None)).is_empty(), "for callers without the module");
    let edge = serde_json::json!({"hosts": ["db"], "gateways": ["edge"], "tcp": to("orders", Some(9091))});
    assert!(wrong("VirtualService", edge).is_empty(), "looked at where gateways are");
}

#[test]
fn a_listener_of_a_sidecar_resource_is_found() {
    let egress = |egress: Value| wrong("Sidecar", serde_json::json!({"egress": [egress]}));
    let port = serde_json::json!({"number": 9091, "protocol": "TCP", "name": "rpc"});
    for hosts in ["./*", "shop/orders.shop.svc.cluster.local", "*/*.svc.cluster.local"] {
        assert_eq!(egress(serde_json::json!({"hosts": [hosts], "port": port})), ["spec.egress[0].port"], "{hosts}");
    }
    for hosts in ["~/*", "elsewhere/*", "./web.shop.svc.cluster.local"] {
        assert!(egress(serde_json::json!({"hosts": [hosts], "port": port})).is_empty(), "{hosts}");
    }
    assert!(egress(serde_json::json!({"hosts": ["./*"]})).is_empty());
    let bound = |address: &str| {
        let port = serde_json::json!({"number": 9091, "name": "rpc"});
        egress(serde_json::json!({"hosts": ["./*"], "port": port, "bind": address})).len()
    };
    assert_eq!([bound("10.96.0.12"), bound("127.0.0.1")], [0, 1], "the first is our listener");
    let bills = |protocol: &str| {
        let port = serde_json::json!({"number": 9090, "protocol": protocol, "name": "rpc"});
        egress(serde_json::json!({"hosts": ["./*"], "port": port})).len()
    };
    assert_eq!([bills("TCP"), bills("HTTP"), bills("")], [0, 1, 0]);
}

#[test]
fn what_a_sidecar_says_of_its_own_ports_must_leave_a_place_for_calls() {
    let of = |port: &str, number: u16, protocol: &str| {
        let spec = serde_json::json!({"workloadSelector": {"labels": {"app": "orders"}},
            "ingress": [{"port": {"number": number, "protocol": protocol, "name": "rpc"}, "defaultEndpoint": "127.0.0.1:1"}]});
        let all = found(&service("orders", "10.96.0.12", port), |facts| facts.others.push(other("Sidecar", spec)));
        all.into_iter().filter(|problem| problem.contains("spec.ingress[0].port.protocol")).count()
    };
    let native = "{name: rpc, port: 9091, targetPort: 9191, appProtocol: meltemi.dev/thrift}";
    let tcp = "{name: tcp-metaprotocol-thrift, port: 9091, targetPort: 9191}";
    for (port, protocol, wrong) in [
        (native, "", 0),
        (native, "HTTP", 0),
        (native, "TCP", 1),
        (native, "TLS", 1),
        (tcp, "", 0),
        (tcp, "TCP", 0),
        (tcp, "HTTP", 1),
    ] {
        assert_eq!(of(port, 9191, protocol), wrong, "{port} {protocol}");
    }
    assert_eq!(of(native, 9091, "TCP"), 0, "not the number in the pod");
}
