#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod api_routes;
mod astray;
mod check;
mod entries;
mod gateway;
mod passthrough;
mod places;
mod several;
mod tcp;
mod virtual_service;
mod wasm;

use serde_json::Value;

use super::{Compiled, Desired, DesiredKind, Facts, Options, Planned, Shape, Workload, XdsService, compile};
use crate::{model::Model, source::Folder};

/// A Service in namespace `shop` with one port, whose pods have `app: <name>`.
fn service(name: &str, ip: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  clusterIP: {ip}\n  \
         selector: {{app: {name}}}\n  ports:\n  - {port}\n---\n"
    )
}

fn facts() -> Facts {
    let pod = |name: &str, module: bool| {
        let mut labels = std::collections::BTreeMap::from([("app".to_owned(), "orders".to_owned())]);
        if module {
            labels.insert("meltemi.dev/module".to_owned(), "1".to_owned());
        }
        Workload { namespace: "shop".to_owned(), name: name.to_owned(), labels }
    };
    Facts { workloads: vec![pod("orders-1", true), pod("orders-2", false)], ..Facts::default() }
}

/// Without the pods, whose problems are another test's.
fn compiled(yaml: &str) -> Compiled {
    let mut compiled = compiled_with(yaml, &facts());
    compiled.problems.retain(|problem| problem.field != "spec.selector");
    compiled
}

fn model(yaml: &str) -> Model {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), yaml).unwrap();
    let loaded = Folder::new(folder.path()).load();
    assert_eq!(loaded.problems, []);
    loaded.model
}

fn compiled_with(yaml: &str, facts: &Facts) -> Compiled {
    let xds = XdsService { host: "meltemi.meltemi-system.svc".to_owned(), port: 18000, tls: None };
    let options = Options { xds: Some(xds), ..Options::default() };
    compile(&model(yaml), facts, &options)
}

fn object<'c>(compiled: &'c Compiled, name: &str) -> &'c Desired {
    let names: Vec<&str> = compiled.desired.iter().map(|desired| desired.name.as_str()).collect();
    compiled.desired.iter().find(|desired| desired.name == name).unwrap_or_else(|| panic!("{name} is not in {names:?}"))
}

/// `applyTo operation place` of each patch.
fn patches(desired: &Desired) -> Vec<String> {
    let place = |patch: &Value| {
        let of = &patch["match"];
        let chain = &of["listener"]["filterChain"];
        let parts = [
            of["listener"]["name"].as_str().unwrap_or_default().to_owned(),
            of["listener"]["portNumber"].as_u64().map(|port| format!("*_{port}")).unwrap_or_default(),
            chain["destinationPort"].as_u64().map(|port| format!(":{port}")).unwrap_or_default(),
            chain["filter"]["name"]
                .as_str()
                .map(|name| format!(" {}", name.rsplit('.').next().unwrap()))
                .unwrap_or_default(),
            of["cluster"]["service"].as_str().unwrap_or_default().to_owned(),
            of["cluster"]["portNumber"].as_u64().map(|port| format!(":{port}")).unwrap_or_default(),
        ];
        parts.concat()
    };
    let all = config_patches(desired);
    let of = |patch: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        format!("{} {} {}", text(&patch["applyTo"]), text(&patch["patch"]["operation"]), place(patch).trim())
            .trim()
            .to_owned()
    };
    all.iter().map(of).collect()
}

fn config_patches(desired: &Desired) -> Vec<Value> {
    desired.spec.value()["configPatches"].as_array().unwrap().clone()
}

/// Configuration of our filter of this name.
fn config(desired: &Desired, filter: &str) -> Value {
    let all = config_patches(desired);
    let config = all.iter().map(|patch| &patch["patch"]["value"]["typed_config"]).find(|c| c["filter_name"] == filter);
    serde_json::from_str(config.unwrap()["filter_config"]["value"].as_str().unwrap()).unwrap()
}

fn planned(compiled: &Compiled, host: &str) -> Planned {
    compiled.plan.iter().find(|planned| planned.host == host).unwrap().clone()
}

