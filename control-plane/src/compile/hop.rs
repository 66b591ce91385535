//! Outlets in Wasm. Envoy has no upstream bridge there: between router and server comes an internal listener with the
//! outlet, and behind it an HTTP connection manager that turns the outlet's `CONNECT` into a connection to the server.
//!
//! ```text
//! router ─▶ cluster C, internal endpoints ─▶ listener hop|C: outlet, manager ─▶ cluster server|C
//! ```
//!
//! C keeps all that is said of requests (load balancing, outliers, circuit breakers), `server|C` has the connection (TLS). An
//! endpoint of C carries the server's address with it. Where addresses come by DNS, C has one endpoint, and `server|C` chooses.

use std::{collections::HashMap, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
            },
            core::v3::{
                Address, EnvoyInternalAddress, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpProtocolOptions,
                Metadata, TransportSocket, address, envoy_internal_address::AddressNameSpecifier,
                transport_socket::ConfigType,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
            listener::v3::{
                FilterChain, Listener, ListenerFilter,
                listener::{InternalListenerConfig, ListenerSpecifier},
                listener_filter,
            },
            route::v3::{
                Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
                route::Action,
                route_action::{ClusterSpecifier, UpgradeConfig, upgrade_config::ConnectConfig},
                route_match::{ConnectMatcher, PathSpecifier},
            },
        },
        extensions::{
            filters::{
                http::router::v3::Router,
                listener::original_dst::v3::OriginalDst,
                network::http_connection_manager::v3::{
                    HttpConnectionManager,
                    http_connection_manager::{CodecType, RouteSpecifier, UpgradeConfig as ManagerUpgrade},
                },
            },
            transport_sockets::{
                internal_upstream::v3::{InternalUpstreamTransport, internal_upstream_transport::MetadataValueSource},
                raw_buffer::v3::RawBuffer,
            },
        },
        r#type::metadata::v3::{MetadataKind, metadata_kind},
    },
    google::protobuf::{Struct, Value, value},
};
use meltemi_engine::config::OutletConfig;

use super::{
    Output,
    cluster::http2_options,
    listener,
    packing::{any, boolean, number, span},
    policy,
    services::PortEndpoint,
};
use crate::{model::TrafficPolicy, snapshot::TypeUrl};

/// Key under which an endpoint tells the listener filter `original_dst` where its connections go.
const ADDRESS_KEY: &str = "envoy.filters.listener.original_dst";

/// An endpoint of C that stands for a server.
pub(super) fn endpoint(cluster: &str, endpoint: &PortEndpoint) -> LbEndpoint {
    let host = &endpoint.address;
    let address =
        if host.contains(':') { format!("[{host}]:{}", endpoint.port) } else { format!("{host}:{}", endpoint.port) };
    let text = Value { kind: Some(value::Kind::StringValue(address.clone())) };
    let local = Struct { fields: HashMap::from([("local".to_owned(), text)]) };
    LbEndpoint {
        load_balancing_weight: number(endpoint.weight),
        metadata: Some(Metadata {
            filter_metadata: HashMap::from([(ADDRESS_KEY.to_owned(), local)]),
            ..Metadata::default()
        }),
        host_identifier: Some(internal(cluster, address)),
        ..LbEndpoint::default()
    }
}

fn internal(cluster: &str, id: String) -> HostIdentifier {
    let address = EnvoyInternalAddress {
        endpoint_id: id,
        address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(name(cluster))),
    };
    HostIdentifier::Endpoint(Endpoint {
        address: Some(Address { address: Some(address::Address::EnvoyInternalAddress(address)) }),
        ..Endpoint::default()
    })
}

/// Name of the internal listener before a cluster and, in a mesh, where the cluster is istiod's, of the cluster that leads
/// there.
pub(crate) fn name(cluster: &str) -> String {
    format!("hop|{cluster}")
}

/// Makes routes lead to the hops before their clusters.
pub(super) fn lead_through(routes: &mut RouteConfiguration) {
    let actions =
        routes.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes).filter_map(|route| match &mut route.action {
            Some(Action::Route(action)) => Some(action),
            _ => None,
        });
    for action in actions {
        match &mut action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(cluster)) => *cluster = name(cluster),
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                weighted.clusters.iter_mut().for_each(|cluster| cluster.name = name(&cluster.name));
            }
            _ => {}
        }
        action.request_mirror_policies.iter_mut().for_each(|mirror| mirror.cluster = name(&mirror.cluster));
    }
}

fn server_name(cluster: &str) -> String {
    format!("server|{cluster}")
}

