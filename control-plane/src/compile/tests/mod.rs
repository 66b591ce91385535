//! What objects become, field by field, and what is said about wrong ones.

mod clusters;
mod connection;
mod limits;
mod routes;
mod wasm;
mod wrong;

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::Cluster,
        endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
        listener::v3::{Listener, filter::ConfigType},
        route::v3::{Route, RouteAction, RouteConfiguration, route::Action},
    },
    extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, http_filter},
};
use prost::{Message, Name};

use super::{Compiled, Host, cluster::socket_address, compile};
use crate::{
    model::Model,
    problem::{Problem, Severity},
    snapshot::{Snapshot, TypeUrl},
    source::Folder,
};

/// The file of all objects of these tests.
const FILE: &str = "test.yaml";

pub(super) fn model(yaml: &str) -> (Model, Vec<Problem>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), yaml).unwrap();
    let loaded = Folder::new(folder.path()).load();
    (loaded.model, loaded.problems)
}

/// Compiles objects, with all that is wrong with them.
fn all(yaml: &str) -> Compiled {
    let (model, problems) = model(yaml);
    let compiled = compile(&model, &Host::Module);
    Compiled { problems: problems.into_iter().chain(compiled.problems).collect(), ..compiled }
}

/// Compiles objects with which nothing is wrong.
fn good(yaml: &str) -> Snapshot {
    let compiled = all(yaml);
    let said: Vec<String> = compiled.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said, [""; 0]);
    compiled.snapshot
}

fn errors(compiled: &Compiled) -> Vec<(&str, &str)> {
    let errors = compiled.problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| (problem.field.as_str(), problem.reason.as_str())).collect()
}

fn warnings(compiled: &Compiled) -> Vec<(&str, &str)> {
    let warnings = compiled.problems.iter().filter(|problem| problem.severity == Severity::Warning);
    warnings.map(|problem| (problem.field.as_str(), problem.reason.as_str())).collect()
}

/// A service `a.test` on port 80 with v1 at 10.0.0.1 and v2 at 10.0.0.2, that speaks `protocol`.
fn service(protocol: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: a}}
spec:
  hosts: [a.test]
  ports: [{{number: 80, name: tcp-metaprotocol-{protocol}, protocol: TCP}}]
  resolution: STATIC
  endpoints:
  - {{address: 10.0.0.1, labels: {{version: v1}}}}
  - {{address: 10.0.0.2, labels: {{version: v2}}, weight: 3, ports: {{tcp-metaprotocol-{protocol}: 81}}}}
---
"
    )
}

/// A rule of `a.test` with subsets v1 and v2; `rest` is what else its spec has, indented by two.
fn rule(rest: &str) -> String {
    format!(
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: a}}
spec:
  host: a.test
{rest}
  subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]
---
"
    )
}

/// A router of `a.test`; `rest` is what else its spec has, indented by two.
fn router(rest: &str) -> String {
    format!(
        "
apiVersion: meltemi.dev/v1alpha1
kind: MetaRouter
metadata: {{name: a}}
spec:
  hosts: [a.test]
{rest}
---
"
    )
}

fn get<M: Message + Default + Name>(snapshot: &Snapshot, kind: TypeUrl, name: &str) -> M {
    let resource = snapshot.get(kind, name).unwrap_or_else(|| panic!("there is no {name}"));
    M::decode(resource.any.value.as_slice()).unwrap()
}

fn cluster(snapshot: &Snapshot, name: &str) -> Cluster {
    get(snapshot, TypeUrl::Cluster, name)
}

/// Addresses, ports and weights of the endpoints of a cluster.
fn places(snapshot: &Snapshot, name: &str) -> Vec<(String, u16, u32)> {
    let assignment: ClusterLoadAssignment = get(snapshot, TypeUrl::Endpoints, name);
    places_of(&assignment)
}

