use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            circuit_breakers::Thresholds,
            cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, LbConfig, LbPolicy},
        },
        core::v3::transport_socket::ConfigType,
    },
    extensions::{
        transport_sockets::tls::v3::{Secret, UpstreamTlsContext, secret},
        upstreams::tcp::v3::TcpProtocolOptions,
    },
};
use prost::Message;

use super::*;

const WHOLE: &str = "outbound|80||a.test";

fn with(policy: &str) -> Snapshot {
    good(&[service("thrift"), rule(&format!("  trafficPolicy: {policy}"))].concat())
}

fn thresholds(cluster: &Cluster) -> Thresholds {
    cluster.circuit_breakers.as_ref().unwrap().thresholds[0]
}

#[test]
fn endpoints_and_subsets() {
    let snapshot = with("{}");
    let (one, two) = (("10.0.0.1".to_owned(), 80, 1), ("10.0.0.2".to_owned(), 81, 3));
    assert_eq!(places(&snapshot, WHOLE), [one.clone(), two.clone()]);
    assert_eq!(places(&snapshot, "outbound|80|v1|a.test"), [one]);
    assert_eq!(places(&snapshot, "outbound|80|v2|a.test"), [two]);
    assert!(cluster(&snapshot, WHOLE).upstream_config.is_some(), "the outlet");
}

#[test]
fn limits_and_timeouts() {
    let snapshot = with(
        "{connectionPool: {tcp: {maxConnections: 1, connectTimeout: 2s, idleTimeout: 30s}, http: \
                         {http1MaxPendingRequests: 3, http2MaxRequests: 4, maxRetries: 5}}}",
    );
    let whole = cluster(&snapshot, WHOLE);
    let limits = thresholds(&whole);
    let value = |number: Option<envoy_types::pb::google::protobuf::UInt32Value>| number.unwrap().value;
    assert_eq!(
        [limits.max_connections, limits.max_pending_requests, limits.max_requests, limits.max_retries].map(value),
        [1, 3, 4, 5]
    );
    assert_eq!(whole.connect_timeout.unwrap().seconds, 2);
    let any = &whole.typed_extension_protocol_options["envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions"];
    assert_eq!(TcpProtocolOptions::decode(any.value.as_slice()).unwrap().idle_timeout.unwrap().seconds, 30);
    let none = thresholds(&cluster(&with("{}"), WHOLE));
    assert_eq!(value(none.max_connections), u32::MAX, "no limits where none are given");
}

#[test]
fn outliers() {
    let snapshot = with(
        "{outlierDetection: {consecutive5xxErrors: 2, consecutiveGatewayErrors: 3, interval: 1s, \
                         baseEjectionTime: 4s, maxEjectionPercent: 50, minHealthPercent: 20}}",
    );
    let whole = cluster(&snapshot, WHOLE);
    let outliers = whole.outlier_detection.unwrap();
    assert_eq!((outliers.consecutive_5xx.unwrap().value, outliers.enforcing_consecutive_5xx.unwrap().value), (2, 100));
    assert_eq!(outliers.consecutive_gateway_failure.unwrap().value, 3);
    assert_eq!((outliers.interval.unwrap().seconds, outliers.base_ejection_time.unwrap().seconds), (1, 4));
    assert_eq!(outliers.max_ejection_percent.unwrap().value, 50);
    assert_eq!(whole.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value, 20.0);
    let off = with("{outlierDetection: {consecutive5xxErrors: 0}}");
    assert_eq!(cluster(&off, WHOLE).outlier_detection.unwrap().enforcing_consecutive_5xx.unwrap().value, 0);
}

#[test]
fn load_balancing() {
    let policy = |balancer: &str| {
        let cluster = cluster(&with(&format!("{{loadBalancer: {balancer}}}")), WHOLE);
        (cluster.lb_policy(), cluster.lb_config)
    };
    for (simple, expected) in [
        ("ROUND_ROBIN", LbPolicy::RoundRobin),
        ("RANDOM", LbPolicy::Random),
        ("LEAST_REQUEST", LbPolicy::LeastRequest),
        ("LEAST_CONN", LbPolicy::LeastRequest),
        ("UNSPECIFIED", LbPolicy::LeastRequest),
    ] {
        assert_eq!(policy(&format!("{{simple: {simple}}}")).0, expected);
    }
    let (ring, config) = policy("{consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 99}}}");
    assert_eq!(ring, LbPolicy::RingHash);
    assert!(matches!(config, Some(LbConfig::RingHashLbConfig(ring)) if ring.minimum_ring_size.unwrap().value == 99));
    let (maglev, config) = policy("{consistentHash: {useSourceIp: true, maglev: {tableSize: 101}}}");
    assert_eq!(maglev, LbPolicy::Maglev);
    assert!(matches!(config, Some(LbConfig::MaglevLbConfig(maglev)) if maglev.table_size.unwrap().value == 101));
}

#[test]
fn policies_of_ports_replace_and_of_subsets_add() {
    let snapshot = good(&[service("thrift"), "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec:
  host: a.test
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    connectionPool: {tcp: {maxConnections: 1}}
    portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 7}}}]
  subsets:
  - {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
  - {name: v2, labels: {version: v2}, trafficPolicy: {portLevelSettings: [{port: {number: 80}, connectionPool: {tcp: {maxConnections: 9}}}]}}
".to_owned()].concat());
    let of = |name: &str| {
        let cluster = cluster(&snapshot, name);
        (cluster.lb_policy(), thresholds(&cluster).max_connections.unwrap().value)
    };
    assert_eq!(of(WHOLE), (LbPolicy::LeastRequest, 7), "the port's replaces all of the rest");
    assert_eq!(of("outbound|80|v1|a.test"), (LbPolicy::RoundRobin, 7));
    assert_eq!(of("outbound|80|v2|a.test"), (LbPolicy::LeastRequest, 9));
}

