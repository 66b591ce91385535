//! Services and subsets → clusters and their endpoints.

use std::{collections::HashMap, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster,
                cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig},
            },
            core::v3::{
                Address, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpProtocolOptions, SocketAddress,
                TypedExtensionConfig, address, socket_address::PortSpecifier,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
        },
        extensions::upstreams::{
            http::{
                dynamic_modules::v3::Config as BridgeConfig,
                v3::{
                    HttpProtocolOptions,
                    http_protocol_options::{
                        ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                    },
                },
            },
            tcp::v3::TcpProtocolOptions,
        },
        r#type::v3::Percent,
    },
    google::protobuf::Any,
};
use meltemi_engine::config::OutletConfig;

use super::{
    Host, Output, hop,
    packing::{ads, any, extension, filter_config, module, number, span},
    policy,
    services::{Port, PortEndpoint, Protocol, Services},
    tls,
};
use crate::{
    model::{DestinationRule, Mode, Object, Subset, TrafficPolicy},
    problem::Problem,
    snapshot::TypeUrl,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster's name, as in Istio.
pub(crate) fn name(host: &str, port: u16, subset: Option<&str>) -> String {
    format!("outbound|{port}|{}|{host}", subset.unwrap_or_default())
}

/// Name of the cluster of a service that speaks gRPC with Envoy itself.
pub(super) fn service_name(host: &str, port: u16) -> String {
    format!("service|{port}||{host}")
}

/// Adds the clusters of a port: one for all endpoints, one for each subset.
pub(super) fn add(port: &Port, services: &Services<'_>, output: &mut Output, problems: &mut Vec<Problem>) {
    let Some(protocol) = &port.protocol else { return };
    let rule = services.rule_of(&port.host);
    let parts = std::iter::once(None).chain(rule.iter().flat_map(|rule| rule.spec.subsets.iter().map(Some)));
    for subset in parts {
        let policy = services.policy(&port.host, port.number, subset.map(|subset| subset.name.as_str()));
        let cluster = Building { port, protocol, rule, subset };
        if let Err((field, reason)) = cluster.add(&policy, output, problems)
            && let Some(rule) = rule
        {
            problems.push(rule.origin.error(field, reason));
        }
    }
}

/// Adds the cluster of a service that speaks gRPC with Envoy itself. One whose rule is wrong is left out and reported.
pub(super) fn add_service(port: &Port, services: &Services<'_>, output: &mut Output, problems: &mut Vec<Problem>) {
    let name = service_name(&port.host, port.number);
    let rule = services.rule_of(&port.host);
    let policy = services.policy(&port.host, port.number, None);
    let pool = policy.connection_pool.as_ref();
    let idle = pool.and_then(|pool| pool.http.idle_timeout.or(pool.tcp.idle_timeout));
    let options = http2_options(Http2ProtocolOptions::default(), idle.map(|idle| idle.0));
    let mut cluster = Cluster { typed_extension_protocol_options: options, ..Cluster::default() };
    match apply(&policy, rule, &["h2"], &mut cluster, output, problems) {
        Ok(()) => {
            endpoints(port, &name, &port.endpoints.iter().collect::<Vec<_>>(), &mut cluster, false, output);
            output.add(TypeUrl::Cluster, &name, &cluster);
        }
        Err((field, reason)) => problems.extend(rule.map(|rule| rule.origin.error(field, reason))),
    }
}

/// HTTP/2 towards a cluster. `idle`: until an idle connection is given up.
pub(super) fn http2_options(http2: Http2ProtocolOptions, idle: Option<Duration>) -> HashMap<String, Any> {
    let explicit = ExplicitHttpConfig { protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)) };
    let options = HttpProtocolOptions {
        common_http_protocol_options: idle
            .map(|idle| CommonHttpProtocolOptions { idle_timeout: span(idle), ..CommonHttpProtocolOptions::default() }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..HttpProtocolOptions::default()
    };
    let key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    any(&options).map(|any| (key.to_owned(), any)).into_iter().collect()
}

/// What a rule's policy says of a cluster.
fn apply(
    policy: &TrafficPolicy,
    rule: Option<&Object<DestinationRule>>,
    alpn: &[&str],
    cluster: &mut Cluster,
    output: &mut Output,
    problems: &mut Vec<Problem>,
) -> Result<(), policy::Wrong> {
    policy::check(policy)?;
    let timeout = policy.connection_pool.as_ref().and_then(|pool| pool.tcp.connect_timeout);
    cluster.connect_timeout = span(timeout.map_or(CONNECT_TIMEOUT, |timeout| timeout.0));
    cluster.circuit_breakers = Some(policy::breakers(policy));
    cluster.outlier_detection = policy.outlier_detection.as_ref().map(policy::outliers);
    cluster.common_lb_config = policy.outlier_detection.as_ref().map(|outliers| CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: f64::from(outliers.min_health_percent.unwrap_or(0)) }),
        ..CommonLbConfig::default()
    });
    policy::load_balancing(policy, cluster);
    if let (Some(tls), Some(rule)) = (&policy.tls, rule) {
        cluster.transport_socket = tls::upstream(tls, alpn, &rule.origin, output, problems)?;
    }
    Ok(())
}

