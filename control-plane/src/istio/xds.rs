//! Where sidecars find our xDS server, and how they know it.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::{Value, json};

use super::{Desired, Facts, patch};
use crate::{
    compile::{Host, mesh::XDS_CLUSTER},
    model::Mode,
};

/// Our xDS server as sidecars see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdsService {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How they know it; without it they speak plain text.
    pub tls: Option<ServiceTls>,
}

/// How sidecars know our xDS server. They show it their own certificates, as they do to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTls {
    /// Who has signed its certificate.
    pub root: Root,
    /// A name that its certificate must have: a SPIFFE identity, a DNS name or an address.
    pub san: String,
}

/// A certificate's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The mesh's own.
    Mesh,
    /// Another, in PEM.
    Pem(String),
}

/// The cluster of our xDS server, for all proxies that run our filters so.
pub(super) fn cluster(runner: &Host, service: &XdsService, facts: &Facts) -> Desired {
    let XdsService { host, port, tls } = service;
    let kind = if host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let mut cluster = json!({
        "name": XDS_CLUSTER,
        "type": kind,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}},
        ]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {
                "connection_keepalive": {"interval": "30s", "timeout": "10s"},
            }},
        }},
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = transport_socket(host, tls);
    }
    let patches = vec![patch::add_cluster(cluster)];
    let name = format!("meltemi-{}xds", runner.word().replace('.', "-"));
    patch::envoy_filter_of(runner.proxies(Mode::Request), &facts.root_namespace, name, None, &BTreeMap::new(), patches)
}

/// As istiod writes it for clusters of the mesh; secrets come from the agent beside the proxy.
fn transport_socket(host: &str, tls: &ServiceTls) -> Value {
    let names = san_match(&tls.san);
    let mut context = json!({
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [secret("default")],
    });
    match &tls.root {
        Root::Mesh => {
            context["combined_validation_context"] = json!({
                "default_validation_context": {"match_typed_subject_alt_names": names},
                "validation_context_sds_secret_config": secret("ROOTCA"),
            });
        }
        Root::Pem(pem) => {
            context["validation_context"] =
                json!({"trusted_ca": {"inline_string": pem}, "match_typed_subject_alt_names": names});
        }
    }
    upstream_tls(host, &context)
}

/// TLS towards a host, by this `CommonTlsContext`.
pub(crate) fn upstream_tls(host: &str, context: &Value) -> Value {
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": context,
    });
    // An address is no server name.
    if host.parse::<IpAddr>().is_err() {
        config["sni"] = json!(host);
    }
    json!({"name": "envoy.transport_sockets.tls", "typed_config": config})
}

/// What Envoy demands of a certificate that has this name.
pub(crate) fn san_match(san: &str) -> Value {
    let kind = if san.starts_with("spiffe://") {
        "URI"
    } else if san.parse::<IpAddr>().is_ok() {
        "IP_ADDRESS"
    } else {
        "DNS"
    };
    json!([{"san_type": kind, "matcher": {"exact": san}}])
}

fn secret(name: &str) -> Value {
    json!({
        "name": name,
        "sds_config": {
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
            },
            "initial_fetch_timeout": "0s",
            "resource_api_version": "V3",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster_of(host: &str, tls: Option<ServiceTls>) -> Value {
        let service = XdsService { host: host.to_owned(), port: 18000, tls };
        cluster(&Host::Module, &service, &Facts::default()).spec.value()["configPatches"][0]["patch"]["value"].clone()
    }

    #[test]
    fn plain_text_unless_told() {
        assert_eq!(cluster_of("xds.meltemi", None)["transport_socket"], Value::Null);
    }

    #[test]
    fn a_server_of_the_mesh_is_known_by_its_identity() {
        let san = "spiffe://cluster.local/ns/meltemi-system/sa/meltemi".to_owned();
        let config =
            cluster_of("xds.meltemi", Some(ServiceTls { root: Root::Mesh, san: san.clone() }))["transport_socket"]["typed_config"].clone();
        let context = &config["common_tls_context"];
        assert_eq!(config["sni"], "xds.meltemi");
        assert_eq!(context["tls_certificate_sds_secret_configs"][0]["name"], "default");
        let combined = &context["combined_validation_context"];
        assert_eq!(combined["validation_context_sds_secret_config"]["name"], "ROOTCA");
        let name = &combined["default_validation_context"]["match_typed_subject_alt_names"][0];
        assert_eq!((&name["san_type"], &name["matcher"]["exact"]), (&json!("URI"), &json!(san)));
    }

    #[test]
    fn one_of_another_root_is_known_by_its_name() {
        let tls = |san: &str| Some(ServiceTls { root: Root::Pem("PEM".to_owned()), san: san.to_owned() });
        let config = |host, san| cluster_of(host, tls(san))["transport_socket"]["typed_config"].clone();
        let (name, address) = (config("xds.meltemi", "xds.meltemi"), config("10.0.0.1", "10.0.0.1"));
        let context = |config: &Value| config["common_tls_context"]["validation_context"].clone();
        assert_eq!(context(&name)["trusted_ca"]["inline_string"], "PEM");
        assert_eq!(context(&name)["match_typed_subject_alt_names"][0]["san_type"], "DNS");
        assert_eq!(context(&address)["match_typed_subject_alt_names"][0]["san_type"], "IP_ADDRESS");
        assert_eq!(address["sni"], Value::Null, "an address is no server name");
    }
}
