//! Proxies that know no modules.

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use prost::Message;
use serde_json::{Value, json};

use super::{
    Compiled, Options, XdsService, compile, compiled, config_patches, facts, object, patches, planned, service,
};
use crate::{compile::Code, snapshot::TypeUrl, source::Folder};

const TCP: &str = "{name: tcp-metaprotocol-thrift, port: 9090, targetPort: 9190}";
const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: shop}\nspec:\n  \
    host: orders.shop.svc.cluster.local\n  subsets: [{name: v1, labels: {version: v1}}]\n---\n";
const ROUTES: &str = "apiVersion: meltemi.dev/v1alpha1\nkind: MetaRouter\nmetadata: {name: a, namespace: shop}\nspec:\n  \
    hosts: [orders.shop.svc.cluster.local]\n  routes:\n  - mirror: {host: MIRROR}\n    route:\n    \
    - {destination: {host: orders, subset: v1}, weight: 1}\n    - {destination: {host: orders}, weight: 1}\n---\n";
const HOST: &str = "orders.shop.svc.cluster.local";

fn with_plugins(yaml: &str, code: Code) -> Compiled {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), yaml).unwrap();
    let loaded = Folder::new(folder.path()).load();
    assert_eq!(loaded.problems, []);
    let xds = Some(XdsService { host: "meltemi.meltemi-system.svc".to_owned(), port: 18000, tls: None });
    compile(&loaded.model, &facts(), &Options { xds, wasm: Some(code), ..Options::default() })
}

fn image() -> Code {
    Code::Image("oci://registry.test/meltemi-wasm:1".to_owned())
}

fn all(compiled: &Compiled, name: &str) -> Vec<Value> {
    config_patches(object(compiled, name))
}

#[test]
fn nothing_is_written_for_them_unless_there_is_code() {
    let compiled = compiled(&service("orders", "10.96.0.12", TCP));
    assert!(compiled.desired.iter().all(|desired| !desired.name.contains("wasm")));
    assert!(compiled.snapshot.of(TypeUrl::Route).all(|resource| !resource.name.contains("wasm")));
}

#[test]
fn there_is_a_vm_before_there_are_ports() {
    let compiled = with_plugins("", image());
    let names: Vec<&str> = compiled.desired.iter().map(|desired| desired.name.as_str()).collect();
    assert_eq!(names, ["meltemi-wasm-first-vm"]);
    assert_eq!(patches(&compiled.desired[0]), ["LISTENER ADD"]);
}

#[test]
fn both_sides_have_hops_before_istiods_clusters() {
    let yaml = service("orders", "10.96.0.12", TCP) + RULE;
    let compiled = with_plugins(&yaml, image());
    let client = object(&compiled, "meltemi-wasm-out");
    assert_eq!(client.namespace, "istio-system");
    assert_eq!(client.spec.value()["workloadSelector"]["labels"], json!({"meltemi.dev/wasm": "1"}));
    let hop = ["CLUSTER ADD", "LISTENER ADD"];
    let ext = "EXTENSION_CONFIG ADD";
    assert_eq!(patches(client), ["LISTENER MERGE 10.96.0.12_9090", hop[0], hop[1], hop[0], hop[1], ext, ext]);
    let server = object(&compiled, "meltemi-wasm-in-orders-9090");
    assert_eq!(server.spec.value()["workloadSelector"]["labels"], json!({"meltemi.dev/wasm": "1", "app": "orders"}));
    let before = "NETWORK_FILTER INSERT_BEFORE virtualInbound:9190 tcp_proxy";
    let place = ["NETWORK_FILTER REPLACE virtualInbound:9190 tcp_proxy", "FILTER_CHAIN ADD virtualInbound"];
    assert_eq!(patches(server), [before, before, place[0], place[1], hop[0], hop[1], ext, ext]);
    object(&compiled, "meltemi-wasm-xds");
    for desired in compiled.desired.iter().filter(|desired| desired.name.starts_with("meltemi-wasm")) {
        let text = desired.spec.value().to_string();
        assert!(!text.contains("dynamic_module"), "{}", desired.name);
        for patch in config_patches(desired) {
            assert_eq!(patch["match"]["proxy"]["proxyVersion"], r"^1\.(28|29|30)([^0-9]|$)");
        }
    }
    // Where hops lead.
    let values = all(&compiled, "meltemi-wasm-out");
    let names: Vec<&Value> = values.iter().map(|patch| &patch["patch"]["value"]["name"]).skip(1).step_by(2).collect();
    assert_eq!(
        names[..2],
        [&json!(format!("hop|outbound|9090||{HOST}")), &json!(format!("hop|outbound|9090|v1|{HOST}"))]
    );
}

