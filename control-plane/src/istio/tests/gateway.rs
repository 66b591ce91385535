//! Gateways whose ports take calls.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    check::{found, other},
    compiled, compiled_with, config, config_patches, object, patches, planned, service,
};
use crate::{
    istio::{Compiled, Facts, Workload},
    problem::Severity,
};

const ORDERS: &str = "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}";

/// Istio's, in namespace `edge`, with a server for each `port protocol host`.
fn gateway(name: &str, annotation: &str, servers: &[&str]) -> String {
    let mut yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: edge, annotations: \
         {{{annotation}}}}}\nspec:\n  selector: {{istio: edge}}\n  servers:\n"
    );
    for server in servers {
        let [port, protocol, host] = server.split(' ').collect::<Vec<_>>().try_into().unwrap();
        yaml += &format!("  - {{port: {{number: {port}, name: p{port}, protocol: {protocol}}}, hosts: ['{host}']}}\n");
    }
    yaml + "---\n"
}

fn ours(servers: &[&str]) -> String {
    gateway("calls", "meltemi.dev/codec: thrift", servers)
}

fn orders() -> String {
    service("orders", "10.96.0.12", ORDERS)
}

fn problems(compiled: &Compiled) -> Vec<String> {
    compiled.problems.iter().map(ToString::to_string).collect()
}

/// `portNumber[/sni]` of each patch of listeners.
fn places(compiled: &Compiled, name: &str) -> Vec<String> {
    let all = config_patches(object(compiled, name));
    let of = |patch: &Value| {
        let listener = patch["match"].get("listener")?;
        let sni = listener["filterChain"]["sni"].as_str().map(|sni| format!("/{sni}")).unwrap_or_default();
        Some(format!("{}{sni}", listener["portNumber"]))
    };
    all.iter().filter_map(of).collect()
}

#[test]
fn an_http_port_gets_the_inlet_and_the_clusters_the_bridge() {
    let compiled = compiled(
        &(ours(&["9090 HTTP orders.test"])
            + &orders()
            + &service("users", "10.96.0.13", "{name: rpc, port: 20880, appProtocol: meltemi.dev/dubbo}")
            + &service("bills", "10.96.0.14", "{name: tcp-metaprotocol-thrift, port: 9092}")),
    );
    assert_eq!(compiled.problems, []);
    let filter = object(&compiled, "meltemi-gateway-edge-calls");
    assert_eq!((filter.namespace.as_str(), &filter.owner), ("istio-system", &None), "its proxies may be anywhere");
    assert_eq!(filter.spec.value()["workloadSelector"]["labels"], json!({"istio": "edge", "meltemi.dev/module": "1"}));
    assert_eq!(
        patches(filter),
        [
            "NETWORK_FILTER INSERT_BEFORE *_9090 http_connection_manager",
            "HTTP_FILTER REMOVE *_9090 http_connection_manager",
            "EXTENSION_CONFIG ADD",
            "CLUSTER MERGE bills.shop.svc.cluster.local:9092",
            "CLUSTER MERGE orders.shop.svc.cluster.local:9091",
        ],
        "whatever speaks the same, and nothing else"
    );
    assert_eq!(places(&compiled, "meltemi-gateway-edge-calls"), ["9090", "9090"]);
    let contexts = config_patches(filter).into_iter().map(|patch| patch["match"]["context"].clone());
    assert!(contexts.into_iter().all(|context| context == "GATEWAY" || context == "ANY"));
    assert_eq!(config(filter, "inlet")["authority"], "orders.test:9090");
    let planned = planned(&compiled, "Gateway edge/calls");
    assert_eq!((planned.port, planned.codec.as_deref()), (9090, Some("thrift")));
    assert_eq!(planned.objects, ["EnvoyFilter istio-system/meltemi-gateway-edge-calls"]);
}

#[test]
fn a_gateway_without_our_annotation_is_left_alone() {
    let compiled = compiled(&gateway("web", "", &["80 HTTP *"]));
    assert_eq!((compiled.desired, compiled.problems, compiled.plan), (vec![], vec![], vec![]));
}

#[test]
fn listeners_are_on_the_ports_of_pods() {
    let front = "apiVersion: v1\nkind: Service\nmetadata: {name: front, namespace: edge}\nspec:\n  selector: {istio: edge, app: a}\n  \
                 ports: [{name: rpc, port: 9090, targetPort: 19090}]\n---\n";
    let places = |yaml: &str| places(&compiled(yaml), "meltemi-gateway-edge-calls");
    let gateway = ours(&["9090 HTTP *", "9999 HTTP *"]);
    let all = ["19090", "19090", "9999", "9999"];
    assert_eq!(places(&(gateway.clone() + front)), all, "the number itself where no Service has it");
    let opted_out = front.replace(
        "{name: front,",
        "{name: front, labels: {experimental.istio.io/disable-gateway-port-translation: ''},",
    );
    assert_eq!(places(&(gateway + &opted_out))[0], "9090");
}