fn places_of(assignment: &ClusterLoadAssignment) -> Vec<(String, u16, u32)> {
    let mut all = Vec::new();
    for endpoint in assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints) {
        let Some(HostIdentifier::Endpoint(at)) = &endpoint.host_identifier else { panic!() };
        let weight = endpoint.load_balancing_weight.map_or(0, |weight| weight.value);
        let found = (1..=u16::MAX).find_map(|port| {
            let text = format!("{:?}", at.address);
            let host = text.split("address: \"").nth(1)?.split('"').next()?.to_owned();
            (at.address == socket_address(&host, port)).then_some((host, port))
        });
        let (host, port) = found.unwrap();
        all.push((host, port, weight));
    }
    all
}

fn routes(snapshot: &Snapshot) -> Vec<Route> {
    let mut configuration: RouteConfiguration = get(snapshot, TypeUrl::Route, "a.test:80");
    assert_eq!(configuration.virtual_hosts.len(), 1);
    assert_eq!(configuration.virtual_hosts[0].domains, ["*"]);
    configuration.virtual_hosts.remove(0).routes
}

fn action(route: &Route) -> &RouteAction {
    let Some(Action::Route(action)) = &route.action else { panic!("{route:?}") };
    action
}

/// The status with which Envoy answers itself.
fn answer(route: &Route) -> u32 {
    let Some(Action::DirectResponse(answer)) = &route.action else { panic!("{route:?}") };
    answer.status
}

fn manager(snapshot: &Snapshot) -> HttpConnectionManager {
    let listener: Listener = get(snapshot, TypeUrl::Listener, "a.test:80");
    let filter = listener.filter_chains[0].filters.last().unwrap();
    let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { panic!() };
    HttpConnectionManager::decode(any.value.as_slice()).unwrap()
}

/// An HTTP filter, if it is there.
fn http_filter<M: Message + Default>(snapshot: &Snapshot, name: &str) -> Option<M> {
    let filter = manager(snapshot).http_filters.into_iter().find(|filter| filter.name == name)?;
    let Some(http_filter::ConfigType::TypedConfig(any)) = filter.config_type else { panic!() };
    Some(M::decode(any.value.as_slice()).unwrap())
}

/// Everything that is served, as text.
fn whole(snapshot: &Snapshot) -> Vec<String> {
    TypeUrl::ALL
        .iter()
        .flat_map(|kind| snapshot.of(*kind))
        .map(|r| format!("{} {} {}", r.any.type_url, r.name, r.version))
        .collect()
}

#[test]
fn the_order_of_objects_does_not_matter() {
    let rich = "  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /ca.pem, sni: x}}";
    let limits = "  routes: [{name: one, route: [{destination: {host: a.test, subset: v1}}]}]
  localRateLimit: {tokenBucket: {maxTokens: 5}}";
    let other = service("dubbo")
        .replace("a.test", "b.test")
        .replace("name: a}", "name: b}")
        .replace("number: 80", "number: 90");
    let objects = [service("thrift"), other, rule(rich), router(limits)];
    let expected = whole(&good(&objects.concat()));
    assert!(expected.len() > 10);
    for turn in 1..objects.len() {
        let mut turned = objects.clone();
        turned.rotate_left(turn);
        assert_eq!(whole(&good(&turned.concat())), expected);
        turned.reverse();
        assert_eq!(whole(&good(&turned.concat())), expected);
    }
}

#[test]
fn of_two_that_claim_the_same_the_first_gets_it() {
    let second = router("  routes: [{deny: true}]").replace("name: a}", "name: z}");
    let compiled =
        all(&[service("thrift"), router("  routes: [{name: first, route: [{destination: {host: a.test}}]}]"), second]
            .concat());
    assert_eq!(errors(&compiled).len(), 1);
    assert!(errors(&compiled)[0].1.contains("MetaRouter default/a"), "{:?}", compiled.problems);
    assert_eq!(routes(&compiled.snapshot)[0].name, "first");
}

#[test]
fn an_empty_model_is_an_empty_world() {
    assert_eq!(whole(&good("")), [""; 0]);
}
