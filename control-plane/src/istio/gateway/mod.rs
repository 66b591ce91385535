//! Gateways with the annotation `meltemi.dev/codec`: their HTTP ports take calls of that protocol. As in the native shape,
//! listeners, HCM, routes and clusters are istiod's; we add the inlet and the bridge.
//!
//! A call has no host name, so the one name of the server is what all its calls have, and what `VirtualService`s and routes
//! of the Gateway API are found by.

mod check;
mod fleet;

use std::collections::{BTreeMap, BTreeSet};

use meltemi_engine::config::InletConfig;
use serde_json::{Value, json};

use self::fleet::Fleet;
use super::{
    Compiled, Facts, Options, Planned, Shape, Workload,
    check::Caller,
    native::ALPN_FILTER,
    patch::{self, HCM},
};
use crate::{
    compile::{CODEC_ANNOTATION, Host, Protocol, Services},
    model::{GatewayProtocol, GatewayServer, Mode, Model},
    problem::Problem,
};

const CONTEXT: &str = "GATEWAY";

/// A server that takes calls.
struct Taken<'a> {
    fleet: &'a Fleet<'a>,
    protocol: Protocol,
    server: &'a GatewayServer,
    /// Where it is in its gateway.
    index: usize,
}

/// Adds the objects of all gateways of ours, and what is wrong with what leads through them.
pub(super) fn add(model: &Model, services: &Services<'_>, facts: &Facts, options: &Options, output: &mut Compiled) {
    let fleets: Vec<Fleet<'_>> =
        model.gateways.iter().flat_map(|one| Fleet::all(one, model, services, facts)).collect();
    let mut taken: Vec<Taken<'_>> = Vec::new();
    for fleet in fleets.iter().filter(|fleet| fleet.codec().is_some()) {
        match protocol(fleet, services) {
            Ok(protocol) => {
                let before = taken.len();
                take(fleet, &protocol, &fleets, &mut taken, &mut output.problems);
                let own = taken.get(before..).unwrap_or_default();
                write(fleet, own, services, facts, options, output);
            }
            Err(problem) => output.problems.push(*problem),
        }
    }
    check::add(model, services, facts, &fleets, &taken, output);
}

/// What a gateway's calls are in.
fn protocol(fleet: &Fleet<'_>, services: &Services<'_>) -> Result<Protocol, Box<Problem>> {
    let wrong = |field: &str, reason: String| Box::new(fleet.gateway.origin.error(field, reason));
    let annotation = format!("metadata.annotations[{CODEC_ANNOTATION}]");
    let protocol = services.protocol(fleet.codec().unwrap_or_default()).map_err(|reason| wrong(&annotation, reason))?;
    if protocol.mode == Mode::Connection {
        return Err(wrong(&annotation, "is a protocol in connection mode; a gateway routes each call".to_owned()));
    }
    if fleet.labels.as_ref().is_some_and(BTreeMap::is_empty) {
        return Err(wrong(fleet.proxies_field(), "must say which proxies take calls".to_owned()));
    }
    Ok(protocol)
}

/// Finds the servers of a gateway that can take calls.
fn take<'a>(
    fleet: &'a Fleet<'a>,
    protocol: &Protocol,
    fleets: &[Fleet<'_>],
    taken: &mut Vec<Taken<'a>>,
    problems: &mut Vec<Problem>,
) {
    let origin = &fleet.gateway.origin;
    for (index, server) in fleet.gateway.spec.servers.iter().enumerate() {
        let field = format!("spec.{}[{index}]", fleet.servers_field());
        if server.protocol == GatewayProtocol::Tcp {
            let reason = "takes connections, not calls: give it the protocol HTTP, or HTTPS that ends here";
            problems.push(origin.warning(format!("{field}.protocol"), reason));
            continue;
        }
        if let Err(reason) = host(server) {
            problems.push(origin.error(format!("{field}.{}", fleet.hosts_field()), reason));
            continue;
        }
        let earlier = taken.iter().find(|other| collide(fleet, server, other.fleet, other.server));
        let others = fleets.iter().filter(|other| other.codec().is_none());
        let mut plain = others.flat_map(|other| other.gateway.spec.servers.iter().map(move |server| (other, server)));
        let plain = plain.find(|(other, theirs)| collide(fleet, server, other, theirs));
        let by = earlier.map(|other| (other.fleet, "other calls")).or(plain.map(|(other, _)| (other, "HTTP")));
        if let Some((other, what)) = by {
            let reason =
                format!("is also where Gateway {} takes {what} on the same proxies", other.gateway.origin.name);
            problems.push(origin.error(format!("{field}.port"), reason));
            continue;
        }
        taken.push(Taken { fleet, protocol: protocol.clone(), server, index });
    }
}

/// The name that all calls of a server have; `*`: whatever is said for any name.
fn host(server: &GatewayServer) -> Result<&str, &'static str> {
    match server.hosts.as_slice() {
        [host] if host == "*" || !host.contains('*') => Ok(host),
        _ => Err("a call has no host name: give the one name that routes are for, or `*`"),
    }
}