#[test]
fn of_servers_with_tls_on_one_port_each_has_its_calls() {
    let compiled = compiled(&(ours(&["443 HTTPS a.test", "443 HTTPS b.test"]) + &orders()));
    assert_eq!(compiled.problems, []);
    let name = "meltemi-gateway-edge-calls";
    assert_eq!(places(&compiled, name), ["443/a.test", "443/a.test", "443/b.test", "443/b.test"]);
    let all = object(&compiled, name).spec.value()["configPatches"].to_string();
    assert!(all.contains("a.test:443") && all.contains("b.test:443"));
}

#[test]
fn what_cannot_take_calls_is_reported() {
    for (yaml, field, words) in [
        (
            gateway("calls", "meltemi.dev/codec: gopher", &["9090 HTTP *"]),
            "metadata.annotations[meltemi.dev/codec]",
            "gopher",
        ),
        (ours(&["9090 TCP *"]), "spec.servers[0].protocol", "takes connections"),
        (ours(&["9090 HTTP *.test"]), "spec.servers[0].hosts", "no host name"),
        (
            ours(&["9090 HTTP *"]) + &gateway("web", "", &["9090 HTTP *"]),
            "spec.servers[0].port",
            "Gateway edge/web takes HTTP",
        ),
        (ours(&["443 HTTPS *"]) + &gateway("web", "", &["443 HTTPS web.test"]), "spec.servers[0].port", "takes HTTP"),
        (
            ours(&["9090 HTTP a.test"]) + &gateway("more", "meltemi.dev/codec: dubbo", &["9090 HTTP b.test"]),
            "spec.servers[0].port",
            "Gateway edge/calls takes other calls",
        ),
    ] {
        let compiled = compiled(&yaml);
        assert_eq!(compiled.problems.len(), 1, "{:?}", problems(&compiled));
        let problem = &compiled.problems[0];
        assert!(problem.field == field && problem.reason.contains(words), "{problem}");
    }
    let apart = ours(&["9090 HTTP *"]) + &gateway("web", "", &["9090 HTTP *"]).replace("{istio: edge}", "{istio: web}");
    assert_eq!(problems(&compiled(&apart)), Vec::<String>::new(), "other proxies");
}

#[test]
fn a_gateway_of_the_gateway_api_is_known_by_its_service() {
    let gateway = |more: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: calls, namespace: shop, annotations: \
             {{meltemi.dev/codec: thrift}}}}\nspec:\n  gatewayClassName: istio\n{more}  listeners:\n  - {{name: rpc, port: \
             9090, protocol: HTTP, hostname: orders.test}}\n---\n"
        )
    };
    let made = service("calls-istio", "10.96.0.20", "{name: rpc, port: 9090}");
    let compiled = compiled(&(gateway("") + &made + &orders()));
    assert_eq!(compiled.problems, []);
    let filter = object(&compiled, "meltemi-api-gateway-calls-calls-istio");
    assert_eq!(filter.namespace, "shop");
    assert_eq!(filter.owner.as_ref().map(|owner| owner.group.as_str()), Some("gateway.networking.k8s.io"));
    assert_eq!(
        filter.spec.value()["workloadSelector"]["labels"],
        json!({"app": "calls-istio", "meltemi.dev/module": "1"})
    );
    assert_eq!(config(filter, "inlet")["authority"], "orders.test:9090");
    let own = gateway("  addresses: [{type: Hostname, value: front.shop.svc.cluster.local}]\n");
    let compiled =
        super::compiled(&(own.clone() + &service("front", "10.96.0.21", "{name: rpc, port: 9090, targetPort: 19090}")));
    assert_eq!(places(&compiled, "meltemi-api-gateway-calls-front"), ["19090", "19090"]);
    let compiled = super::compiled(&own);
    assert_eq!(compiled.desired, [], "nothing is known of its pods");
    assert!(planned(&compiled, "Gateway shop/calls").notes.iter().any(|note| note.contains("no Service")));
}

#[test]
fn a_router_of_a_tcp_port_has_routes_of_istiod_at_gateways_alone() {
    let router = "apiVersion: meltemi.dev/v1alpha1
kind: MetaRouter
metadata: {name: bills, namespace: shop}
spec:
  hosts: [bills]
  gateways: [edge/calls]
  localRateLimit: {tokenBucket: {maxTokens: 1, tokensPerFill: 1, fillInterval: 1s}}
  routes:
  - {match: {attributes: {n: {range: {start: 1, end: 2}}}}, route: [{destination: {host: bills}}]}
  - {route: [{destination: {host: bills}}]}
---
";
    let port = "{name: tcp-metaprotocol-thrift, port: 9092}";
    let yaml = ours(&["9090 HTTP bills.shop.svc.cluster.local"]) + &service("bills", "10.96.0.14", port);
    let compiled = compiled(&(yaml.clone() + router));
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", problems(&compiled)) };
    assert!(problem.severity == Severity::Warning && problem.reason.contains("gateways are without"), "{problem}");
    let routes = object(&compiled, "meltemi-bills");
    assert_eq!(routes.spec.value()["gateways"], json!(["edge/calls"]), "sidecars have theirs from us");
    assert_eq!(routes.spec.value()["http"].as_array().map(Vec::len), Some(1));
    let without = router.replace("  gateways: [edge/calls]\n", "");
    assert!(super::compiled(&(yaml + &without)).desired.iter().all(|desired| desired.name != "meltemi-bills"));
}

