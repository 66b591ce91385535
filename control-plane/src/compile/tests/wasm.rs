//! The same objects for Envoys that run the filters in Wasm.

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::v3::{TypedExtensionConfig, address, envoy_internal_address::AddressNameSpecifier},
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::Listener,
    },
    extensions::{
        filters::network::wasm::v3::Wasm,
        wasm::v3::{FailurePolicy, plugin_config::Vm},
    },
};
use prost::Message;

use super::{compile, model};
use crate::{
    compile::{Code, Host},
    snapshot::{Snapshot, TypeUrl},
};

const SERVICE: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.test]
  ports: [{number: 9090, name: tcp-metaprotocol-thrift}]
  resolution: RESOLUTION
  endpoints: [{address: ADDRESS}]
";

fn snapshot(resolution: &str, address: &str, code: Code) -> Snapshot {
    let (model, problems) = model(&SERVICE.replace("RESOLUTION", resolution).replace("ADDRESS", address));
    assert_eq!(problems, []);
    let compiled = compile(&model, &Host::Wasm(code));
    assert_eq!(compiled.problems, []);
    compiled.snapshot
}

fn get<M: Message + Default>(snapshot: &Snapshot, kind: TypeUrl, name: &str) -> M {
    M::decode(snapshot.get(kind, name).expect(name).any.value.as_slice()).unwrap()
}

fn file() -> Code {
    Code::File("/m.wasm".to_owned())
}

fn discovery(cluster: &Cluster) -> DiscoveryType {
    let Some(ClusterDiscoveryType::Type(kind)) = cluster.cluster_discovery_type else { panic!("no type") };
    DiscoveryType::try_from(kind).unwrap()
}

const CLUSTER: &str = "outbound|9090||a.test";

#[test]
fn an_endpoint_stands_for_its_server_behind_a_hop() {
    let snapshot = snapshot("STATIC", "\"::1\"", file());
    let endpoints: ClusterLoadAssignment = get(&snapshot, TypeUrl::Endpoints, CLUSTER);
    let endpoint = &endpoints.endpoints[0].lb_endpoints[0];
    let metadata = &endpoint.metadata.as_ref().unwrap().filter_metadata["envoy.filters.listener.original_dst"];
    assert!(format!("{:?}", metadata.fields["local"]).contains("[::1]:9090"));
    let Some(super::HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { panic!("no endpoint") };
    let Some(address::Address::EnvoyInternalAddress(internal)) = &endpoint.address.as_ref().unwrap().address else {
        panic!("not internal");
    };
    assert_eq!(internal.endpoint_id, "[::1]:9090");
    let Some(AddressNameSpecifier::ServerListenerName(name)) = &internal.address_name_specifier else {
        panic!("no listener");
    };
    let listener: Listener = get(&snapshot, TypeUrl::Listener, name);
    assert!(listener.listener_specifier.is_some() && listener.address.is_none());
    let cluster: Cluster = get(&snapshot, TypeUrl::Cluster, CLUSTER);
    assert!(cluster.upstream_config.is_none(), "no bridge");
    let server: Cluster = get(&snapshot, TypeUrl::Cluster, &format!("server|{CLUSTER}"));
    assert_eq!(discovery(&server), DiscoveryType::OriginalDst);
}

#[test]
fn names_are_looked_up_behind_the_hop() {
    let snapshot = snapshot("DNS", "b.test", file());
    let cluster: Cluster = get(&snapshot, TypeUrl::Cluster, CLUSTER);
    assert_eq!(discovery(&cluster), DiscoveryType::Static);
    let server: Cluster = get(&snapshot, TypeUrl::Cluster, &format!("server|{CLUSTER}"));
    assert_eq!(discovery(&server), DiscoveryType::StrictDns);
    assert!(server.load_assignment.unwrap().cluster_name.starts_with("server|"));
}

#[test]
fn plugins_fail_closed_and_are_loaded_again() {
    let snapshot = snapshot("STATIC", "10.0.0.1", file());
    for (name, root_id) in [("inlet|a.test:9090", "inlet"), ("outlet|outbound|9090||a.test", "outlet")] {
        let extension: TypedExtensionConfig = get(&snapshot, TypeUrl::ExtensionConfig, name);
        let wasm = Wasm::decode(extension.typed_config.unwrap().value.as_slice()).unwrap();
        let plugin = wasm.config.unwrap();
        assert_eq!((plugin.root_id.as_str(), plugin.failure_policy()), (root_id, FailurePolicy::FailReload));
        let Some(Vm::VmConfig(vm)) = plugin.vm else { panic!("no VM") };
        assert_eq!(vm.vm_id, "meltemi", "one for all");
    }
}

#[test]
fn code_from_a_url_has_a_cluster() {
    let code = Code::Remote {
        url: "https://files.test/m.wasm".to_owned(),
        host: "files.test".to_owned(),
        port: 443,
        tls: true,
        sha256: "0".repeat(64),
    };
    let cluster: Cluster = get(&snapshot("STATIC", "10.0.0.1", code), TypeUrl::Cluster, "meltemi_wasm");
    assert!(cluster.transport_socket.is_some());
}
