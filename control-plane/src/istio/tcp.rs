//! The tcp shape: istiod sees TCP; in the place of its `tcp_proxy` stands an HCM with routes of our own, both served by our
//! xDS server. In connection mode it is a `tcp_proxy` of our own, behind the relay, and istiod serves both. At a client that
//! place is a chain beside istiod's, at a server istiod's own chain, which has its policies.
//!
//! A proxy that starts while we are not there gets the default that istiod gives it, a route to the service itself, and
//! keeps what it had from us otherwise. In connection mode it gets the routes as well.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::IpAddr,
};

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use meltemi_engine::{config::InletConfig, relay::RelayConfig};
use serde_json::{Value, json};

use super::{
    Compiled,
    callers::Callers,
    hop,
    manager::{keeper, manager},
    messages,
    native::INBOUND,
    patch::{self, Listeners, Place, Side, TCP_PROXY},
    ports::{MeshPort, Shape},
    rivals::Rivals,
};
use crate::{
    compile::{
        self, Host, Services, Telemetry,
        mesh::{self, Sidecars},
    },
    model::Mode,
};

/// The tcp shape in sidecars that run our filters so.
pub(super) struct Tcp<'c> {
    runner: Host,
    services: &'c Services<'c>,
    telemetry: &'c Telemetry,
    rivals: &'c Rivals<'c>,
    /// Whose chains take what in the listeners of clients: by a listener's name, all or a range of addresses.
    ///
    /// Headless services may have the same pods, and several services no address, or a range in common. Envoy refuses a
    /// listener with two chains that match the same; istiod gives it to one service as well.
    taken: HashMap<(String, Option<Range>), String>,
}

/// Addresses, by the first of them and the bits that count.
type Range = (IpAddr, u8);

/// A place that a port has not got.
struct Lost {
    place: String,
    /// The port that has it.
    to: String,
}

/// A listener of clients, and what a port's chain takes in it.
type Claim = (String, Vec<Option<Range>>);

impl<'c> Tcp<'c> {
    pub(super) fn new(
        runner: Host,
        services: &'c Services<'c>,
        telemetry: &'c Telemetry,
        rivals: &'c Rivals<'c>,
    ) -> Self {
        Self { runner, services, telemetry, rivals, taken: HashMap::new() }
    }