#[test]
fn pods_of_a_gateway_without_the_module_are_named() {
    let pod = |name: &str, module: &[(&str, &str)]| Workload {
        namespace: "edge".to_owned(),
        name: name.to_owned(),
        labels: module.iter().chain(&[("istio", "edge")]).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    let workloads = vec![pod("edge-1", &[("meltemi.dev/module", "1")]), pod("edge-2", &[])];
    let compiled = compiled_with(&ours(&["9090 HTTP *"]), &Facts { workloads, ..Facts::default() });
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", problems(&compiled)) };
    assert!(problem.reason.contains("1 of its pods have no module") && problem.reason.contains("edge-2"), "{problem}");
    assert_eq!(planned(&compiled, "Gateway edge/calls").workloads, ["edge/edge-1"]);
    let everybody = compiled_with(&ours(&["9090 HTTP *"]).replace("{istio: edge}", "{}"), &Facts::default());
    assert_eq!(everybody.desired, []);
    assert!(problems(&everybody).concat().contains("spec.selector: must say which proxies take calls"));
}

#[test]
fn routes_that_no_call_can_take_are_found() {
    let yaml = ours(&["9090 HTTP orders.test"]) + &orders() + &service("web", "10.96.0.14", "{name: http, port: 80}");
    let of = |spec: Value| {
        let all = found(&yaml, |facts| {
            facts.workloads.clear();
            facts.others.push(other("VirtualService", spec));
        });
        assert!(all.len() < 2, "{all:?}");
        all.concat()
    };
    let http = |host: &str, to: &str| json!({"hosts": [host], "gateways": ["edge/calls"], "http": [{"route": [{"destination": {"host": to}}]}]});
    for host in ["orders.test", "*.test", "*"] {
        assert_eq!(of(http(host, "orders")), "", "{host}");
    }
    let wrong = of(http("users.test", "orders"));
    assert!(wrong.contains("spec.gateways[0]: calls through edge/calls are for orders.test:9090"), "{wrong}");
    let wrong = of(http("orders.test", "web"));
    assert!(wrong.contains("calls of Gateway edge/calls fail there"), "{wrong}");
    let elsewhere = json!({"hosts": ["users.test"], "gateways": ["calls"]});
    assert_eq!(of(elsewhere), "", "a gateway of another namespace");
    let tcp =
        json!({"hosts": ["*"], "gateways": ["edge/calls"], "tcp": [{"route": [{"destination": {"host": "orders"}}]}]});
    let wrong = of(tcp);
    assert!(wrong.contains("spec.tcp[0].route[0].destination.host") && wrong.contains("connections fail"), "{wrong}");
}

#[test]
fn somebody_elses_filter_at_a_port_of_ours_is_a_warning() {
    let filter = |labels: Value, of: Value| {
        let patch =
            json!({"applyTo": "NETWORK_FILTER", "match": of, "patch": {"operation": "INSERT_FIRST", "value": {}}});
        let mut filter =
            other("EnvoyFilter", json!({"workloadSelector": {"labels": labels}, "configPatches": [patch]}));
        Arc::make_mut(&mut filter).metadata.namespace = "istio-system".to_owned();
        let pod = Workload {
            namespace: "edge".to_owned(),
            name: "edge-1".to_owned(),
            labels: [("istio", "edge"), ("meltemi.dev/module", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        };
        let facts = Facts { workloads: vec![pod], others: vec![filter], ..Facts::default() };
        problems(&compiled_with(&ours(&["9090 HTTP orders.test"]), &facts))
    };
    for (labels, of) in [
        (Value::Null, json!({"context": "GATEWAY", "listener": {"portNumber": 9090}})),
        (json!({"istio": "edge"}), json!({"listener": {"name": "0.0.0.0_9090"}})),
        (Value::Null, json!({})),
    ] {
        let [one] = &filter(labels, of)[..] else { panic!() };
        assert!(one.contains("spec.configPatches[0]: changes the filters of Gateway edge/calls on port 9090"), "{one}");
    }
    for (labels, of) in [
        (Value::Null, json!({"context": "SIDECAR_INBOUND", "listener": {"portNumber": 9090}})),
        (Value::Null, json!({"context": "GATEWAY", "listener": {"portNumber": 80}})),
        (json!({"istio": "other"}), json!({"context": "GATEWAY"})),
    ] {
        assert_eq!(filter(labels, of), [""; 0]);
    }
}
