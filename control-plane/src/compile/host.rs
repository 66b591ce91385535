//! Where our filters run: in the dynamic module, or in Wasm.

use std::{net::IpAddr, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily},
            },
            core::v3::{
                AsyncDataSource, BackoffStrategy, DataSource, HttpUri, RemoteDataSource, TransportSocket,
                TypedExtensionConfig, async_data_source, data_source::Specifier, http_uri::HttpUpstreamType,
                transport_socket::ConfigType,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
        },
        extensions::{
            filters::network::{
                dynamic_modules::v3::DynamicModuleNetworkFilter, http_connection_manager::v3::HttpConnectionManager,
                wasm::v3::Wasm,
            },
            transport_sockets::tls::v3::UpstreamTlsContext,
            wasm::v3::{FailurePolicy, PluginConfig, ReloadConfig, VmConfig, plugin_config::Vm},
        },
    },
    google::protobuf::Duration as ProtoDuration,
};
use meltemi_engine::config::MOST_FRAME_BYTES;
use prost::Name;
use serde::Serialize;

use super::{
    cluster::socket_address,
    packing::{any, extension, filter_config, module, number, span},
};

/// Cluster from which Envoys fetch the code.
pub(crate) const CODE_CLUSTER: &str = "meltemi_wasm";
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(30);
/// Until a VM that has died is made anew, at first; Envoy doubles it.
pub(crate) const RELOAD: Duration = Duration::from_secs(1);

const UNREAD: Duration = Duration::from_secs(60);

/// Bytes that an inlet may have in flight: a frame, and as much again.
const WIDE: u32 = 2 * MOST_FRAME_BYTES;

/// What runs our filters in an Envoy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Host {
    /// The dynamic module.
    #[default]
    Module,
    /// A proxy-wasm plugin.
    Wasm(Code),
}

/// Where an Envoy finds a `.wasm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// A file beside it.
    File(String),
    /// Over HTTP.
    Remote {
        /// All of it, as it is fetched.
        url: String,
        /// Name or address of the server.
        host: String,
        /// Its port.
        port: u16,
        /// By TLS. What the server sends is known by its hash, so its certificate is not looked at.
        tls: bool,
        /// SHA-256 of the code, in hexadecimal digits.
        sha256: String,
    },
    /// An image of a registry, as `oci://registry/name:tag` or `oci://registry/name@sha256:digest`, which Istio's agents
    /// fetch. Envoys by themselves do not know such.
    Image(String),
}

/// How code gets to an Envoy.
pub(crate) enum Way<'c> {
    /// It lies there, under this path.
    Local(&'c str),
    /// It is fetched.
    Fetched {
        uri: &'c str,
        /// Empty: it is not compared.
        sha256: &'c str,
    },
}

impl Code {
    pub(crate) fn way(&self) -> Way<'_> {
        match self {
            Self::File(path) => Way::Local(path),
            Self::Remote { url, sha256, .. } => Way::Fetched { uri: url, sha256 },
            Self::Image(reference) => Way::Fetched { uri: reference, sha256: "" },
        }
    }
}

impl Host {
    /// One of our network filters.
    pub(super) fn network_filter<T: Serialize>(&self, name: &str, filter: &str, config: &T) -> TypedExtensionConfig {
        match self {
            Self::Module => extension(
                name,
                &DynamicModuleNetworkFilter {
                    dynamic_module_config: module(),
                    filter_name: filter.to_owned(),
                    filter_config: filter_config(config),
                    terminal_filter: false,
                },
            ),
            Self::Wasm(code) => extension(name, &Wasm { config: Some(plugin(name, filter, config, code)) }),
        }
    }

    /// The type of [`network_filter`](Self::network_filter).
    pub(super) fn type_url(&self) -> String {
        match self {
            Self::Module => DynamicModuleNetworkFilter::type_url(),
            Self::Wasm(_) => Wasm::type_url(),
        }
    }

    /// Makes a manager fit to stand behind an inlet.
    pub(super) fn adapt(&self, manager: &mut HttpConnectionManager) {
        // In Wasm, an inlet can keep its client waiting only with bytes in the buffer that ours have to go through. So ours
        // should not have to wait for window: the inlet bounds what it has in flight itself.
        if let (Self::Wasm(_), Some(http2)) = (self, &mut manager.http2_protocol_options) {
            http2.initial_stream_window_size = number(WIDE);
            http2.initial_connection_window_size = number(WIDE);
        }
    }

    /// How long a client may leave unread what is written for it. The module asks for nothing more meanwhile; a plugin is not
    /// told, and would serve it on.
    pub(super) fn unread(&self) -> Option<ProtoDuration> {
        match self {
            Self::Module => None,
            Self::Wasm(_) => span(UNREAD),
        }
    }

    /// The cluster that the code comes from, with its name.
    pub(super) fn code_cluster(&self) -> Option<(&'static str, Cluster)> {
        let Self::Wasm(Code::Remote { host, port, tls, .. }) = self else { return None };
        let endpoint = Endpoint { address: socket_address(host, *port), ..Endpoint::default() };
        let endpoint =
            LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
        let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
        // An address is no name for SNI (RFC 6066, section 3).
        let sni = if host.parse::<IpAddr>().is_ok() { String::new() } else { host.clone() };
        let context = UpstreamTlsContext { sni, ..UpstreamTlsContext::default() };
        let cluster = Cluster {
            name: CODE_CLUSTER.to_owned(),
            dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns.into())),
            connect_timeout: span(FETCH_TIMEOUT),
            load_assignment: Some(ClusterLoadAssignment {
                cluster_name: CODE_CLUSTER.to_owned(),
                endpoints: vec![locality],
                ..ClusterLoadAssignment::default()
            }),
            transport_socket: tls.then(|| TransportSocket {
                name: "envoy.transport_sockets.tls".to_owned(),
                config_type: any(&context).map(ConfigType::TypedConfig),
            }),
            ..Cluster::default()
        };
        Some((CODE_CLUSTER, cluster))
    }
}

/// A plugin. All of one Envoy share a VM for each of its workers.
fn plugin<T: Serialize>(name: &str, filter: &str, config: &T, code: &Code) -> PluginConfig {
    let backoff = BackoffStrategy { base_interval: span(RELOAD), ..BackoffStrategy::default() };
    PluginConfig {
        name: name.to_owned(),
        root_id: filter.to_owned(),
        configuration: filter_config(config),
        // Never open: what is behind the filter would get bytes that it does not understand.
        failure_policy: FailurePolicy::FailReload.into(),
        reload_config: Some(ReloadConfig { backoff: Some(backoff) }),
        vm: Some(Vm::VmConfig(VmConfig {
            vm_id: "meltemi".to_owned(),
            runtime: "envoy.wasm.runtime.v8".to_owned(),
            code: Some(AsyncDataSource { specifier: Some(source(code)) }),
            ..VmConfig::default()
        })),
        ..PluginConfig::default()
    }
}

fn source(code: &Code) -> async_data_source::Specifier {
    match code.way() {
        Way::Local(path) => async_data_source::Specifier::Local(DataSource {
            specifier: Some(Specifier::Filename(path.to_owned())),
            ..DataSource::default()
        }),
        Way::Fetched { uri, sha256 } => async_data_source::Specifier::Remote(RemoteDataSource {
            http_uri: Some(HttpUri {
                uri: uri.to_owned(),
                timeout: span(FETCH_TIMEOUT),
                http_upstream_type: Some(HttpUpstreamType::Cluster(CODE_CLUSTER.to_owned())),
            }),
            sha256: sha256.to_owned(),
            ..RemoteDataSource::default()
        }),
    }
}
