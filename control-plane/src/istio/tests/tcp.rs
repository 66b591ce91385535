//! The tcp shape, in both modes.

use serde_json::{Value, json};

use super::{super::patch::HCM, *};
use crate::{
    compile::Telemetry,
    snapshot::TypeUrl::{ExtensionConfig, Route},
};

/// The filter chains of a patch of listeners.
fn chains(desired: &Desired, patch: usize) -> Vec<Value> {
    config_patches(desired)[patch]["patch"]["value"]["filter_chains"].as_array().unwrap().clone()
}

#[test]
fn a_tcp_port_gets_our_manager_and_a_default_for_the_time_without_us() {
    let router = "apiVersion: metaprotocol.aeraki.io/v1alpha1\nkind: MetaRouter\nmetadata: {name: orders, namespace: shop}\n\
                  spec:\n  hosts: [orders.shop.svc.cluster.local]\n  localRateLimit:\n    \
                  tokenBucket: {maxTokens: 5, tokensPerFill: 5, fillInterval: 60s}\n";
    let compiled = compiled(&(service("orders", "10.96.0.11", "{name: tcp-metaprotocol-thrift, port: 9090}") + router));
    assert_eq!(compiled.problems, []);
    let client = object(&compiled, "meltemi-out");
    assert_eq!(
        patches(client),
        ["LISTENER MERGE 10.96.0.11_9090", "CLUSTER MERGE orders.shop.svc.cluster.local:9090", "EXTENSION_CONFIG ADD",]
    );
    let [chain, keeper] = &chains(client, 0)[..] else { panic!("{:?}", chains(client, 0)) };
    assert_eq!(chain["filter_chain_match"], json!({"transport_protocol": "raw_buffer"}));
    let [inlet, manager] = &chain["filters"].as_array().unwrap()[..] else { panic!("{chain}") };
    assert_eq!(inlet["name"], "meltemi.inlet.out.shop.orders.9090");
    let name = manager["name"].as_str().unwrap();
    let routes = &manager["config_discovery"]["default_config"]["route_config"]["virtual_hosts"][0]["routes"];
    assert_eq!(routes[0]["route"]["cluster"], "outbound|9090||orders.shop.svc.cluster.local");
    assert_eq!(keeper["filters"][0]["typed_config"]["rds"]["route_config_name"], name);
    assert_ne!(keeper["filters"][0]["name"], HCM, "istiod would unpack it, and patch it as its own");
    let names = |kind| compiled.snapshot.of(kind).map(|r| r.name.to_string()).collect::<Vec<_>>();
    assert!(names(ExtensionConfig).contains(&name.to_owned()));
    assert_eq!(names(Route), ["meltemi.hcm.in.orders.shop.svc.cluster.local:9090.9090", name]);
    // The limit of the service is counted where the server is, and comes with the routes: to connections that are open too.
    let limited = |name: &&std::sync::Arc<crate::snapshot::Resource>| {
        String::from_utf8_lossy(&name.any.value).contains("envoy.filters.http.local_ratelimit")
    };
    let limited: Vec<&str> = compiled.snapshot.of(Route).filter(limited).map(|r| &*r.name).collect();
    assert_eq!(limited, ["meltemi.hcm.in.orders.shop.svc.cluster.local:9090.9090"]);
    let managers =
        |compiled: &Compiled| compiled.snapshot.of(ExtensionConfig).map(|r| r.version.clone()).collect::<Vec<_>>();
    let without = self::compiled(&service("orders", "10.96.0.11", "{name: tcp-metaprotocol-thrift, port: 9090}"));
    assert_eq!(managers(&compiled), managers(&without), "limits change no manager");
    let inbound = object(&compiled, "meltemi-in-orders-9090");
    assert!(patches(inbound).contains(&"FILTER_CHAIN ADD virtualInbound".to_owned()), "{:?}", patches(inbound));
    assert!(compiled.desired.iter().any(|desired| desired.name == "meltemi-xds"));
}

fn of_connections() -> String {
    service("orders", "10.96.0.11", "{name: tcp-metaprotocol-thrift, port: 9090}")
        .replace("namespace: shop}", "namespace: shop, annotations: {meltemi.dev/mode.9090: connection}}")
}

