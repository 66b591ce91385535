//! Ports of ServiceEntries.

use std::sync::Arc;

use super::*;

/// A ServiceEntry `vm` in namespace `shop`, of the codec thrift by annotation; the port without a protocol unless `spec` has more.
fn entry(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: vm, namespace: shop, annotations: \
         {{meltemi.dev/codec: thrift}}}}\nspec:\n  hosts: [vm.test]\n  resolution: STATIC\n{spec}"
    )
}

const PORT: &str = "  ports: [{name: rpc, number: 9091, targetPort: 9191}]\n";

fn listeners(compiled: &Compiled) -> Vec<String> {
    let all = patches(object(compiled, "meltemi-out"));
    all.iter().filter_map(|patch| patch.strip_prefix("LISTENER_FILTER INSERT_FIRST ").map(str::to_owned)).collect()
}

/// Where connections to `vm.test` go, in listeners of its own.
fn addresses(compiled: &Compiled) -> Vec<String> {
    let table = config(object(compiled, "meltemi-port-9091-thrift"), "inlet")["destinations"].clone();
    let line = |to: &Value| {
        assert_eq!((&to["port"], &to["authority"]), (&Value::from(9091), &Value::from("vm.test:9091")));
        to["address"].as_str().unwrap().to_owned()
    };
    table.as_array().unwrap().iter().map(line).collect()
}

#[test]
fn a_port_that_says_no_protocol_is_native_by_annotation() {
    let compiled = compiled(&entry(&format!("  addresses: [10.1.0.1, 10.1.0.2/32]\n{PORT}")));
    assert_eq!(compiled.problems, []);
    assert_eq!(planned(&compiled, "vm.test").shape, Some(Shape::Native));
    assert_eq!(addresses(&compiled), ["10.1.0.1", "10.1.0.2"], "istiod makes a listener for each");
}

#[test]
fn an_http_port_is_taken_in_the_shared_listener() {
    let port = "  ports: [{name: rpc, number: 9091, protocol: HTTP}]\n";
    let compiled = compiled(&entry(&format!("  addresses: [10.1.0.1]\n{port}")));
    assert_eq!(planned(&compiled, "vm.test").shape, Some(Shape::Http));
    assert_eq!(listeners(&compiled), ["0.0.0.0_9091"]);
    let tcp = self::compiled(&entry("  ports: [{name: rpc, number: 9091, protocol: TCP}]\n"));
    assert_eq!(planned(&tcp, "vm.test").shape, None);
}

#[test]
fn without_an_address_all_of_the_port_number_is_taken() {
    let compiled = compiled(&entry(PORT));
    assert_eq!(listeners(&compiled), ["0.0.0.0_9091", "::_9091"], "the second in proxies of IPv6 alone");
    let everything = serde_json::json!([{"port": 9091, "authority": "vm.test:9091"}]);
    assert_eq!(config(object(&compiled, "meltemi-out"), "inlet")["destinations"], everything);
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", compiled.problems) };
    assert_eq!((problem.field.as_str(), problem.severity), ("spec.addresses", crate::problem::Severity::Warning));
}

#[test]
fn a_range_is_refused_because_istio_sees_tcp_behind_it() {
    let compiled = compiled(&entry(&format!("  addresses: [10.1.0.1, 10.1.0.0/16]\n{PORT}")));
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", compiled.problems) };
    assert_eq!((problem.field.as_str(), problem.severity), ("spec.addresses", crate::problem::Severity::Error));
    assert_eq!(compiled.desired, [], "a bridge would fail every call");
    assert_eq!(planned(&compiled, "vm.test").notes, std::slice::from_ref(&problem.reason));
    let tcp =
        entry("  addresses: [10.1.0.0/16]\n  ports: [{name: tcp-metaprotocol-thrift, number: 9091, protocol: TCP}]\n");
    assert_eq!(planned(&self::compiled(&tcp), "vm.test").shape, Some(Shape::Tcp));
}

#[test]
fn of_several_hosts_one_is_taken() {
    let yaml =
        entry(&format!("  addresses: [10.1.0.1, 10.1.0.2]\n{PORT}")).replace("[vm.test]", "[vm.test, other.test]");
    let compiled = compiled(&yaml);
    let [problem] = compiled.problems.as_slice() else { panic!("{:?}", compiled.problems) };
    assert_eq!(problem.field, "spec.hosts[1]");
    assert_eq!(addresses(&compiled), ["10.1.0.1", "10.1.0.2"]);
}

#[test]
fn addresses_that_istiod_has_assigned_have_listeners_at_proxies_that_answer_dns() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.yaml"), entry(PORT)).unwrap();
    let mut model = Folder::new(folder.path()).load().model;
    let assigned =
        |host: &str, value: &str| crate::model::AssignedAddress { host: host.to_owned(), value: value.to_owned() };
    Arc::make_mut(&mut model.service_entries[0]).spec.assigned =
        vec![assigned("vm.test", "240.240.0.1"), assigned("other.test", "240.240.0.2")];
    let compiled = compile(&model, &facts(), &Options::default());
    assert_eq!(listeners(&compiled), ["240.240.0.1_9091", "0.0.0.0_9091", "::_9091"]);
}

#[test]
fn selected_workloads_get_the_servers_side_on_the_target_port() {
    let selector = "  workloadSelector: {labels: {app: orders}}\n";
    let compiled = compiled(&entry(&format!("  addresses: [10.1.0.1]\n{selector}{PORT}")));
    let server = object(&compiled, "meltemi-in-vm-9091");
    assert_eq!(server.spec.value()["workloadSelector"]["labels"]["app"], "orders");
    assert!(patches(server).contains(&"CLUSTER MERGE :9191".to_owned()));
    assert_eq!(planned(&compiled, "vm.test").workloads, ["shop/orders-1"]);
}