    /// Adds the objects of a port, and what our xDS server has for it. Gives what is noteworthy about it.
    pub(super) fn add<'p>(
        &mut self,
        port: &'p MeshPort<'p>,
        callers: &mut Callers<'p>,
        output: &mut Compiled,
    ) -> Option<String> {
        let compiled = self.services.port(port.host, port.number)?;
        let (claims, lost) = self.claim(port);
        // What is wrong is so for all.
        let mut known = Vec::new();
        let problems = if self.runner == Host::Module { &mut output.problems } else { &mut known };
        let snapshot = &mut output.snapshot;
        if port.protocol.mode == Mode::Connection {
            if let Some(filters) = mesh::relay(compiled, self.services, self.telemetry, problems) {
                let patches = self.connections(port, &claims, &filters);
                callers.add(port, &self.runner, self.runner.proxies(Mode::Connection), patches);
            }
            return self.told(port, &lost, output);
        }
        let sidecars = Sidecars { runner: &self.runner, services: self.services, telemetry: self.telemetry };
        sidecars.managers(compiled, &port.targets, snapshot, problems);
        let patches = self.requests(port, &claims);
        callers.add(port, &self.runner, self.runner.proxies(Mode::Request), patches);
        if !port.selector.is_empty() {
            self.server(port, output);
        }
        self.told(port, &lost, output)
    }

    /// Takes what a port's chains have in the listeners of clients. Gives the places, and those that another port has.
    fn claim(&mut self, port: &MeshPort<'_>) -> (Vec<Claim>, Vec<Lost>) {
        let no_address = port.listeners_of_no_address();
        let (mut claims, mut lost) = (Vec::new(), Vec::new());
        for listener in port.listeners() {
            let has_ranges = !port.ranges.is_empty() && no_address.contains(&listener);
            let mut wanted = if has_ranges { port.ranges.iter().copied().map(Some).collect() } else { vec![None] };
            wanted.retain(|range| match self.taken.entry((listener.clone(), *range)) {
                Entry::Vacant(free) => {
                    free.insert(port.authority());
                    true
                }
                Entry::Occupied(other) if *other.get() == port.authority() => false,
                Entry::Occupied(other) => {
                    let range = range.map(|(ip, bits)| format!(" for {ip}/{bits}")).unwrap_or_default();
                    lost.push(Lost { place: format!("{listener}{range}"), to: other.get().clone() });
                    false
                }
            });
            if !wanted.is_empty() {
                claims.push((listener, wanted));
            }
        }
        (claims, lost)
    }

    /// Says, once for all runners, that another port has a port's places.
    fn told(&self, port: &MeshPort<'_>, lost: &[Lost], output: &mut Compiled) -> Option<String> {
        let Lost { to, .. } = lost.first().filter(|_| self.runner == Host::Module)?;
        let places: Vec<&str> = lost.iter().map(|lost| lost.place.as_str()).take(3).collect();
        let note = format!("in {} the routes of {to}, which came first, are for calls of both", places.join(", "));
        output.problems.push(port.origin.warning("spec", format!("port {}: {note}", port.number)));
        if let Some(router) = self.services.router_of(port.host) {
            let reason = format!("port {}: {note}, so these have no effect there", port.number);
            output.problems.push(router.origin.warning("spec.routes", reason));
        }
        Some(note)
    }

    /// Adds the way to the servers of a port of another shape, to which routes lead: plugins have none to it otherwise.
    pub(super) fn add_way<'p>(&self, port: &'p MeshPort<'p>, callers: &mut Callers<'p>) {
        if self.runner != Host::Module && port.protocol.mode == Mode::Request {
            callers.add(port, &self.runner, self.runner.proxies(Mode::Request), self.way_out(port));
        }
    }

    /// What clients have in request mode.
    fn requests(&self, port: &MeshPort<'_>, claims: &[Claim]) -> Vec<Value> {
        let inlet_name = port.extension_name(&self.runner, "inlet", Side::Client);
        let name = mesh::outbound_name(&self.runner, port.host, port.number);
        let cluster = mesh::outbound_to(&self.runner, port.host, port.number);
        let ours = [patch::network_filter(&self.runner, &inlet_name, false), manager(&self.runner, &name, &cluster)];
        let filters: Vec<Value> = self.before_inlet().into_iter().chain(ours).collect();
        let mut patches = chains(claims, &name, &filters, &[keeper(&name)]);
        patches.extend(self.way_out(port));
        patches.push(self.inlet(port, &inlet_name));
        patches
    }

    /// How requests get to the servers of a port, from its clients.
    fn way_out(&self, port: &MeshPort<'_>) -> Vec<Value> {
        if self.runner == Host::Module {
            let cluster = json!({"service": port.host, "portNumber": port.number});
            return vec![patch::bridge(Side::Client, cluster, &port.protocol.outlet())];
        }
        let subsets = self.services.rule_of(port.host).into_iter().flat_map(|rule| &rule.spec.subsets);
        let clusters = std::iter::once(None).chain(subsets.map(|subset| Some(subset.name.as_str())));
        let clusters = clusters.map(|subset| compile::cluster_name(port.host, port.number, subset));
        self.hops(Side::Client, port, clusters.map(|cluster| (compile::hop::name(&cluster), cluster)))
    }

    /// The same, at its servers.
    fn way_in(&self, port: &MeshPort<'_>) -> Vec<Value> {
        if self.runner == Host::Module {
            let bridge = |target| patch::bridge(Side::Server, json!({"portNumber": target}), &port.protocol.outlet());
            return port.targets.iter().map(bridge).collect();
        }
        let hop = |target| mesh::inbound_to(&self.runner, port.host, port.number, target);
        let hops = port.targets.iter().map(|target| (hop(*target), mesh::inbound_cluster(*target)));
        self.hops(Side::Server, port, hops)
    }

    /// Hops by their names and the clusters that they are before.
    fn hops(&self, side: Side, port: &MeshPort<'_>, all: impl Iterator<Item = (String, String)>) -> Vec<Value> {
        let name = port.extension_name(&self.runner, "outlet", side);
        let filter = patch::network_filter(&self.runner, &name, false);
        let mut patches: Vec<Value> =
            all.flat_map(|(name, cluster)| hop::patches(side, &name, &cluster, &filter)).collect();
        patches.push(patch::network_extension(&self.runner, &name, "outlet", &port.protocol.outlet()));
        patches
    }

    fn inlet(&self, port: &MeshPort<'_>, name: &str) -> Value {
        let config = InletConfig { authority: Some(port.authority()), ..port.protocol.inlet() };
        patch::network_extension(&self.runner, name, "inlet", &config)
    }

    fn before_inlet(&self) -> Option<Value> {
        (self.runner != Host::Module).then(hop::remember)
    }

    /// What clients have in connection mode: the relay, and a `tcp_proxy` that waits for what it says, as istiod's own would
    /// not.
    fn connections(
        &self,
        port: &MeshPort<'_>,
        claims: &[Claim],
        (relay, proxy): &(RelayConfig, TcpProxy),
    ) -> Vec<Value> {
        let name = |filter| port.extension_name(&self.runner, filter, Side::Client);
        let (relay_name, proxy_name) = (name("relay"), name("proxy"));
        let mut filters =
            vec![patch::network_filter(&self.runner, &relay_name, false), patch::tcp_proxy_filter(&proxy_name)];
        if self.telemetry.istio {
            // As istiod has it before its own `tcp_proxy`; in request mode the manager counts.
            let config = json!({"@type": "type.googleapis.com/stats.PluginConfig"});
            filters.insert(0, json!({"name": "istio.stats", "typed_config": config}));
        }
        let mut patches = chains(claims, &relay_name, &filters, &[]);
        patches.push(patch::network_extension(&self.runner, &relay_name, "relay", relay));
        patches.push(patch::extension(&proxy_name, messages::tcp_proxy(proxy)));
        patches
    }

    fn server(&self, port: &MeshPort<'_>, output: &mut Compiled) {
        let inlet_name = port.extension_name(&self.runner, "inlet", Side::Server);
        let mut patches = Vec::new();
        for target in &port.targets {
            let place =
                Place { side: Side::Server, listeners: Listeners::Named(INBOUND), destination_port: Some(*target) };
            let inlet = patch::network_filter(&self.runner, &inlet_name, false);
            let filters = self.before_inlet().into_iter().chain([inlet]);
            patches.extend(filters.map(|filter| patch::insert(&place, TCP_PROXY, filter)));
            let cluster = mesh::inbound_to(&self.runner, port.host, port.number, *target);
            let name = mesh::inbound_name(&self.runner, port.host, port.number, *target);
            patches.push(patch::replace_tcp_proxy(&place, manager(&self.runner, &name, &cluster)));
            patches.push(patch::add_chain(&place, keeper(&name)));
        }
        patches.extend(self.way_in(port));
        patches.push(self.inlet(port, &inlet_name));
        let name = port.server_filter_name(&self.runner);
        let (owner, proxies) = (Some(port.origin), self.runner.proxies(port.protocol.mode));
        let mut desired = patch::envoy_filter_of(proxies, port.namespace, name, owner, port.selector, patches);
        if let Some(priority) = self.rivals.priority(port) {
            desired.spec = desired.spec.with("priority", json!(priority));
        }
        output.desired.push(desired);
    }
}

