//! What Istio's own Envoy tells of calls: its filters `istio.stats` and `istio.metadata_exchange`, as istiod has them in its
//! HTTP connection managers, and a default access log. Stock Envoys have no such filters and refuse what names one.
//!
//! The headers of the exchange, `x-envoy-peer-metadata*`, stay in HTTP: names that begin so never enter a frame.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::extensions::filters::network::{
        http_connection_manager::v3::{HttpConnectionManager, HttpFilter, http_filter::ConfigType},
        tcp_proxy::v3::TcpProxy,
    },
    google::protobuf::{Any, ListValue, Struct, Value, value::Kind},
};
use prost::Message;

use super::listener;

/// Whose side of a call a sidecar is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What sidecars tell of calls where Istio sees TCP.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    /// By Istio's own filters.
    pub istio: bool,
    /// File that gets a line for each call, unless the Service names another.
    pub access_log: Option<String>,
}

impl Telemetry {
    pub(super) fn add_to(&self, manager: &mut HttpConnectionManager, side: Side) {
        if self.istio {
            // As in istiod's: peers are known before anything else is done, and calls are counted right before they leave.
            let last = manager.http_filters.len().saturating_sub(1);
            manager.http_filters.insert(last, stats(side));
            manager.http_filters.insert(0, peers(side));
        }
        if let (Some(path), true) = (&self.access_log, manager.access_log.is_empty()) {
            manager.access_log.push(listener::access_log(path));
        }
    }

    /// In connection mode a line is for each connection.
    pub(super) fn add_to_proxy(&self, proxy: &mut TcpProxy) {
        proxy.access_log.extend(self.access_log.iter().map(|path| listener::access_log(path)));
    }
}

/// `istio.api`'s `stats.PluginConfig`, as far as istiod sets it without a `Telemetry` that says more.
#[derive(Clone, PartialEq, Message)]
struct PluginConfig {
    #[prost(bool, tag = "6")]
    disable_host_header_fallback: bool,
}

/// `udpa.type.v1.TypedStruct`.
#[derive(Clone, PartialEq, Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Fields>,
}

/// `google.protobuf.Struct` whose fields have an order: the version of a resource is a hash of its bytes.
#[derive(Clone, PartialEq, Message)]
struct Fields {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, Value>,
}

fn stats(side: Side) -> HttpFilter {
    // At the server the name in `:authority` is what a client chose to say.
    let config = PluginConfig { disable_host_header_fallback: side == Side::Server };
    filter("istio.stats", "stats.PluginConfig", config.encode_to_vec())
}

fn peers(side: Side) -> HttpFilter {
    let (discovery, propagation) = match side {
        Side::Client => ("upstream_discovery", "upstream_propagation"),
        Side::Server => ("downstream_discovery", "downstream_propagation"),
    };
    let fields = BTreeMap::from([
        (discovery.to_owned(), list(&["istio_headers", "workload_discovery"])),
        (propagation.to_owned(), list(&["istio_headers"])),
    ]);
    let config = TypedStruct {
        type_url: "type.googleapis.com/io.istio.http.peer_metadata.Config".to_owned(),
        value: Some(Fields { fields }),
    };
    filter("istio.metadata_exchange", "udpa.type.v1.TypedStruct", config.encode_to_vec())
}

/// A list of ways, none of which has options. Each is one field: more would have no order.
fn list(ways: &[&str]) -> Value {
    let structure = |fields| Value { kind: Some(Kind::StructValue(Struct { fields })) };
    let way = |name: &&str| structure([((*name).to_owned(), structure([].into()))].into());
    Value { kind: Some(Kind::ListValue(ListValue { values: ways.iter().map(way).collect() })) }
}