#[test]
fn code_comes_from_where_it_is() {
    let of = |code: Code| {
        let compiled = with_plugins(&service("orders", "10.96.0.12", TCP), code);
        let patches = all(&compiled, "meltemi-wasm-out");
        let config = patches.last().unwrap()["patch"]["value"]["typed_config"]["config"].clone();
        assert_eq!((&config["root_id"], &config["failure_policy"]), (&json!("inlet"), &json!("FAIL_RELOAD")));
        config["vm_config"]["code"].clone()
    };
    assert_eq!(of(Code::File("/m.wasm".to_owned())), json!({"local": {"filename": "/m.wasm"}}));
    let (url, sha256) = ("http://a.test/m.wasm".to_owned(), "0".repeat(64));
    let remote =
        Code::Remote { url: url.clone(), host: "a.test".to_owned(), port: 80, tls: false, sha256: sha256.clone() };
    let fetched = |uri: &str, sha256: &str| {
        let uri = json!({"uri": uri, "cluster": "meltemi_wasm", "timeout": "30s"});
        json!({"remote": {"http_uri": uri, "sha256": sha256}})
    };
    assert_eq!(of(remote), fetched(&url, &sha256));
    assert_eq!(of(image()), fetched("oci://registry.test/meltemi-wasm:1", ""));
    // The agent compares what it gets with the digest in the name.
    let digest = format!("oci://registry.test/meltemi-wasm@sha256:{}", "0".repeat(64));
    assert_eq!(of(Code::Image(digest.clone())), fetched(&digest, ""));
}

/// Clusters of all routes of a port's clients.
fn clusters(compiled: &Compiled, name: &str) -> Vec<String> {
    let resource = compiled.snapshot.get(TypeUrl::Route, name).expect(name);
    let routes = RouteConfiguration::decode(resource.any.value.as_slice()).unwrap();
    let text = format!("{routes:?}");
    let mut found: Vec<String> = text
        .split('"')
        .filter(|part| part.contains("outbound|") || part.contains("inbound|"))
        .map(str::to_owned)
        .collect();
    found.dedup();
    found
}

#[test]
fn routes_lead_through_hops_to_ports_of_every_shape() {
    let native = service("native", "10.96.0.13", "{name: rpc, port: 9090, appProtocol: meltemi.dev/thrift}");
    let yaml = service("orders", "10.96.0.12", TCP) + &native + RULE + &ROUTES.replace("MIRROR", "native");
    let compiled = with_plugins(&yaml, image());
    let names = ["outbound|9090||native", "outbound|9090|v1|orders", "outbound|9090||orders"];
    let full = |prefix: &str| names.map(|name| format!("{prefix}{name}.shop.svc.cluster.local"));
    assert_eq!(clusters(&compiled, &format!("meltemi.hcm.out.{HOST}:9090")), full(""));
    assert_eq!(clusters(&compiled, &format!("meltemi.wasm.hcm.out.{HOST}:9090")), full("hop|"));
    assert_eq!(
        clusters(&compiled, &format!("meltemi.wasm.hcm.in.{HOST}:9090.9190")),
        [format!("hop|inbound|9190||{HOST}:9090")]
    );
    assert_eq!(
        patches(object(&compiled, "meltemi-wasm-out"))[7..],
        ["CLUSTER ADD", "LISTENER ADD", "EXTENSION_CONFIG ADD"],
        "no listener of a native port is touched"
    );
    let plan = |yaml: &str| planned(&with_plugins(yaml, image()), HOST).notes;
    assert_eq!(plan(&yaml), [""; 0]);
    assert!(plan(&yaml.replace("  - mirror", "  - hashPolicy: [user]\n    mirror"))[0].contains("hash has no effect"));
    // What is wrong with a route is said once.
    let wrong = yaml.replace("host: native", "host: nobody");
    let problems = with_plugins(&wrong, image()).problems;
    assert_eq!(problems.iter().filter(|problem| problem.field.contains("mirror")).count(), 1, "{problems:?}");
}

#[test]
fn the_relay_is_told_by_istiod_where_an_agent_fetches_its_code() {
    let yaml = service("orders", "10.96.0.12", TCP)
        .replace("namespace: shop}", "namespace: shop, annotations: {meltemi.dev/mode.9090: connection}}");
    let compiled = with_plugins(&yaml, image());
    let client = object(&compiled, "meltemi-wasm-out");
    assert_eq!(patches(client), ["LISTENER MERGE 10.96.0.12_9090", "EXTENSION_CONFIG ADD", "EXTENSION_CONFIG ADD"]);
    let relay = all(&compiled, "meltemi-wasm-out")[1]["patch"]["value"].clone();
    let version = &config_patches(client)[0]["match"]["proxy"]["proxyVersion"];
    assert_eq!(version, r"^1\.(29|30)([^0-9]|$)", "Envoy 1.36 has no tcp_proxy that waits");
    assert_eq!(relay["name"], "meltemi.wasm.relay.out.shop.orders.9090");
    assert_eq!(relay["typed_config"]["config"]["root_id"], "relay");
}