#[test]
fn a_connection_mode_port_has_the_relay_and_a_tcp_proxy_that_waits_for_it() {
    let options = |xds, telemetry| Options { xds, telemetry, ..Options::default() };
    // Nothing of it comes from us.
    let compiled = compile(&model(&of_connections()), &facts(), &options(None, Telemetry::default()));
    let client = object(&compiled, "meltemi-out");
    assert_eq!(patches(client), ["LISTENER MERGE 10.96.0.11_9090", "EXTENSION_CONFIG ADD", "EXTENSION_CONFIG ADD"]);
    let [chain] = &chains(client, 0)[..] else { panic!("{:?}", chains(client, 0)) };
    let filters = chain["filters"].as_array().unwrap();
    let names: Vec<&str> = filters.iter().filter_map(|filter| filter["name"].as_str()).collect();
    assert_eq!(names, ["meltemi.relay.out.shop.orders.9090", "meltemi.proxy.out.shop.orders.9090"]);
    assert!(
        filters.iter().all(|filter| filter["config_discovery"]["config_source"]["ads"] == json!({})),
        "{filters:?}"
    );
    assert!(compiled.snapshot.of(ExtensionConfig).next().is_none());
    let [_, relay, proxy] = &config_patches(client)[..] else { panic!() };
    assert_eq!(
        (&relay["patch"]["value"]["name"], &proxy["patch"]["value"]["name"]),
        (&json!(names[0]), &json!(names[1]))
    );
    let proxy = &proxy["patch"]["value"]["typed_config"];
    assert_eq!(proxy["cluster"], "outbound|9090||orders.shop.svc.cluster.local");
    assert_eq!(
        (&proxy["upstream_connect_mode"], &proxy["max_early_data_bytes"], &proxy["idle_timeout"]),
        (&json!("ON_DOWNSTREAM_DATA"), &json!(1024 * 1024), &json!("0s"))
    );
    assert_eq!((&proxy["hash_policy"], &proxy["access_log"]), (&json!([]), &json!([])));
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: orders, namespace: shop}\nspec:\n  \
                host: orders\n  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}\n";
    let telemetry = Telemetry { istio: true, access_log: Some("/dev/stdout".to_owned()) };
    let told = compile(&model(&(of_connections() + rule)), &facts(), &options(None, telemetry));
    let client = object(&told, "meltemi-out");
    assert_eq!(chains(client, 0)[0]["filters"][0]["name"], "istio.stats", "no manager counts there");
    let proxy = config_patches(client)[2]["patch"]["value"]["typed_config"].clone();
    assert_eq!(proxy["hash_policy"], json!([{"source_ip": {}}]));
    assert_eq!(proxy["access_log"][0]["typed_config"]["path"], "/dev/stdout");
}

/// `name: vm`, with one port of the tcp shape.
fn entry(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         hosts: [{name}.test]\n  resolution: STATIC\n  addresses: [{spec}]\n  ports: [{{name: tcp-metaprotocol-thrift, \
         number: 9090, protocol: TCP}}]\n---\n"
    )
}

/// Which listener has our chain, and for which ranges of addresses.
fn places(compiled: &Compiled, name: &str) -> Vec<(String, Value)> {
    let client = object(compiled, "meltemi-out");
    let merged = patches(client).into_iter().enumerate();
    let of = |(index, text): (usize, String)| {
        let listener = text.strip_prefix("LISTENER MERGE ")?.to_owned();
        let chain = chains(client, index).swap_remove(0);
        let is_its = chain["name"] == format!("meltemi.hcm.out.{name}.test:9090");
        is_its.then(|| (listener, chain["filter_chain_match"]["prefix_ranges"].clone()))
    };
    merged.filter_map(of).collect()
}