/// The patches that give clients' listeners a chain with these filters, and `others` beside.
///
/// istiod's own chain stays. Envoy takes ours, because it says that it is not for TLS, which is more than istiod says of a TCP
/// service. Chains for HTTP and for other addresses say more still, so that they are found as before.
fn chains(claims: &[Claim], name: &str, filters: &[Value], others: &[Value]) -> Vec<Value> {
    let patch = |(listener, claimed): &Claim| {
        let mut matches = json!({"transport_protocol": "raw_buffer"});
        let prefix = |(ip, bits): &Range| json!({"address_prefix": ip, "prefix_len": bits});
        let ranges: Vec<Value> = claimed.iter().flatten().map(prefix).collect();
        if !ranges.is_empty() {
            matches["prefix_ranges"] = json!(ranges);
        }
        let ours = json!({"name": name, "filter_chain_match": matches, "filters": filters});
        patch::add_chains(listener, &[&[ours], others].concat())
    };
    claims.iter().map(patch).collect()
}

/// Somebody wants servers of the port to be chosen by a hash of calls.
pub(super) fn is_hashed(port: &MeshPort<'_>, services: &Services<'_>) -> bool {
    let balancer = services.policy(port.host, port.number, None).load_balancer;
    let by_route = services.router_of(port.host).into_iter().flat_map(|router| &router.spec.routes);
    balancer.is_some_and(|balancer| balancer.consistent_hash.is_some())
        || by_route.into_iter().any(|route| !route.hash_policy.is_empty())
}

/// Hosts to which routes of ports in this shape lead.
pub(super) fn led_to(ports: &[MeshPort<'_>], services: &Services<'_>) -> HashSet<String> {
    let routers = ports.iter().filter(|port| port.shape == Shape::Tcp).filter_map(|port| services.router_of(port.host));
    let to = routers
        .flat_map(|router| router.spec.destinations().map(|(_, to)| services.host_of(&to.host, &router.metadata)));
    to.collect()
}
