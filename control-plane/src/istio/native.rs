//! The native shape: istiod makes listeners, HCM, routes and clusters; we add the inlet, the bridge, and the word that a
//! connection is HTTP.

use meltemi_engine::config::{DeclareConfig, Destination, InletConfig, VERSION};
use serde_json::{Value, json};

use super::{
    Compiled,
    callers::Callers,
    patch::{self, HCM, Listeners, Place, Side},
    ports::{MeshPort, Shape},
    runner::MODULES,
};
use crate::compile::Host;

/// What a server's sidecar is told of a connection: both names of HTTP that Istio's inbound chains know.
const INBOUND_PROTOCOLS: [&str; 2] = ["istio-http/1.1", "h2c"];
/// Makes a client's sidecar offer `istio-http/1.1`, which a server's sidecar without the module would take for HTTP.
pub(super) const ALPN_FILTER: &str = "istio.alpn";
/// Of Istio: connections whose port is found out later.
pub(super) const INBOUND: &str = "virtualInbound";

/// Adds the objects of a port, but for those of its clients that it shares with its port number.
pub(super) fn add<'p>(port: &'p MeshPort<'p>, callers: &mut Callers<'p>, output: &mut Compiled) {
    if !port.has_own_listeners() {
        let mut patches = in_others_listener(port);
        patches.push(bridge(port));
        callers.add(port, &Host::Module, MODULES, patches);
    }
    // A port that has a name in pods has no number before there are pods: a table without a line would mean everything.
    if !port.selector.is_empty() && !port.targets.is_empty() {
        server(port, output);
    }
}

/// On the clusters that its clients have.
pub(super) fn bridge(port: &MeshPort<'_>) -> Value {
    let cluster = json!({"service": port.host, "portNumber": port.number});
    patch::bridge(Side::Client, cluster, &port.protocol.outlet())
}

/// In a listener with connections to others: only those to the service are touched.
fn in_others_listener(port: &MeshPort<'_>) -> Vec<Value> {
    let inlet_name = port.extension_name(&Host::Module, "inlet", Side::Client);
    let declare_name = port.extension_name(&Host::Module, "declare", Side::Client);
    let mut patches = Vec::new();
    for listener in port.listeners() {
        let place = Place::outbound(Listeners::Named(&listener));
        patches.push(patch::declare(&place, &declare_name));
        patches.push(patch::insert(&place, HCM, patch::network_filter(&Host::Module, &inlet_name, true)));
    }
    let config = InletConfig { destinations: port.destinations(), ..port.protocol.inlet() };
    patches.push(patch::inlet(&inlet_name, &config));
    patches.push(patch::declaration(&declare_name, &declaration(&config.destinations)));
    patches
}

/// What is said of connections to these, at a client.
pub(super) fn declaration(destinations: &[Destination]) -> DeclareConfig {
    let bare = |destination: &Destination| Destination { authority: None, ..destination.clone() };
    DeclareConfig {
        version: VERSION,
        destinations: destinations.iter().map(bare).collect(),
        application_protocols: vec!["h2c".to_owned()],
    }
}

fn server(port: &MeshPort<'_>, output: &mut Compiled) {
    let inlet_name = port.extension_name(&Host::Module, "inlet", Side::Server);
    let mut patches = Vec::new();
    if port.shape == Shape::Native {
        let place = Place { side: Side::Server, listeners: Listeners::Named(INBOUND), destination_port: None };
        let of = |target: &u16| Destination { address: None, port: *target, authority: None };
        let name = port.extension_name(&Host::Module, "declare", Side::Server);
        patches.push(patch::declare(&place, &name));
        let declare = DeclareConfig {
            version: VERSION,
            destinations: port.targets.iter().map(of).collect(),
            application_protocols: INBOUND_PROTOCOLS.map(str::to_owned).to_vec(),
        };
        patches.push(patch::declaration(&name, &declare));
    }
    for target in &port.targets {
        let place = Place { side: Side::Server, listeners: Listeners::Named(INBOUND), destination_port: Some(*target) };
        patches.push(patch::insert(&place, HCM, patch::network_filter(&Host::Module, &inlet_name, false)));
        patches.push(patch::bridge(Side::Server, json!({"portNumber": target}), &port.protocol.outlet()));
    }
    let config = InletConfig { authority: Some(port.authority()), ..port.protocol.inlet() };
    patches.push(patch::inlet(&inlet_name, &config));
    let name = port.server_filter_name(&Host::Module);
    output.desired.push(patch::envoy_filter(port.namespace, name, Some(port.origin), port.selector, patches));
}