#[test]
fn a_native_port_gets_declare_inlet_and_bridge_on_both_sides() {
    let port = "{name: rpc, port: 9091, targetPort: 9191, appProtocol: meltemi.dev/thrift}";
    let compiled = compiled(&service("orders", "10.96.0.12", port));
    assert_eq!(compiled.problems, []);
    let client = object(&compiled, "meltemi-port-9091-thrift");
    assert_eq!((client.kind, client.namespace.as_str()), (DesiredKind::EnvoyFilter, "istio-system"));
    assert_eq!(client.owner, None, "an owner must be in the same namespace");
    assert_eq!(client.spec.value()["workloadSelector"]["labels"], serde_json::json!({"meltemi.dev/module": "1"}));
    assert_eq!(
        patches(client),
        [
            "LISTENER_FILTER INSERT_BEFORE *_9091",
            "NETWORK_FILTER INSERT_BEFORE *_9091 http_connection_manager",
            "HTTP_FILTER REMOVE *_9091 http_connection_manager",
            "CLUSTER MERGE orders.shop.svc.cluster.local:9091",
            "EXTENSION_CONFIG ADD",
            "EXTENSION_CONFIG ADD",
        ]
    );
    let authority = "orders.shop.svc.cluster.local:9091";
    let destination = serde_json::json!([{"address": "10.96.0.12", "port": 9091, "authority": authority}]);
    assert_eq!(config(client, "inlet")["destinations"], destination);
    assert_eq!(config(client, "declare")["destinations"], serde_json::json!([{"address": "10.96.0.12", "port": 9091}]));
    let server = object(&compiled, "meltemi-in-orders-9091");
    assert_eq!(server.namespace, "shop");
    assert_eq!(server.owner.as_ref().map(|owner| owner.kind.as_str()), Some("Service"));
    let selector = serde_json::json!({"meltemi.dev/module": "1", "app": "orders"});
    assert_eq!(server.spec.value()["workloadSelector"]["labels"], selector);
    assert_eq!(
        patches(server),
        [
            "LISTENER_FILTER ADD virtualInbound",
            "EXTENSION_CONFIG ADD",
            "NETWORK_FILTER INSERT_BEFORE virtualInbound:9191 http_connection_manager",
            "CLUSTER MERGE :9191",
            "EXTENSION_CONFIG ADD",
        ]
    );
    let declare = config(server, "declare");
    assert_eq!(declare["destinations"], serde_json::json!([{"port": 9191}]));
    assert_eq!(declare["application_protocols"], serde_json::json!(["istio-http/1.1", "h2c"]));
    let planned = planned(&compiled, "orders.shop.svc.cluster.local");
    assert_eq!((planned.shape, planned.codec.as_deref()), (Some(Shape::Native), Some("thrift")));
    assert_eq!(
        planned.objects,
        ["EnvoyFilter istio-system/meltemi-port-9091-thrift", "EnvoyFilter shop/meltemi-in-orders-9091",]
    );
    assert_eq!(planned.workloads, ["shop/orders-1"]);
    assert_eq!(planned.without_module, ["shop/orders-2"]);
}

#[test]
fn every_patch_names_the_proxies_that_know_modules() {
    let ports =
        "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}\n  - {name: tcp-metaprotocol-dubbo, port: 20880}";
    let compiled = compiled(&service("orders", "10.96.0.12", ports));
    let all = compiled.desired.iter().flat_map(config_patches);
    let version = |patch: Value| patch["match"]["proxy"]["proxyVersion"].as_str().unwrap().to_owned();
    let versions: std::collections::BTreeSet<String> = all.map(version).collect();
    assert_eq!(versions.len(), 1);
    let version = regex::Regex::new(versions.first().unwrap()).unwrap();
    for (name, knows) in [("1.31.0", true), ("1.40.2", true), ("2.0.0", true), ("1.30.5", false), ("1.9.1", false)] {
        assert_eq!(version.is_match(name), knows, "{name}");
    }
    let selected = |desired: &&Desired| desired.spec.value()["workloadSelector"]["labels"]["meltemi.dev/module"] == "1";
    assert!(compiled.desired.iter().all(|desired| selected(&desired)));
}

