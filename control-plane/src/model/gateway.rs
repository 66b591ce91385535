//! Gateways of Istio and of the Gateway API, in one form, as far as we act on them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::common::null_is_default;

/// A gateway: which ports certain proxies listen on, for whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its proxies.
    pub proxies: Proxies,
    /// Its ports, in their order.
    pub servers: Vec<GatewayServer>,
}

/// Proxies of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proxies {
    /// Pods with these labels, in whatever namespace.
    Labels(BTreeMap<String, String>),
    /// What stands behind these Services of the gateway's own namespace.
    Services(Vec<String>),
}

/// One port of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayServer {
    /// Its number, which is that of a Service in front of the proxies.
    pub port: u16,
    /// What Istio makes of it.
    pub protocol: GatewayProtocol,
    /// For which names, without the namespaces that may stand before them.
    pub hosts: Vec<String>,
}

/// What Istio makes of a gateway's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayProtocol {
    /// Calls that are routed one by one.
    Http,
    /// The same, in TLS that ends here.
    Https,
    /// Connections.
    Tcp,
}

impl GatewayProtocol {
    /// `passthrough`: TLS does not end here.
    fn new(name: &str, passthrough: bool) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => Self::Http,
            "HTTPS" if !passthrough => Self::Https,
            _ => Self::Tcp,
        }
    }
}

/// `networking.istio.io` `Gateway`, as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct IstioGateway {
    #[serde(deserialize_with = "null_is_default")]
    selector: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_default")]
    servers: Vec<IstioServer>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct IstioServer {
    #[serde(deserialize_with = "null_is_default")]
    port: IstioPort,
    #[serde(deserialize_with = "null_is_default")]
    hosts: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    tls: Tls,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct IstioPort {
    #[serde(deserialize_with = "null_is_default")]
    number: u16,
    #[serde(deserialize_with = "null_is_default")]
    protocol: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Tls {
    #[serde(deserialize_with = "null_is_default")]
    mode: String,
}

impl From<IstioGateway> for Gateway {
    fn from(gateway: IstioGateway) -> Self {
        let server = |server: IstioServer| GatewayServer {
            port: server.port.number,
            protocol: GatewayProtocol::new(&server.port.protocol, server.tls.mode.ends_with("PASSTHROUGH")),
            hosts: server.hosts.iter().map(|host| host.rsplit('/').next().unwrap_or(host).to_owned()).collect(),
        };
        Self { proxies: Proxies::Labels(gateway.selector), servers: gateway.servers.into_iter().map(server).collect() }
    }
}

/// `gateway.networking.k8s.io` `Gateway`, as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ApiGateway {
    #[serde(deserialize_with = "null_is_default")]
    gateway_class_name: String,
    #[serde(deserialize_with = "null_is_default")]
    addresses: Vec<Address>,
    #[serde(deserialize_with = "null_is_default")]
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Address {
    #[serde(deserialize_with = "null_is_default")]
    value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Listener {
    #[serde(deserialize_with = "null_is_default")]
    port: u16,
    #[serde(deserialize_with = "null_is_default")]
    protocol: String,
    hostname: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    tls: Tls,
}

impl ApiGateway {
    /// The gateway of this name. Without addresses Istio makes its proxies, and a Service in front of them.
    pub fn named(self, name: &str) -> Gateway {
        let mut services: Vec<String> = self.addresses.iter().map(|address| first_label(&address.value)).collect();
        if services.is_empty() {
            services.push(format!("{name}-{}", self.gateway_class_name));
        }
        let server = |listener: Listener| GatewayServer {
            port: listener.port,
            protocol: GatewayProtocol::new(&listener.protocol, listener.tls.mode == "Passthrough"),
            hosts: vec![listener.hostname.filter(|host| !host.is_empty()).unwrap_or_else(|| "*".to_owned())],
        };
        Gateway { proxies: Proxies::Services(services), servers: self.listeners.into_iter().map(server).collect() }
    }
}

/// The name of a Service in its host name.
fn first_label(host: &str) -> String {
    host.split('.').next().unwrap_or(host).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn istio(spec: Value) -> Gateway {
        serde_json::from_value::<IstioGateway>(spec).unwrap().into()
    }

    fn api(spec: Value) -> Gateway {
        serde_json::from_value::<ApiGateway>(spec).unwrap().named("edge")
    }

    #[test]
    fn both_kinds_say_the_same() {
        let of_istio = istio(json!({"selector": {"istio": "edge"}, "servers": [
            {"port": {"number": 9090, "name": "rpc", "protocol": "HTTP"}, "hosts": ["shop/orders.test"]},
            {"port": {"number": 443, "name": "s", "protocol": "HTTPS"}, "hosts": ["*"], "tls": {"mode": "SIMPLE"}},
            {"port": {"number": 444, "name": "p", "protocol": "HTTPS"}, "hosts": ["*"], "tls": {"mode": "PASSTHROUGH"}},
        ]}));
        let of_api = api(json!({"gatewayClassName": "istio", "listeners": [
            {"name": "rpc", "port": 9090, "protocol": "HTTP", "hostname": "orders.test"},
            {"name": "s", "port": 443, "protocol": "HTTPS", "tls": {"mode": "Terminate"}},
            {"name": "p", "port": 444, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
        ]}));
        assert_eq!(of_istio.servers, of_api.servers);
        let server = |port, protocol, host: &str| GatewayServer { port, protocol, hosts: vec![host.to_owned()] };
        assert_eq!(
            of_istio.servers,
            [
                server(9090, GatewayProtocol::Http, "orders.test"),
                server(443, GatewayProtocol::Https, "*"),
                server(444, GatewayProtocol::Tcp, "*"),
            ]
        );
        assert_eq!(of_istio.proxies, Proxies::Labels([("istio".to_owned(), "edge".to_owned())].into()));
    }

    #[test]
    fn a_gateway_of_the_gateway_api_stands_behind_services() {
        let of = |addresses: Value| api(json!({"gatewayClassName": "istio", "addresses": addresses})).proxies;
        assert_eq!(of(json!(null)), Proxies::Services(vec!["edge-istio".to_owned()]), "Istio makes it");
        let own = json!([{"type": "Hostname", "value": "ingress.shop.svc.cluster.local"}]);
        assert_eq!(of(own), Proxies::Services(vec!["ingress".to_owned()]));
    }
}