#[test]
fn a_range_of_addresses_takes_no_others_in_the_listener_of_no_address() {
    let compiled = compiled(&(entry("vm", "10.1.0.1, 10.2.0.0/16, 'fd00::/64'") + &entry("other", "10.3.0.0/16")));
    let range = |ip: &str, bits: u8| json!({"address_prefix": ip, "prefix_len": bits});
    assert_eq!(
        places(&compiled, "vm"),
        [
            ("10.1.0.1_9090".to_owned(), Value::Null),
            ("0.0.0.0_9090".to_owned(), json!([range("10.2.0.0", 16), range("fd00::", 64)])),
            ("::_9090".to_owned(), json!([range("10.2.0.0", 16), range("fd00::", 64)])),
        ]
    );
    let shared = ["0.0.0.0_9090", "::_9090"].map(|name| (name.to_owned(), json!([range("10.3.0.0", 16)])));
    assert_eq!(places(&compiled, "other"), shared);
}

#[test]
fn no_two_chains_of_a_listener_match_the_same() {
    let compiled = compiled(&(entry("a", "") + &entry("b", "") + &entry("c", "10.3.0.0/16")));
    let taken = |name| places(&compiled, name).len();
    assert_eq!((taken("a"), taken("b"), taken("c")), (2, 0, 2), "Envoy would refuse the listener");
}

#[test]
fn who_comes_late_to_a_listener_is_told_whose_it_is() {
    let router = "apiVersion: meltemi.dev/v1alpha1\nkind: MetaRouter\nmetadata: {name: b, namespace: shop}\nspec: {hosts: \
                  [b.test], routes: [{route: [{destination: {host: b.test}}]}]}\n";
    let compiled = compiled(&(entry("a", "") + &entry("b", "") + &entry("c", "10.3.0.0/16") + router));
    let note = "in 0.0.0.0_9090, ::_9090 the routes of a.test:9090, which came first, are for calls of both";
    let notes = |host: &str| planned(&compiled, host).notes;
    assert_eq!((notes("a.test"), notes("b.test"), notes("c.test")), (vec![], vec![note.to_owned()], vec![]));
    let told = compiled.problems.iter().filter(|problem| problem.reason.contains(note));
    let told: Vec<_> = told.map(|problem| (problem.origin.kind.as_str(), &*problem.field, &*problem.reason)).collect();
    let (entry, router) = (format!("port 9090: {note}"), format!("port 9090: {note}, so these have no effect there"));
    assert_eq!(told, [("ServiceEntry", "spec", &*entry), ("MetaRouter", "spec.routes", &*router)]);
}

#[test]
fn of_services_with_a_range_in_common_one_has_it() {
    let entries =
        entry("a", "10.2.0.0/16, '::/0'") + &entry("b", "10.3.0.0/16, 10.2.0.1/16") + &entry("c", "'fd00::1/0'");
    let compiled = compiled(&entries);
    let ranges = |name: &str| places(&compiled, name).into_iter().map(|(_, ranges)| ranges).collect::<Vec<_>>();
    let range = |ip: &str, bits: u8| json!({"address_prefix": ip, "prefix_len": bits});
    // In the listener of either family.
    assert_eq!(
        ranges("a"),
        [json!([range("10.2.0.0", 16), range("::", 0)]), json!([range("10.2.0.0", 16), range("::", 0)])]
    );
    assert_eq!(ranges("b"), [json!([range("10.3.0.0", 16)]), json!([range("10.3.0.0", 16)])]);
    assert_eq!(ranges("c"), [Value::Null; 0]);
    let note = &planned(&compiled, "b.test").notes[0];
    assert!(note.contains("0.0.0.0_9090 for 10.2.0.0/16") && note.contains("a.test:9090"), "{note}");
}

/// A service of the tcp shape, on port 9090 of the pods of `app`.
fn of_app(name: &str, app: &str) -> String {
    let ip = format!("10.96.1.{}", name.as_bytes()[0]);
    service(name, &ip, "{name: tcp-metaprotocol-thrift, port: 9091, targetPort: 9090}")
        .replace(&format!("app: {name}"), &format!("app: {app}"))
}

fn limited(name: &str) -> String {
    format!(
        "apiVersion: meltemi.dev/v1alpha1\nkind: MetaRouter\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  hosts: [{name}]\n  \
         localRateLimit:\n    tokenBucket: {{maxTokens: 5, tokensPerFill: 5, fillInterval: 60s}}\n---\n"
    )
}