#[test]
fn names_of_filter_configurations_are_unique() {
    let port = |number| format!("{{name: rpc-{number}, port: {number}, appProtocol: meltemi.dev/thrift}}");
    let ports = format!("{}\n  - {}", port(9091), port(9092));
    let compiled = compiled(&(service("orders", "10.96.0.12", &ports) + &service("users", "10.96.0.13", &port(9091))));
    let all = compiled.desired.iter().flat_map(config_patches);
    let names = all.filter(|patch| patch["applyTo"] == "EXTENSION_CONFIG");
    let mut names: Vec<String> =
        names.map(|patch| patch["patch"]["value"]["name"].as_str().unwrap().to_owned()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    // A pair for each number, and one for each server's side.
    assert_eq!((names.len(), count), (10, 10));
}

#[test]
fn services_of_a_port_number_share_patches_if_their_inlets_are_the_same() {
    let ports = |codec: &str| format!("{{name: rpc, port: 9091, appProtocol: meltemi.dev/{codec}}}");
    let protocol = "apiVersion: meltemi.dev/v1alpha1\nkind: ApplicationProtocol\nmetadata: {name: big}\n\
                    spec: {protocol: big, codec: thrift, maxFrameBytes: 1000}\n---\n";
    let services = [
        service("orders", "10.96.0.12", &ports("thrift")),
        service("users", "10.96.0.13", &ports("thrift")),
        service("stock", "10.96.0.14", &ports("dubbo")),
        service("films", "10.96.0.15", &ports("big")),
        service("nobody", "None", &ports("thrift")),
    ];
    let compiled = compiled(&(protocol.to_owned() + &services.concat()));
    assert_eq!(compiled.problems, []);
    let numbers = compiled.desired.iter().filter(|desired| desired.name.starts_with("meltemi-port-"));
    let tables: std::collections::BTreeMap<&str, Vec<String>> = numbers
        .map(|desired| {
            let table = config(desired, "inlet")["destinations"].clone();
            let hosts = table.as_array().unwrap().iter().map(|to| to["authority"].as_str().unwrap().to_owned());
            (desired.name.as_str(), hosts.map(|host| host.split('.').next().unwrap().to_owned()).collect())
        })
        .collect();
    let big = tables.keys().find(|name| name.starts_with("meltemi-port-9091-thrift-")).copied().unwrap();
    assert_eq!(tables["meltemi-port-9091-thrift"], ["orders", "users"]);
    assert_eq!(
        (&tables["meltemi-port-9091-dubbo"], &tables[big]),
        (&vec!["stock".to_owned()], &vec!["films".to_owned()])
    );
    // It has no pods, and so no listeners.
    assert!(
        patches(object(&compiled, "meltemi-port-9091-thrift"))
            .contains(&"CLUSTER MERGE nobody.shop.svc.cluster.local:9091".to_owned())
    );
    let alone = self::compiled(&service("nobody", "None", &ports("thrift")));
    let bridge = ["CLUSTER MERGE nobody.shop.svc.cluster.local:9091"];
    assert_eq!(patches(object(&alone, "meltemi-port-9091-thrift")), bridge, "an empty table would mean everything");
}

#[test]
fn where_others_speak_http_istios_filter_is_taken_out_by_name() {
    let ours = service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}");
    let removals = |more: &str| -> Vec<String> {
        let compiled = compiled(&(ours.clone() + more));
        let all = patches(object(&compiled, "meltemi-port-9091-thrift"));
        all.into_iter().filter(|patch| patch.starts_with("HTTP_FILTER")).collect()
    };
    let all_of_the_number = ["HTTP_FILTER REMOVE *_9091 http_connection_manager"];
    assert_eq!(removals(&service("web", "10.96.0.13", "{name: http, port: 80}")), all_of_the_number);
    assert_eq!(
        removals(&service("aeraki", "10.96.0.13", "{name: tcp-metaprotocol-thrift, port: 9091}")),
        all_of_the_number
    );
    let by_name = ["HTTP_FILTER REMOVE 10.96.0.12_9091 http_connection_manager"];
    assert_eq!(removals(&service("web", "10.96.0.13", "{name: http, port: 9091}")), by_name);
    let named = service("named", "10.96.0.13", "{name: http-rpc, port: 9091}")
        .replace("namespace: shop}", "namespace: shop, annotations: {meltemi.dev/codec: thrift}}");
    assert_eq!(removals(&named), by_name);
}

