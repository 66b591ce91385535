//! What sidecars get from us where Istio sees TCP: an HCM in the place of `tcp_proxy`, and its routes. Clusters, listeners
//! and endpoints are istiod's.
//!
//! Routes, with their own limits, are for the client's side. The limits of the whole service are for the server's, as in
//! Aeraki: there they protect it from everybody.

use std::{collections::BTreeSet, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        core::v3::{
            ApiConfigSource, ApiVersion, ConfigSource, GrpcService, api_config_source::ApiType,
            config_source::ConfigSourceSpecifier, grpc_service,
        },
        route::v3::{
            Route as EnvoyRoute, RouteAction, RouteConfiguration, VirtualHost, route::Action,
            route_action::ClusterSpecifier,
        },
    },
    extensions::filters::network::{
        http_connection_manager::v3::{HttpConnectionManager, Rds, http_connection_manager::RouteSpecifier},
        tcp_proxy::v3::TcpProxy,
    },
};

use meltemi_engine::relay::RelayConfig;

use super::{
    Host, Output, cluster, hop,
    limits::{self, Limits},
    listener,
    packing::span,
    router, routes,
    services::{Port, Services},
    telemetry::{Side, Telemetry},
};
use crate::{
    problem::Problem,
    snapshot::{Snapshot, TypeUrl},
};

/// How long a sidecar that starts waits for us.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// How sidecars call our xDS server.
pub(crate) const XDS_CLUSTER: &str = "meltemi_xds";

/// The HCM of a client's sidecar.
pub(crate) fn outbound_name(runner: &Host, host: &str, port: u16) -> String {
    format!("{}.out.{host}:{port}", prefix(runner))
}

/// The HCM of a server's sidecar.
pub(crate) fn inbound_name(runner: &Host, host: &str, port: u16, target: u16) -> String {
    format!("{}.in.{host}:{port}.{target}", prefix(runner))
}

/// Routes of plugins lead to other clusters than those of the module.
const fn prefix(runner: &Host) -> &'static str {
    match runner {
        Host::Module => "meltemi.hcm",
        Host::Wasm(_) => "meltemi.wasm.hcm",
    }
}

/// istiod's cluster of a port of the pod itself.
pub(crate) fn inbound_cluster(target: u16) -> String {
    format!("inbound|{target}||")
}

/// Where routes at a client lead: to istiod's cluster of a port, or the hop before it.
pub(crate) fn outbound_to(runner: &Host, host: &str, port: u16) -> String {
    let cluster = cluster::name(host, port, None);
    match runner {
        Host::Module => cluster,
        Host::Wasm(_) => hop::name(&cluster),
    }
}

/// Where routes at a server lead: to that cluster, or the hop before it. Several services may have the port, and no hop may
/// be there twice.
pub(crate) fn inbound_to(runner: &Host, host: &str, port: u16, target: u16) -> String {
    let cluster = inbound_cluster(target);
    match runner {
        Host::Module => cluster,
        Host::Wasm(_) => hop::name(&format!("{cluster}{host}:{port}")),
    }
}

/// A manager without routes and filters, for the time until a proxy has ours.
pub(crate) fn bare_manager(runner: &Host, name: &str) -> HttpConnectionManager {
    listener::bare_manager(name, runner)
}

/// What the sidecars of a mesh have in common that run our filters in one way.
pub(crate) struct Sidecars<'m> {
    pub(crate) runner: &'m Host,
    pub(crate) services: &'m Services<'m>,
    pub(crate) telemetry: &'m Telemetry,
}

impl Sidecars<'_> {
    /// Adds the HCMs of a port in request mode, and their routes.
    pub(crate) fn managers(
        &self,
        port: &Port,
        targets: &BTreeSet<u16>,
        snapshot: &mut Snapshot,
        problems: &mut Vec<Problem>,
    ) {
        let Self { runner, services, telemetry } = *self;
        let Some(protocol) = &port.protocol else { return };
        let add = |side, name: &str, limits: &Limits, mut routes: RouteConfiguration, output: &mut Output| {
            // Limits change with the routes, so that nothing but the manager itself is for new connections alone.
            for host in &mut routes.virtual_hosts {
                host.typed_per_filter_config = limits.of_host();
            }
            output.add(TypeUrl::Route, name, &routes);
            let idle = Some(limits::idle_filter());
            let mut manager = listener::manager(name, runner, port, idle, limits.global_filter());
            let rds = Rds { config_source: Some(ours()), route_config_name: name.to_owned() };
            manager.route_specifier = Some(RouteSpecifier::Rds(rds));
            telemetry.add_to(&mut manager, side);
            output.add(TypeUrl::ExtensionConfig, name, &super::packing::extension(name, &manager));
        };
        let router = services.router_of(&port.host);
        let mut output = Output { snapshot: std::mem::take(snapshot), secrets: BTreeSet::new(), host: runner.clone() };
        let (client, server) = Limits::new(router, protocol, services, problems).of_sides();
        let name = outbound_name(runner, &port.host, port.number);
        let mut routes = routes::configuration(&name, port, protocol, router, &client, services, problems);
        if runner != &Host::Module {
            hop::lead_through(&mut routes);
        }
        add(Side::Client, &name, &client, routes, &mut output);
        for target in targets {
            let name = inbound_name(runner, &port.host, port.number, *target);
            let cluster = inbound_to(runner, &port.host, port.number, *target);
            let action = RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
                timeout: span(Duration::ZERO),
                rate_limits: server.for_all(),
                ..RouteAction::default()
            };
            let route: EnvoyRoute = routes::route("inbound", Vec::new(), Action::Route(action));
            let host = VirtualHost {
                name: port.host.clone(),
                domains: vec!["*".to_owned()],
                routes: server.split(route),
                ..VirtualHost::default()
            };
            let routes =
                RouteConfiguration { name: name.clone(), virtual_hosts: vec![host], ..RouteConfiguration::default() };
            add(Side::Server, &name, &server, routes, &mut output);
        }
        *snapshot = output.snapshot;
    }
}

/// The relay of a port in connection mode, as its clients' sidecars have it, and the `tcp_proxy` behind it.
pub(crate) fn relay(
    port: &Port,
    services: &Services<'_>,
    telemetry: &Telemetry,
    problems: &mut Vec<Problem>,
) -> Option<(RelayConfig, TcpProxy)> {
    let protocol = port.protocol.as_ref()?;
    let name = format!("{}:{}", port.host, port.number);
    let (relay, mut proxy) = router::filters(&name, port, protocol, services.router_of(&port.host), services, problems);
    telemetry.add_to_proxy(&mut proxy);
    Some((relay, proxy))
}

/// Our xDS server. Envoy has one subscription for one name at equal sources, and the listener has one from its beginning
/// (`istio::manager::keeper`), which is made of this.
pub(crate) fn ours() -> ConfigSource {
    let envoy = grpc_service::EnvoyGrpc { cluster_name: XDS_CLUSTER.to_owned(), ..grpc_service::EnvoyGrpc::default() };
    let service = GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy)),
        ..GrpcService::default()
    };
    ConfigSource {
        initial_fetch_timeout: span(FETCH_TIMEOUT),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
            api_type: ApiType::DeltaGrpc.into(),
            transport_api_version: ApiVersion::V3.into(),
            grpc_services: vec![service],
            ..ApiConfigSource::default()
        })),
        ..ConfigSource::default()
    }
}