struct Building<'a> {
    port: &'a Port,
    protocol: &'a Protocol,
    rule: Option<&'a Object<DestinationRule>>,
    subset: Option<&'a Subset>,
}

impl Building<'_> {
    /// A cluster whose policy is wrong is left out: without its TLS, say, it would do harm.
    fn add(
        &self,
        policy: &TrafficPolicy,
        output: &mut Output,
        problems: &mut Vec<Problem>,
    ) -> Result<(), policy::Wrong> {
        let port = self.port;
        let name = name(&port.host, port.number, self.subset.map(|subset| subset.name.as_str()));
        let chosen: Vec<&PortEndpoint> = port
            .endpoints
            .iter()
            .filter(|endpoint| {
                self.subset.is_none_or(|subset| subset.labels.iter().all(|(k, v)| endpoint.labels.get(k) == Some(v)))
            })
            .collect();
        if let (Some(subset), Some(rule)) = (self.subset, self.rule)
            && chosen.is_empty()
        {
            let reason = format!("no endpoint of {}:{} has these labels", port.host, port.number);
            let index = rule.spec.subsets.iter().position(|other| other.name == subset.name).unwrap_or(0);
            problems.push(rule.origin.warning(format!("spec.subsets[{index}].labels"), reason));
        }
        let options = self.idle_timeout(policy).and_then(|idle| any(&TcpProtocolOptions { idle_timeout: span(idle) }));
        let options = options.map(|any| ("envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions".to_owned(), any));
        let mut cluster =
            Cluster { typed_extension_protocol_options: options.into_iter().collect(), ..Cluster::default() };
        apply(policy, self.rule, &[], &mut cluster, output, problems)?;
        let hops = self.protocol.mode == Mode::Request && matches!(output.host, Host::Wasm(_));
        endpoints(port, &name, &chosen, &mut cluster, hops, output);
        if self.protocol.mode == Mode::Request {
            let config = self.protocol.outlet();
            if hops {
                hop::insert(&mut cluster, &config, self.idle_timeout(policy), output);
            } else {
                cluster.upstream_config = Some(bridge(&config));
            }
        }
        output.add(TypeUrl::Cluster, &name, &cluster);
        Ok(())
    }

    /// Until an idle connection is given up: before its server does, where servers of the protocol do that.
    fn idle_timeout(&self, policy: &TrafficPolicy) -> Option<Duration> {
        let pool = policy.connection_pool.as_ref();
        let configured =
            pool.and_then(|pool| pool.tcp.idle_timeout.or(pool.http.idle_timeout)).map(|timeout| timeout.0);
        let demanded = self.protocol.capabilities.upstream_heartbeat.map(|heartbeat| heartbeat.saturating_mul(2));
        match (configured, demanded) {
            (Some(configured), Some(demanded)) => Some(configured.min(demanded)),
            (configured, demanded) => configured.or(demanded),
        }
    }
}

/// The outlet in front of a cluster's servers.
fn bridge(config: &OutletConfig) -> TypedExtensionConfig {
    extension(
        "envoy.upstreams.http.dynamic_modules",
        &BridgeConfig {
            dynamic_module_config: module(),
            bridge_name: "outlet".to_owned(),
            bridge_config: filter_config(config),
        },
    )
}

/// Names a cluster and gives it its endpoints: by EDS, or by name with DNS. `hops`: there will be a hop in between.
fn endpoints(
    port: &Port,
    name: &str,
    endpoints: &[&PortEndpoint],
    cluster: &mut Cluster,
    hops: bool,
    output: &mut Output,
) {
    let lb_endpoints = endpoints.iter().map(|endpoint| {
        if hops && !port.dns {
            return hop::endpoint(name, endpoint);
        }
        LbEndpoint {
            load_balancing_weight: number(endpoint.weight),
            host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
                address: socket_address(&endpoint.address, endpoint.port),
                ..Endpoint::default()
            })),
            ..LbEndpoint::default()
        }
    });
    let lb_endpoints: Vec<LbEndpoint> = lb_endpoints.collect();
    let locality =
        LocalityLbEndpoints { lb_endpoints, load_balancing_weight: number(1), ..LocalityLbEndpoints::default() };
    let assignment = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: if endpoints.is_empty() { Vec::new() } else { vec![locality] },
        ..ClusterLoadAssignment::default()
    };
    name.clone_into(&mut cluster.name);
    if port.dns {
        // Of `localhost`, Envoy would take ::1 alone, where servers seldom listen.
        cluster.dns_lookup_family = DnsLookupFamily::V4Preferred.into();
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns.into()));
        cluster.load_assignment = Some(assignment);
    } else {
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
        cluster.eds_cluster_config = Some(EdsClusterConfig { eds_config: ads(), ..EdsClusterConfig::default() });
        output.add(TypeUrl::Endpoints, name, &assignment);
    }
}

pub(super) fn socket_address(address: &str, port: u16) -> Option<Address> {
    let socket = SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
        ..SocketAddress::default()
    };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}
