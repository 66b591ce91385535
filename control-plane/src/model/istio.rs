//! Istio's `ServiceEntry` and `DestinationRule`, as far as we act on them. Other fields are passed over.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{PortSelector, Span, common::null_is_default};

/// A host name.
pub type Host = String;

/// `networking.istio.io` `ServiceEntry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntry {
    /// Its names.
    #[serde(deserialize_with = "null_is_default")]
    pub hosts: Vec<Host>,
    /// Addresses; the first one is listened on.
    #[serde(deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    /// Those that istiod has given its hosts, from its status.
    #[serde(skip)]
    pub assigned: Vec<AssignedAddress>,
    /// Its ports.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<ServiceEntryPort>,
    /// How endpoints are found.
    #[serde(deserialize_with = "null_is_default")]
    pub resolution: Resolution,
    /// The endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub endpoints: Vec<Endpoint>,
    /// Endpoints are the pods with these labels.
    pub workload_selector: Option<WorkloadSelector>,
}

/// What istiod says in the status of a service entry that has no addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AssignedAddress {
    /// For which of its hosts.
    pub host: Host,
    /// The address.
    pub value: String,
}

/// Chooses workloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct WorkloadSelector {
    /// Labels that they have.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
}

/// A port of a service entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceEntryPort {
    /// Its number.
    #[serde(deserialize_with = "null_is_default")]
    pub number: u16,
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// A protocol that Istio knows, or nothing; `meltemi.dev/<protocol>` is understood as well, but istiod's webhook refuses it.
    #[serde(deserialize_with = "null_is_default")]
    pub protocol: String,
    /// Its number on the endpoints, if another.
    pub target_port: Option<u16>,
}

/// How endpoints are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// Not at all.
    #[default]
    None,
    /// They are listed by address.
    Static,
    /// They are listed by name.
    Dns,
    /// The same, one address at a time.
    DnsRoundRobin,
}

/// One endpoint of a service entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// IP address, or a name with resolution `DNS`.
    #[serde(deserialize_with = "null_is_default")]
    pub address: String,
    /// Ports by the name of the service entry's port.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: BTreeMap<String, u16>,
    /// Labels that subsets select by.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Share of requests; 1 if absent.
    pub weight: Option<u32>,
}

/// `networking.istio.io` `DestinationRule`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DestinationRule {
    /// The service it is about.
    #[serde(deserialize_with = "null_is_default")]
    pub host: Host,
    /// For all its endpoints.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of its endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub subsets: Vec<Subset>,
}

/// Endpoints with certain labels.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Subset {
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// The labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Replaces what the rule says for all.
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How connections to endpoints are made and chosen.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TrafficPolicy {
    /// Choice of the endpoint.
    pub load_balancer: Option<LoadBalancer>,
    /// Circuit breakers.
    pub connection_pool: Option<ConnectionPool>,
    /// When endpoints are left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS to the endpoints.
    pub tls: Option<ClientTls>,
    /// Policies of single ports, which then take nothing from the rest.
    #[serde(deserialize_with = "null_is_default")]
    pub port_level_settings: Vec<PortPolicy>,
}

/// The policy of one port.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "FlatPortPolicy")]
pub struct PortPolicy {
    /// Which.
    pub port: PortSelector,
    /// Its policy.
    pub policy: TrafficPolicy,
}

/// As it stands in a rule. Serde's own `flatten` would not tell of fields that nobody reads.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct FlatPortPolicy {
    #[serde(deserialize_with = "null_is_default")]
    port: PortSelector,
    load_balancer: Option<LoadBalancer>,
    connection_pool: Option<ConnectionPool>,
    outlier_detection: Option<OutlierDetection>,
    tls: Option<ClientTls>,
}

impl From<FlatPortPolicy> for PortPolicy {
    fn from(flat: FlatPortPolicy) -> Self {
        let FlatPortPolicy { port, load_balancer, connection_pool, outlier_detection, tls } = flat;
        let policy =
            TrafficPolicy { load_balancer, connection_pool, outlier_detection, tls, port_level_settings: Vec::new() };
        Self { port, policy }
    }
}

