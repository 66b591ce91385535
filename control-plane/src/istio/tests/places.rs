//! Where patches go, and what stands there while the module is not.

use serde_json::Value;

use super::{compiled, config_patches, object, patches, service};

/// What the filters that come by ECDS have in their place, by the object's name and how the patch is applied.
fn stand_ins(yaml: &str, name: &str) -> Vec<(String, Option<String>)> {
    let compiled = compiled(yaml);
    let all = config_patches(object(&compiled, name));
    let discovered = all.iter().filter(|patch| !patch["patch"]["value"]["config_discovery"].is_null());
    let short = |kind: &Value| kind.as_str().and_then(|kind| kind.rsplit('.').next()).map(str::to_owned);
    discovered
        .map(|patch| {
            let discovery = &patch["patch"]["value"]["config_discovery"];
            let instead = &discovery["default_config"]["@type"];
            let known = discovery["type_urls"].as_array().unwrap();
            assert!(
                instead.is_null() || known.contains(instead),
                "Envoy takes no default of another type: {discovery}"
            );
            (patch["applyTo"].as_str().unwrap().to_owned(), short(instead))
        })
        .collect()
}

fn stands(kind: &str, instead: Option<&str>) -> (String, Option<String>) {
    (kind.to_owned(), instead.map(str::to_owned))
}

#[test]
fn what_others_connections_meet_too_does_nothing_without_the_module() {
    let native = service("orders", "10.96.0.12", "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}");
    let (of_ours, shared) = (stands("NETWORK_FILTER", None), stands("NETWORK_FILTER", Some("RBAC")));
    let declare = stands("LISTENER_FILTER", Some("OriginalDst"));
    // All services of a port number have the same filters at their clients.
    assert_eq!(stand_ins(&native, "meltemi-port-9091-thrift"), [declare.clone(), shared.clone()]);
    // All ports of a pod have one inbound listener.
    assert_eq!(stand_ins(&native, "meltemi-in-orders-9091"), [declare.clone(), of_ours.clone()]);
    // All HTTP services of a port number have one outbound listener, and one chain in it.
    let http = service("orders", "10.96.0.12", "{name: http-rpc, port: 9092}")
        .replace("namespace: shop}", "namespace: shop, annotations: {meltemi.dev/codec: thrift}}");
    assert_eq!(stand_ins(&http, "meltemi-out"), [declare, shared]);
    assert_eq!(stand_ins(&http, "meltemi-in-orders-9092"), [of_ours]);
}

#[test]
fn rules_that_are_absent_let_everybody_in_and_rules_that_are_empty_nobody() {
    let http = service("orders", "10.96.0.12", "{name: http-rpc, port: 9092}")
        .replace("namespace: shop}", "namespace: shop, annotations: {meltemi.dev/codec: thrift}}");
    let compiled = compiled(&http);
    let all = config_patches(object(&compiled, "meltemi-out"));
    let rbac = &all[1]["patch"]["value"]["config_discovery"]["default_config"];
    assert_eq!(rbac.get("rules"), None, "{rbac}");
}

#[test]
fn every_family_of_addresses_has_its_listener() {
    let names = |ips: &str, port: &str| {
        let yaml = service("orders", "10.96.0.12", port)
            .replace("clusterIP: 10.96.0.12", &format!("clusterIPs: [{ips}]"))
            .replace("namespace: shop}", "namespace: shop, annotations: {meltemi.dev/codec: thrift}}");
        let compiled = compiled(&yaml);
        let [client] =
            &compiled.desired.iter().filter(|desired| desired.name.starts_with("meltemi-out")).collect::<Vec<_>>()[..]
        else {
            panic!("{:?}", compiled.desired)
        };
        let listener = |patch: String| {
            let patch = patch.strip_prefix("NETWORK_FILTER INSERT_BEFORE ").or(patch.strip_prefix("LISTENER MERGE "))?;
            Some(patch.split(' ').next()?.to_owned())
        };
        patches(client).into_iter().filter_map(listener).collect::<Vec<String>>()
    };
    let (tcp, http) = ("{name: tcp-metaprotocol-thrift, port: 9090}", "{name: http-rpc, port: 9092}");
    assert_eq!(names("10.96.0.12", tcp), ["10.96.0.12_9090"]);
    assert_eq!(names("'fd96::12'", tcp), ["fd96::12_9090"]);
    // A proxy with both families calls a listener by the first address, one with a single family by that of its own.
    assert_eq!(names("'fd96::12', 10.96.0.12", tcp), ["fd96::12_9090", "10.96.0.12_9090"]);
    // The shared listener is called by the proxy's addresses, whatever the service's are.
    assert_eq!(names("10.96.0.12", http), ["0.0.0.0_9092"]);
    assert_eq!(names("'fd96::12'", http), ["0.0.0.0_9092", "::_9092"]);
}

#[test]
fn a_named_target_port_without_pods_declares_nothing() {
    let compiled = compiled(&service(
        "orders",
        "10.96.0.12",
        "{name: rpc, port: 9091, targetPort: rpc, appProtocol: meltemi.dev/thrift}",
    ));
    assert!(compiled.desired.iter().all(|desired| !desired.name.starts_with("meltemi-in-")));
}