#[test]
fn services_of_a_port_number_that_are_too_many_for_one_object_are_in_several() {
    use std::collections::{BTreeMap, BTreeSet};
    let port = "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}";
    let hosts = |count: u16| -> BTreeMap<String, BTreeSet<String>> {
        let one = |n: u16| service(&format!("s{n}"), &format!("10.96.{}.{}", n / 250, n % 250 + 1), port);
        let compiled = compiled(&(0..count).map(one).collect::<String>());
        let objects = compiled.desired.iter().filter(|desired| desired.name.starts_with("meltemi-port-9091-thrift"));
        let hosts = |desired: &Desired| {
            let all = patches(desired);
            let bridged: BTreeSet<String> =
                all.iter().filter_map(|p| Some(p.strip_prefix("CLUSTER MERGE ")?.replace(":9091", ""))).collect();
            let display = desired.display();
            let told = compiled.plan.iter().filter(|planned| planned.objects.contains(&display));
            assert_eq!(bridged, told.map(|planned| planned.host.clone()).collect());
            assert_eq!(config(desired, "inlet")["destinations"].as_array().unwrap().len(), bridged.len());
            let size = desired.spec.value().to_string().len();
            assert!(size < 1_000_000, "{size}");
            (desired.name.clone(), bridged)
        };
        objects.map(hosts).collect()
    };
    let (few, many) = (hosts(1400), hosts(2000));
    let names = |parts: &BTreeMap<String, BTreeSet<String>>| parts.keys().cloned().collect::<Vec<_>>();
    let name = |part: &str| format!("meltemi-port-9091-thrift{part}");
    assert_eq!(names(&few), ["", "-1"].map(name));
    assert_eq!(names(&many), ["", "-1", "-2", "-3"].map(name));
    // A new one takes over from one alone.
    for (old, new) in [("", "-2"), ("-1", "-3")] {
        let now: BTreeSet<String> = many[&name(old)].union(&many[&name(new)]).cloned().collect();
        assert!(few[&name(old)].is_subset(&now));
    }
}

#[test]
fn an_http_named_port_is_taken_by_destination_in_the_shared_listener() {
    let yaml = service("orders", "10.96.0.12", "{name: http-rpc, port: 9092}")
        .replace("namespace: shop}", "namespace: shop, annotations: {meltemi.dev/codec: thrift}}");
    let compiled = compiled(&yaml);
    let client = object(&compiled, "meltemi-out");
    assert_eq!(
        patches(client)[..2],
        [
            "LISTENER_FILTER INSERT_FIRST 0.0.0.0_9092",
            "NETWORK_FILTER INSERT_BEFORE 0.0.0.0_9092 http_connection_manager",
        ]
    );
    assert!(!patches(client).iter().any(|patch| patch.starts_with("HTTP_FILTER")), "others use it");
    let destination = serde_json::json!([{"address": "10.96.0.12", "port": 9092}]);
    assert_eq!(config(client, "declare")["destinations"], destination);
    let server = object(&compiled, "meltemi-in-orders-9092");
    assert!(patches(server).iter().all(|patch| !patch.starts_with("LISTENER_FILTER")));
}

#[test]
fn a_headless_service_has_a_listener_for_each_pod() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: orders-1\n  namespace: shop\n  \
                 labels: {kubernetes.io/service-name: orders}\nports:\n- {name: rpc, port: 7000}\nendpoints:\n\
                 - {addresses: [10.0.0.7]}\n- {addresses: [10.0.0.8]}\n";
    let port = "{name: rpc, port: 9091, targetPort: thrift, appProtocol: meltemi.dev/thrift}";
    let compiled = compiled(&(service("orders", "None", port) + slice));
    let number = object(&compiled, "meltemi-port-9091-thrift");
    let table = config(number, "declare")["destinations"].clone();
    assert_eq!(
        table,
        serde_json::json!([{"address": "10.0.0.7", "port": 9091}, {"address": "10.0.0.8", "port": 9091}])
    );
    // The port's number in the pods is what the slices say for its name.
    assert!(patches(object(&compiled, "meltemi-in-orders-9091")).contains(&"CLUSTER MERGE :7000".to_owned()));
}

#[test]
fn two_headless_services_may_have_the_same_port() {
    let port = "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}";
    let compiled = compiled(&(service("orders", "None", port) + &service("users", "None", port)));
    assert_eq!(compiled.problems, []);
    assert_eq!(compiled.plan.len(), 2);
}

#[test]
fn a_port_that_is_not_ours_is_left_alone_and_the_plan_says_why() {
    let compiled = compiled(&service("orders", "10.96.0.11", "{name: http, port: 80}"));
    assert_eq!(compiled.desired, []);
    let planned = planned(&compiled, "orders.shop.svc.cluster.local");
    assert!(planned.notes[0].starts_with("no codec"), "{planned:?}");
}