/// Choice of the endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancer {
    /// One of the simple ones.
    pub simple: Option<SimpleLb>,
    /// By hash.
    pub consistent_hash: Option<ConsistentHash>,
}

/// Simple choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLb {
    /// As Envoy does it by default: fewest requests of two.
    Unspecified,
    /// Fewest requests of two.
    LeastRequest,
    /// The same, by its old name.
    LeastConn,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// Where the client wanted to go.
    Passthrough,
}

/// Choice by hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsistentHash {
    /// Of a header, that is of metadata, where routes have no `hashPolicy`.
    pub http_header_name: Option<String>,
    /// Of the client's address, where routes have no `hashPolicy`.
    #[serde(deserialize_with = "null_is_default")]
    pub use_source_ip: bool,
    /// Entries of the ring at least.
    pub minimum_ring_size: Option<u64>,
    /// The same, in its newer place.
    pub ring_hash: Option<RingHash>,
    /// By a Maglev table instead of a ring.
    pub maglev: Option<Maglev>,
}

/// A ring of hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RingHash {
    /// Its entries at least.
    pub minimum_ring_size: Option<u64>,
}

/// A Maglev table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Maglev {
    /// Its entries, a prime number.
    pub table_size: Option<u64>,
}

/// Circuit breakers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConnectionPool {
    /// Of connections.
    #[serde(deserialize_with = "null_is_default")]
    pub tcp: TcpPool,
    /// Of requests.
    #[serde(deserialize_with = "null_is_default")]
    pub http: HttpPool,
}

/// Circuit breakers of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TcpPool {
    /// Connections to all endpoints.
    pub max_connections: Option<u32>,
    /// Until a connection is made.
    pub connect_timeout: Option<Span>,
    /// Until an idle connection is given up.
    pub idle_timeout: Option<Span>,
}

/// Circuit breakers of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpPool {
    /// Requests that wait for a connection.
    #[serde(rename = "http1MaxPendingRequests")]
    pub max_pending_requests: Option<u32>,
    /// Requests in flight.
    #[serde(rename = "http2MaxRequests")]
    pub max_requests: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
    /// Until an idle connection is given up.
    pub idle_timeout: Option<Span>,
}

/// When endpoints are left out for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OutlierDetection {
    /// Failures (5xx of the error table) in a row.
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Failures to reach the server in a row.
    pub consecutive_gateway_errors: Option<u32>,
    /// Time between looks.
    pub interval: Option<Span>,
    /// First time out.
    pub base_ejection_time: Option<Span>,
    /// Share of the endpoints that may be out.
    pub max_ejection_percent: Option<u32>,
    /// Share of healthy endpoints below which all are used.
    pub min_health_percent: Option<u32>,
}

/// TLS to the endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientTls {
    /// Which kind.
    #[serde(deserialize_with = "null_is_default")]
    pub mode: TlsMode,
    /// File of our certificate chain.
    pub client_certificate: Option<String>,
    /// File of its key.
    pub private_key: Option<String>,
    /// File of the authorities that servers' certificates are checked against.
    pub ca_certificates: Option<String>,
    /// Names of which the server's certificate must have one.
    #[serde(deserialize_with = "null_is_default")]
    pub subject_alt_names: Vec<String>,
    /// Name asked for.
    pub sni: Option<String>,
    /// A Kubernetes Secret, which there is none of here.
    pub credential_name: Option<String>,
    /// Take any certificate.
    #[serde(deserialize_with = "null_is_default")]
    pub insecure_skip_verify: bool,
}

/// Kinds of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TlsMode {
    /// None.
    #[default]
    Disable,
    /// The server shows a certificate.
    Simple,
    /// Both do.
    Mutual,
    /// Istio's own certificates, which there are none of here.
    IstioMutual,
}