fn tls(cluster: &Cluster) -> UpstreamTlsContext {
    let Some(ConfigType::TypedConfig(any)) = &cluster.transport_socket.as_ref().unwrap().config_type else { panic!() };
    UpstreamTlsContext::decode(any.value.as_slice()).unwrap()
}

#[test]
fn certificates_come_as_secrets() {
    let snapshot = with(
        "{tls: {mode: MUTUAL, clientCertificate: /t/c.pem, privateKey: c.key, caCertificates: /t/ca.pem, sni: s}}",
    );
    assert_eq!(tls(&cluster(&snapshot, WHOLE)).sni, "s");
    let secret: Secret = get(&snapshot, TypeUrl::Secret, "file-cert:/t/c.pem~c.key");
    assert!(
        matches!(secret.r#type, Some(secret::Type::TlsCertificate(t)) if t.watched_directory.as_ref().unwrap().path == "/t")
    );
    assert_eq!(snapshot.count(TypeUrl::Secret), 2);
}

fn named(address: &str) -> Snapshot {
    let yaml = service("thrift").replace("STATIC", "DNS").replace("10.0.0.1", address).replace("10.0.0.2", "other");
    good(&yaml)
}

#[test]
fn names_are_resolved_to_v4_first() {
    let snapshot = named("localhost");
    let whole = cluster(&snapshot, WHOLE);
    assert_eq!(whole.cluster_discovery_type, Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns.into())));
    assert_eq!(whole.dns_lookup_family(), DnsLookupFamily::V4Preferred);
    let names: Vec<String> = places_of(whole.load_assignment.as_ref().unwrap()).into_iter().map(|p| p.0).collect();
    assert_eq!(names, ["localhost", "other"]);
    assert_eq!(snapshot.count(TypeUrl::Endpoints), 0);
}

#[test]
fn services_of_kubernetes() {
    let snapshot = good(
        "
apiVersion: v1
kind: Service
metadata: {name: users, namespace: shop}
spec: {clusterIP: 127.0.0.9, ports: [{name: rpc, port: 20880, appProtocol: meltemi.dev/dubbo}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-1, namespace: shop, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
ports: [{name: rpc, port: 99}]
endpoints:
- {addresses: [10.1.0.1]}
- {addresses: [10.1.0.2], conditions: {ready: false}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-2, namespace: shop, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
ports: [{name: rpc, port: 98}]
endpoints: [{addresses: [10.1.0.3]}]
",
    );
    let name = "outbound|20880||users.shop.svc.cluster.local";
    assert_eq!(places(&snapshot, name), [("10.1.0.1".to_owned(), 99, 1), ("10.1.0.3".to_owned(), 98, 1)]);
    let listener: Listener = get(&snapshot, TypeUrl::Listener, "users.shop.svc.cluster.local:20880");
    assert_eq!(listener.address, socket_address("127.0.0.9", 20880));
}

#[test]
fn a_wrong_endpoint_is_left_out_and_the_rest_is_served() {
    let compiled = all(&service("thrift").replace("10.0.0.1", "10.0.0."));
    assert_eq!(errors(&compiled).iter().map(|e| e.0).collect::<Vec<_>>(), ["spec.endpoints[0].address"]);
    assert_eq!(places(&compiled.snapshot, WHOLE).len(), 1);
    let compiled = all(&service("thrift").replace("STATIC", "DNS").replace("10.0.0.1", "''"));
    assert_eq!(errors(&compiled).iter().map(|e| e.0).collect::<Vec<_>>(), ["spec.endpoints[0].address"]);
}

#[test]
fn each_of_several_hosts_needs_an_address() {
    let two = service("thrift").replace("hosts: [a.test]", "hosts: [a.test, b.test]");
    let compiled = all(&two);
    assert_eq!(errors(&compiled), []);
    assert_eq!(warnings(&compiled)[0].0, "spec.hosts[1]");
    assert_eq!(compiled.snapshot.count(TypeUrl::Listener), 1);
    let snapshot = good(&two.replace("  ports: [", "  addresses: [10.9.0.1, 10.9.0.2]\n  ports: ["));
    let address = |name| get::<Listener>(&snapshot, TypeUrl::Listener, name).address;
    assert_eq!(address("a.test:80"), socket_address("10.9.0.1", 80));
    assert_eq!(address("b.test:80"), socket_address("10.9.0.2", 80));
}

#[test]
fn all_addresses_are_in_the_way_of_each() {
    let second = |address: &str| {
        let other = service("thrift").replace("a.test", "b.test").replace("name: a}", "name: b}");
        let at = |yaml: String, address: &str| {
            yaml.replace("  ports: [", &format!("  addresses: ['{address}']\n  ports: ["))
        };
        errors(&all(&[at(service("thrift"), "0.0.0.0"), at(other, address)].concat())).len()
    };
    assert_eq!([second("127.0.0.1"), second("0.0.0.0"), second("::1"), second("::")], [1, 1, 0, 0]);
}
