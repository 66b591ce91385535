//! The native shape: istiod makes listeners, HCM, routes and clusters; we add the inlet, the bridge, and the word that a
//! connection is HTTP.

use std::collections::BTreeMap;

use meltemi_engine::config::{DeclareConfig, Destination, InletConfig, OutletConfig, VERSION};
use serde_json::json;

use super::{
    Compiled, Facts, Options,
    patch::{self, HCM, Place, Side},
    ports::{MeshPort, Shape},
};

/// What a server's sidecar is told of a connection: both names of HTTP that Istio's inbound chains know.
const INBOUND_PROTOCOLS: [&str; 2] = ["istio-http/1.1", "h2c"];
/// Makes a client's sidecar offer `istio-http/1.1`, which a server's sidecar without the module would take for HTTP.
pub(super) const ALPN_FILTER: &str = "istio.alpn";
/// Of Istio: connections whose port is found out later.
pub(super) const INBOUND: &str = "virtualInbound";

/// Adds the objects of a port.
pub(super) fn add(port: &MeshPort<'_>, facts: &Facts, options: &Options, output: &mut Compiled) {
    client(port, facts, options, output);
    if !port.selector.is_empty() {
        server(port, output);
    }
}

fn client(port: &MeshPort<'_>, facts: &Facts, options: &Options, output: &mut Compiled) {
    let name = port.filter_name(Side::Client);
    let inlet_name = port.extension_name("inlet", Side::Client);
    let declare_name = port.extension_name("declare", Side::Client);
    let mut patches = Vec::new();
    // A listener of the service's own has no other connections; a shared one does.
    let shared = port.shape == Shape::Http || port.anywhere;
    let destinations = |authority: bool| -> Vec<Destination> {
        let authority = authority.then(|| port.authority());
        let of = |address| Destination { address, port: port.number, authority: authority.clone() };
        if port.anywhere {
            return vec![of(None)];
        }
        port.addresses.iter().map(|address| of(Some(*address))).collect()
    };
    for listener in port.listeners() {
        let place = Place { side: Side::Client, listener: &listener, destination_port: None };
        patches.push(patch::declare(&place, &declare_name));
        patches.push(patch::insert(&place, HCM, &inlet_name, shared));
        if !shared && !options.stock_envoy {
            patches.push(patch::remove_http_filter(&place, ALPN_FILTER));
        }
    }
    let cluster = json!({"service": port.host, "portNumber": port.number});
    patches.push(patch::bridge(Side::Client, cluster, &outlet(port)));
    let mut config = inlet(port);
    if shared {
        config.destinations = destinations(true);
    } else {
        config.authority = Some(port.authority());
    }
    patches.push(patch::inlet(&inlet_name, &config));
    let declare = DeclareConfig {
        version: VERSION,
        destinations: if shared { destinations(false) } else { Vec::new() },
        application_protocols: vec!["h2c".to_owned()],
    };
    patches.push(patch::declaration(&declare_name, &declare));
    // For callers in all namespaces; an owner in another namespace would be none.
    let owner = (port.namespace == facts.root_namespace).then_some(port.origin);
    output.desired.push(patch::envoy_filter(&facts.root_namespace, name, owner, &BTreeMap::new(), patches));
}

fn server(port: &MeshPort<'_>, output: &mut Compiled) {
    let inlet_name = port.extension_name("inlet", Side::Server);
    let mut patches = Vec::new();
    if port.shape == Shape::Native {
        let place = Place { side: Side::Server, listener: INBOUND, destination_port: None };
        let of = |target: &u16| Destination { address: None, port: *target, authority: None };
        let name = port.extension_name("declare", Side::Server);
        patches.push(patch::declare(&place, &name));
        let declare = DeclareConfig {
            version: VERSION,
            destinations: port.targets.iter().map(of).collect(),
            application_protocols: INBOUND_PROTOCOLS.map(str::to_owned).to_vec(),
        };
        patches.push(patch::declaration(&name, &declare));
    }
    for target in &port.targets {
        let place = Place { side: Side::Server, listener: INBOUND, destination_port: Some(*target) };
        patches.push(patch::insert(&place, HCM, &inlet_name, false));
        patches.push(patch::bridge(Side::Server, json!({"portNumber": target}), &outlet(port)));
    }
    let config = InletConfig { authority: Some(port.authority()), ..inlet(port) };
    patches.push(patch::inlet(&inlet_name, &config));
    let name = port.filter_name(Side::Server);
    output.desired.push(patch::envoy_filter(port.namespace, name, Some(port.origin), port.selector, patches));
}

pub(super) fn inlet(port: &MeshPort<'_>) -> InletConfig {
    InletConfig { limits: port.protocol.limits.clone(), ..InletConfig::new(port.protocol.codec.clone()) }
}

pub(super) fn outlet(port: &MeshPort<'_>) -> OutletConfig {
    OutletConfig { limits: port.protocol.limits.clone(), ..OutletConfig::new(port.protocol.codec.clone()) }
}