#[test]
fn of_services_on_one_port_of_a_pod_the_older_with_limits_is_first() {
    let services =
        of_app("a", "orders") + &of_app("b", "orders") + &of_app("c", "orders, x: y") + &of_app("d", "users");
    let compiled = compiled(&(services + &limited("b") + &limited("c") + &limited("d")));
    let priority = |name: &str| object(&compiled, &format!("meltemi-in-{name}-9091")).spec.value()["priority"].clone();
    assert_eq!(
        [priority("a"), priority("b"), priority("c"), priority("d")],
        [json!(null), json!(-2), json!(-1), json!(-2)]
    );
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", compiled.problems) };
    assert_eq!((problem.origin.name.as_str(), problem.field.as_str()), ("shop/c", "spec.localRateLimit"));
    assert!(problem.reason.contains("b.shop.svc.cluster.local:9091 is older"), "{problem}");
    let notes = |name: &str| planned(&compiled, &format!("{name}.shop.svc.cluster.local")).notes.concat();
    assert!(notes("a").contains("the limits of b.shop.svc.cluster.local:9091"), "{}", notes("a"));
    assert_eq!(notes("b") + &notes("c") + &notes("d"), "");
}

#[test]
fn of_services_whose_objects_would_have_one_name_the_older_has_them() {
    let of = |name: &str, namespace: &str| {
        service(name, &format!("10.96.1.{}", namespace.len()), "{name: tcp-metaprotocol-thrift, port: 9090}")
            .replace("namespace: shop", &format!("namespace: {namespace}"))
    };
    let compiled = compiled(&(of("b-c", "a") + &of("c", "a-b") + &of("vm", "shop") + &entry("vm", "10.9.0.1")));
    let mut names: Vec<String> = compiled.desired.iter().map(Desired::display).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), compiled.desired.len(), "{names:?}");
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", compiled.problems) };
    assert_eq!((problem.origin.kind.as_str(), problem.origin.name.as_str()), ("ServiceEntry", "shop/vm"));
    // It has no servers, but its callers would have two filters of one name.
    assert!(problem.reason.contains("meltemi.*.out.shop.vm.9090"), "{problem}");
    assert!(!object(&compiled, "meltemi-out").spec.value().to_string().contains("vm.test"));
    let plan = |host: &str| planned(&compiled, host).objects;
    let of_callers = "EnvoyFilter istio-system/meltemi-out";
    assert_eq!(plan("c.a-b.svc.cluster.local"), [of_callers, "EnvoyFilter a-b/meltemi-in-c-9090"]);
    assert_eq!(plan("b-c.a.svc.cluster.local"), [of_callers, "EnvoyFilter a/meltemi-in-b-c-9090"]);
    assert_eq!(plan("vm.test"), [""; 0]);
}

#[test]
fn callers_of_many_ports_have_few_objects_of_a_size_that_is_taken() {
    let of = |count: usize| {
        let ip = |index: usize| format!("10.96.{}.{}", index / 250, index % 250);
        let port = "{name: tcp-metaprotocol-thrift, port: 9090}";
        let all: String = (0..count).map(|index| service(&format!("s{index}"), &ip(index), port)).collect();
        let compiled = compiled(&all);
        let of_callers: Vec<&Desired> =
            compiled.desired.iter().filter(|desired| desired.name.starts_with("meltemi-out")).collect();
        assert!(of_callers.iter().all(|desired| desired.spec.value().to_string().len() < 1 << 20));
        let ports = of_callers.iter().flat_map(|desired| patches(desired));
        assert_eq!(ports.filter(|patch| patch.starts_with("CLUSTER")).count(), count);
        let planned = planned(&compiled, "s7.shop.svc.cluster.local");
        let name = planned.objects[0].trim_start_matches("EnvoyFilter istio-system/");
        assert!(patches(object(&compiled, name)).contains(&"LISTENER MERGE 10.96.0.7_9090".to_owned()));
        of_callers.iter().map(|desired| desired.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(8), ["meltemi-out"]);
    assert_eq!(of(250), ["meltemi-out", "meltemi-out-1"]);
}