/// Whether an inlet for the one would be in the way of the other.
fn collide(fleet: &Fleet<'_>, server: &GatewayServer, other: &Fleet<'_>, theirs: &GatewayServer) -> bool {
    let is_named = |server: &GatewayServer| {
        server.protocol == GatewayProtocol::Https && server.hosts.iter().all(|host| host != "*")
    };
    let told_apart =
        is_named(server) && is_named(theirs) && server.hosts.iter().all(|host| !theirs.hosts.contains(host));
    theirs.protocol != GatewayProtocol::Tcp
        && !told_apart
        && !fleet.listens_on(server.port).is_disjoint(&other.listens_on(theirs.port))
        && fleet.shares_pods_with(other)
}

impl Taken<'_> {
    /// `:authority` of its calls.
    fn authority(&self) -> String {
        match host(self.server) {
            Ok(host) if host != "*" => format!("{host}:{}", self.server.port),
            _ => format!("{}:{}", self.fleet.host(), self.server.port),
        }
    }

    /// Who calls through it. A destination says its port.
    fn caller(&self) -> Caller<'_> {
        let name = format!("Gateway {}", self.fleet.gateway.origin.name);
        Caller { name, codec: &self.protocol.codec.name, number: None }
    }

    fn extension_name(&self) -> String {
        format!("meltemi.inlet.gateway.{}.{}", self.fleet.id(), self.index)
    }

    fn patches(&self, options: &Options) -> Vec<Value> {
        let name = self.extension_name();
        let mut patches = Vec::new();
        for port in self.fleet.listens_on(self.server.port) {
            let place = |mut chain: Value| {
                // Of several servers with TLS on one port each has a chain of its own.
                if self.server.protocol == GatewayProtocol::Https
                    && let Ok(host) = host(self.server)
                    && host != "*"
                {
                    chain["sni"] = json!(host);
                }
                ("listener", json!({"portNumber": port, "filterChain": chain}))
            };
            let before = place(json!({"filter": {"name": HCM}}));
            let inlet = patch::network_filter(&Host::Module, &name, false);
            patches.push(patch::patch_in(CONTEXT, "NETWORK_FILTER", before, "INSERT_BEFORE", inlet));
            if !options.stock_envoy {
                let filter = place(json!({"filter": {"name": HCM, "subFilter": {"name": ALPN_FILTER}}}));
                patches.push(patch::patch_in(CONTEXT, "HTTP_FILTER", filter, "REMOVE", Value::Null));
            }
        }
        let config = InletConfig { authority: Some(self.authority()), ..self.protocol.inlet() };
        patches.push(patch::inlet(&name, &config));
        patches
    }
}

/// Adds the EnvoyFilter of a gateway, and its part of the plan.
fn write(
    fleet: &Fleet<'_>,
    taken: &[Taken<'_>],
    services: &Services<'_>,
    facts: &Facts,
    options: &Options,
    output: &mut Compiled,
) {
    let mut objects = Vec::new();
    if let (Some(first), Some(labels)) = (taken.first(), &fleet.labels) {
        let mut patches: Vec<Value> = taken.iter().flat_map(|one| one.patches(options)).collect();
        patches.extend(bridges(&first.protocol, services));
        let namespace = fleet.namespace.unwrap_or(&facts.root_namespace);
        // An owner in another namespace would be none.
        let owner = (namespace == fleet.gateway.metadata.namespace).then_some(&fleet.gateway.origin);
        let desired = patch::envoy_filter(namespace, fleet.filter_name(), owner, labels, patches);
        objects.push(desired.display());
        output.desired.push(desired);
    }
    let (with, without): (Vec<&Workload>, Vec<&Workload>) =
        fleet.pods.iter().copied().partition(|pod| pod.has_module());
    if !without.is_empty() && !taken.is_empty() {
        let names: Vec<&str> = without.iter().take(3).map(|pod| pod.name.as_str()).collect();
        let reason = format!(
            "{} of its pods have no module and take calls for broken HTTP: they fail there ({})",
            without.len(),
            names.join(", ")
        );
        output.problems.push(fleet.gateway.origin.warning(fleet.proxies_field(), reason));
    }
    for one in taken {
        let mut notes = vec![format!("calls have the host name {}", one.authority())];
        if fleet.labels.is_none() {
            notes.push(format!("nothing is written: there is no Service {}", fleet.id()));
        }
        output.plan.push(Planned {
            host: format!("Gateway {}", fleet.gateway.origin.name),
            port: one.server.port,
            codec: Some(one.protocol.codec.name.clone()),
            shape: Some(Shape::Native),
            notes,
            objects: objects.clone(),
            workloads: with.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect(),
            without_module: Vec::new(),
        });
    }
}

/// Calls may be led to whatever speaks the same: its clusters need the bridge.
fn bridges(protocol: &Protocol, services: &Services<'_>) -> Vec<Value> {
    let speaks = services.ports().filter_map(|port| Some((port, port.protocol.as_ref()?)));
    let same = speaks.filter(|(_, spoken)| spoken.codec.name == protocol.codec.name);
    same.map(|(port, spoken)| {
        let cluster = json!({"service": port.host, "portNumber": port.number});
        patch::patch_in(CONTEXT, "CLUSTER", ("cluster", cluster), "MERGE", patch::upstream(&spoken.outlet()))
    })
    .collect()
}

/// Ports, as a set of one or more.
type Ports = BTreeSet<u16>;