/// Puts the hop in between: what concerns connections leaves `cluster` for one of its own. `idle`: until an idle connection
/// is given up.
pub(super) fn insert(cluster: &mut Cluster, config: &OutletConfig, idle: Option<Duration>, output: &mut Output) {
    let name = cluster.name.clone();
    let mut server = Cluster {
        name: server_name(&name),
        connect_timeout: cluster.connect_timeout,
        circuit_breakers: Some(policy::breakers(&TrafficPolicy::default())),
        transport_socket: cluster.transport_socket.take(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into())),
        lb_policy: LbPolicy::ClusterProvided.into(),
        typed_extension_protocol_options: core::mem::take(&mut cluster.typed_extension_protocol_options),
        ..Cluster::default()
    };
    if let Some(mut servers) = cluster.load_assignment.take() {
        servers.cluster_name.clone_from(&server.name);
        server.load_assignment = Some(servers);
        server.cluster_discovery_type = cluster.cluster_discovery_type.take();
        server.dns_lookup_family = core::mem::take(&mut cluster.dns_lookup_family);
        server.lb_policy = LbPolicy::LeastRequest.into();
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into()));
        let hop = LbEndpoint { host_identifier: Some(internal(&name, String::new())), ..LbEndpoint::default() };
        cluster.load_assignment = Some(ClusterLoadAssignment {
            cluster_name: name.clone(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![hop], ..LocalityLbEndpoints::default() }],
            ..ClusterLoadAssignment::default()
        });
    }
    cluster.transport_socket = Some(socket());
    // One request at a time on a connection: that is one connection to the server.
    let http2 = Http2ProtocolOptions { max_concurrent_streams: number(1), ..Http2ProtocolOptions::default() };
    cluster.typed_extension_protocol_options = http2_options(http2, idle);
    output.add(TypeUrl::Cluster, &server.name, &server);
    add_listener(&name, &server.name, config, output);
}

/// A connection within Envoy that takes the server's address along.
fn socket() -> TransportSocket {
    let raw = TransportSocket {
        name: "envoy.transport_sockets.raw_buffer".to_owned(),
        config_type: any(&RawBuffer {}).map(ConfigType::TypedConfig),
    };
    let kind = MetadataKind { kind: Some(metadata_kind::Kind::Host(metadata_kind::Host {})) };
    let transport = InternalUpstreamTransport {
        passthrough_metadata: vec![MetadataValueSource { kind: Some(kind), name: ADDRESS_KEY.to_owned() }],
        transport_socket: Some(raw),
    };
    TransportSocket {
        name: "envoy.transport_sockets.internal_upstream".to_owned(),
        config_type: any(&transport).map(ConfigType::TypedConfig),
    }
}

fn add_listener(cluster: &str, server: &str, config: &OutletConfig, output: &mut Output) {
    let outlet = format!("outlet|{cluster}");
    listener::add_filter(&outlet, "outlet", config, output);
    let name = name(cluster);
    let manager = manager(&name, server);
    let listener = Listener {
        name: name.clone(),
        listener_filters: vec![ListenerFilter {
            name: "envoy.filters.listener.original_dst".to_owned(),
            config_type: any(&OriginalDst {}).map(listener_filter::ConfigType::TypedConfig),
            ..ListenerFilter::default()
        }],
        filter_chains: vec![FilterChain {
            filters: vec![
                listener::discovered(&outlet, &output.host),
                listener::plain("envoy.filters.network.http_connection_manager", &manager),
            ],
            ..FilterChain::default()
        }],
        listener_specifier: Some(ListenerSpecifier::InternalListener(InternalListenerConfig {})),
        stat_prefix: name.clone(),
        ..Listener::default()
    };
    output.add(TypeUrl::Listener, &name, &listener);
}

/// The manager behind an outlet: every request is a `CONNECT`.
fn manager(name: &str, server: &str) -> HttpConnectionManager {
    let never = span(Duration::ZERO);
    let connect = UpgradeConfig {
        upgrade_type: "CONNECT".to_owned(),
        connect_config: Some(ConnectConfig::default()),
        ..UpgradeConfig::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(server.to_owned())),
            timeout: never,
            upgrade_configs: vec![connect],
            ..RouteAction::default()
        })),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "server".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let routes =
        RouteConfiguration { name: name.to_owned(), virtual_hosts: vec![host], ..RouteConfiguration::default() };
    let router = Router { suppress_envoy_headers: true, dynamic_stats: boolean(false), ..Router::default() };
    HttpConnectionManager {
        stat_prefix: name.to_owned(),
        codec_type: CodecType::Http2.into(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![listener::http_filter("envoy.filters.http.router", &router)],
        http2_protocol_options: Some(Http2ProtocolOptions { allow_connect: true, ..Http2ProtocolOptions::default() }),
        common_http_protocol_options: Some(CommonHttpProtocolOptions {
            idle_timeout: never,
            ..CommonHttpProtocolOptions::default()
        }),
        upgrade_configs: vec![ManagerUpgrade { upgrade_type: "CONNECT".to_owned(), ..ManagerUpgrade::default() }],
        stream_idle_timeout: never,
        request_timeout: never,
        generate_request_id: boolean(false),
        ..HttpConnectionManager::default()
    }
}