fn filter(name: &str, kind: &str, value: Vec<u8>) -> HttpFilter {
    let config = Any { type_url: format!("type.googleapis.com/{kind}"), value };
    HttpFilter { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(config)), ..HttpFilter::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(filter: &HttpFilter) -> (String, Vec<u8>) {
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { panic!("{filter:?}") };
        (any.type_url.clone(), any.value.clone())
    }

    /// As in the configuration that istiod 1.31 shows for a sidecar: `{}`, `{"disableHostHeaderFallback": true}`, and
    /// `{"upstream_discovery": [{"istio_headers": {}}, {"workload_discovery": {}}], "upstream_propagation": [{"istio_headers": {}}]}`.
    #[test]
    fn as_istiod_says_it() {
        let of_stats = "type.googleapis.com/stats.PluginConfig".to_owned();
        assert_eq!(bytes(&stats(Side::Client)), (of_stats.clone(), Vec::new()));
        assert_eq!(bytes(&stats(Side::Server)), (of_stats, vec![6 << 3, 1]));
        let (url, value) = bytes(&peers(Side::Client));
        assert_eq!(url, "type.googleapis.com/udpa.type.v1.TypedStruct");
        let field = |name: &str, value: &[u8]| {
            [&[0x0a, name.len() as u8], name.as_bytes(), &[0x12, value.len() as u8], value].concat()
        };
        let nested = |tag: u8, inner: &[u8]| [&[tag, inner.len() as u8], inner].concat();
        // A Value that is a list (6) of Values (1) that are Structs (5) with one field (1) that is an empty Struct.
        let way = |name: &str| nested(0x0a, &nested(0x2a, &nested(0x0a, &field(name, &nested(0x2a, &[])))));
        let list = |ways: &[&str]| nested(0x32, &ways.iter().flat_map(|name| way(name)).collect::<Vec<u8>>());
        let discovery = field("upstream_discovery", &list(&["istio_headers", "workload_discovery"]));
        let propagation = field("upstream_propagation", &list(&["istio_headers"]));
        let fields = [nested(0x0a, &discovery), nested(0x0a, &propagation)].concat();
        let kind = "type.googleapis.com/io.istio.http.peer_metadata.Config";
        // Longer than 127 bytes: a length of two.
        let length = [(fields.len() & 0x7f) as u8 | 0x80, (fields.len() >> 7) as u8];
        let expected = [&[0x0a, kind.len() as u8], kind.as_bytes(), &[0x12], &length, &fields].concat();
        assert_eq!(value, expected);
        let (_, server) = bytes(&peers(Side::Server));
        let server = String::from_utf8_lossy(&server).into_owned();
        assert!(server.contains("downstream_discovery") && server.contains("downstream_propagation"));
    }

    #[test]
    fn around_the_other_filters() {
        let plain = |name: &str| HttpFilter { name: name.to_owned(), ..HttpFilter::default() };
        let manager = || HttpConnectionManager {
            http_filters: vec![plain("fault"), plain("router")],
            ..HttpConnectionManager::default()
        };
        let (mut with, mut without) = (manager(), manager());
        Telemetry { istio: true, access_log: Some("/dev/stdout".to_owned()) }.add_to(&mut with, Side::Client);
        let names: Vec<&str> = with.http_filters.iter().map(|filter| filter.name.as_str()).collect();
        assert_eq!(names, ["istio.metadata_exchange", "fault", "istio.stats", "router"]);
        assert_eq!(with.access_log.len(), 1);
        // What the Service says goes first.
        Telemetry { istio: false, access_log: Some("other".to_owned()) }.add_to(&mut with, Side::Client);
        assert_eq!((with.access_log.len(), with.http_filters.len()), (1, 4));
        Telemetry::default().add_to(&mut without, Side::Server);
        assert_eq!(without, manager());
    }

    #[test]
    fn what_peers_exchange_stays_out_of_frames() {
        for name in ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "X-Envoy-Peer-Metadata", "baggage"] {
            assert!(meltemi_engine::names::is_reserved(name.as_bytes()), "{name}");
        }
    }
}
