//! Services whose calls go where their client wants.

use std::sync::Arc;

use serde_json::json;

use super::{
    check::{found, other},
    *,
};
use crate::model::Resolution;

const NATIVE: &str = "{name: rpc, port: 9091, appProtocol: meltemi.dev/thrift}";

fn router(host: &str, destination: &str) -> String {
    format!(
        "apiVersion: meltemi.dev/v1alpha1\nkind: MetaRouter\nmetadata: {{name: r, namespace: shop}}\nspec:\n  hosts: [{host}]\n  \
         routes:\n  - {{route: [{{destination: {{{destination}}}}}]}}\n---\n"
    )
}

fn rule(host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: shop}}\nspec: {{host: \
         {host}, subsets: [{{name: v1, labels: {{version: v1}}}}]}}\n---\n"
    )
}

/// What is said of them.
fn told(yaml: &str) -> Vec<String> {
    let problems = compiled(yaml).problems;
    problems.iter().filter(|problem| problem.reason.contains("knows no endpoints")).map(ToString::to_string).collect()
}

#[test]
fn a_subset_of_a_headless_service_is_no_choice() {
    for port in [NATIVE, "{name: tcp-metaprotocol-thrift, port: 9091}"] {
        let with = |ip: &str, to: &str| {
            told(
                &(service("orders", ip, port)
                    + &rule("orders")
                    + &service("web", "10.96.0.13", port)
                    + &router("orders", to)),
            )
        };
        let [one] = &with("None", "host: orders, subset: v1")[..] else { panic!("{port}") };
        assert!(one.contains("spec.routes[0].route[0].destination.subset: has no effect"), "{one}");
        assert_eq!(with("None", "host: orders"), [""; 0]);
        assert_eq!(with("None", "host: web"), [""; 0], "it has a cluster with endpoints");
        assert_eq!(with("10.96.0.12", "host: orders, subset: v1"), [""; 0]);
    }
}

#[test]
fn calls_of_another_service_do_not_get_to_a_headless_one() {
    let yaml = service("orders", "None", NATIVE) + &service("web", "10.96.0.13", NATIVE);
    let [one] = &told(&(yaml.clone() + &router("web", "host: orders")))[..] else { panic!() };
    assert!(one.contains("spec.routes[0].route[0].destination.host: ") && one.contains("do not get there"), "{one}");
    let of = |spec: Value| {
        let all = found(&yaml, |facts| facts.others.push(other("VirtualService", spec)));
        all.into_iter().filter(|problem| problem.contains("knows no endpoints")).count()
    };
    let routes = |host: &str| json!([{"route": [{"destination": {"host": host, "subset": "v1"}}]}]);
    assert_eq!(of(json!({"hosts": ["web"], "http": routes("orders")})), 1);
    assert_eq!(of(json!({"hosts": ["orders"], "http": routes("orders")})), 1);
    assert_eq!(of(json!({"hosts": ["orders"], "http": routes("web")})), 0);
    assert_eq!(of(json!({"hosts": ["web"], "gateways": ["edge"], "http": routes("orders")})), 0, "gateways know them");
}

#[test]
fn a_service_entry_without_resolution_is_the_same() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: vm, namespace: shop, annotations: \
                 {meltemi.dev/codec: thrift}}\nspec:\n  hosts: [vm.test]\n  resolution: STATIC\n  addresses: [10.1.0.1]\n  \
                 ports: [{name: rpc, number: 9091}]\n---\n";
    let mut model = model(&(entry.to_owned() + &rule("vm.test") + &router("vm.test", "host: vm.test, subset: v1")));
    let mut told = |resolution| {
        Arc::make_mut(&mut model.service_entries[0]).spec.resolution = resolution;
        let problems = compile(&model, &facts(), &Options::default()).problems;
        problems.iter().filter(|problem| problem.reason.contains("knows no endpoints")).count()
    };
    assert_eq!((told(Resolution::None), told(Resolution::Static)), (1, 0));
}

#[test]
fn the_plan_says_that_clients_choose() {
    let notes =
        |ip: &str| planned(&compiled(&service("orders", ip, NATIVE)), "orders.shop.svc.cluster.local").notes.concat();
    assert!(notes("None").contains("the address that its client chose"));
    assert_eq!(notes("10.96.0.12"), "");
}
