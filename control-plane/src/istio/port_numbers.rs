//! Listeners of native ports at their clients, by port number: a few patches for all of a number, and a table of the
//! destinations that are ours, which istiod carries by ECDS. It matches every patch against every listener of every push, so
//! that patches for each service would cost the square of their number.
//!
//! Connections to what is not in the table pass untouched.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_engine::config::{CodecConfig, InletConfig};
use serde_json::Value;

use super::{
    Desired, Facts, Options,
    native::{ALPN_FILTER, bridge, declaration},
    parts::Parts,
    patch::{self, HCM, Listeners, Place},
    ports::{MeshPort, Shape},
};
use crate::{
    compile::{Host, Services},
    snapshot::version_of,
};

/// The ports that have listeners of their own, by the objects that they are in.
pub(super) struct PortNumbers<'p> {
    /// Numbers on which others may speak HTTP.
    mixed: BTreeSet<u16>,
    /// By number and name.
    objects: BTreeMap<(u16, String), Vec<&'p MeshPort<'p>>>,
}

impl<'p> PortNumbers<'p> {
    pub(super) fn new(ports: &'p [MeshPort<'p>], services: &Services<'_>) -> Self {
        let others = services.ports().filter(|port| port.protocol.is_none()).map(|port| port.number);
        let shared = ports.iter().filter(|port| port.shape == Shape::Http).map(|port| port.number);
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for port in ports.iter().filter(|port| port.has_own_listeners()) {
            groups.entry((port.number, kind(port))).or_default().push(port);
        }
        let mut objects: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((number, kind), group) in groups {
            let parts = parts(&group);
            let prefix = format!("meltemi-port-{number}-{kind}");
            for port in group {
                objects.entry((number, parts.name(&prefix, port))).or_default().push(port);
            }
        }
        Self { mixed: others.chain(shared).collect(), objects }
    }

    /// The name of each object, and the ports in it.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, &[&'p MeshPort<'p>])> {
        self.objects.iter().map(|((_, name), ports)| (name.as_str(), ports.as_slice()))
    }

    /// The objects, for all callers.
    pub(super) fn objects(&self, facts: &Facts, options: &Options) -> Vec<Desired> {
        let object = |((number, name), ports): (&(u16, String), &Vec<&MeshPort<'_>>)| {
            let patches = self.patches(*number, name, ports, options);
            patch::envoy_filter(&facts.root_namespace, name.clone(), None, &BTreeMap::new(), patches)
        };
        self.objects.iter().map(object).collect()
    }

    fn patches(&self, number: u16, name: &str, ports: &[&MeshPort<'_>], options: &Options) -> Vec<Value> {
        let bridges = ports.iter().map(|port| bridge(port));
        let destinations: Vec<_> = ports.iter().flat_map(|port| port.destinations()).collect();
        let Some(first) = ports.first().filter(|_| !destinations.is_empty()) else {
            // Headless, and without pods: a table without a line would mean everything.
            return bridges.collect();
        };
        let extension = |filter: &str| format!("meltemi.{filter}.out.{name}");
        let (inlet_name, declare_name) = (extension("inlet"), extension("declare"));
        let place = Place::outbound(Listeners::Port(number));
        let inlet_filter = patch::network_filter(&Host::Module, &inlet_name, true);
        let mut patches = vec![patch::declare(&place, &declare_name), patch::insert(&place, HCM, inlet_filter)];
        if !options.stock_envoy {
            patches.extend(self.without_alpn(number, ports));
        }
        patches.extend(bridges);
        let config = InletConfig { destinations, ..first.protocol.inlet() };
        patches.push(patch::inlet(&inlet_name, &config));
        patches.push(patch::declaration(&declare_name, &declaration(&config.destinations)));
        patches
    }

    /// The filter's decisions are no connection's, so no table can spare those of others: by name if there may be some.
    fn without_alpn(&self, number: u16, ports: &[&MeshPort<'_>]) -> Vec<Value> {
        let remove = |listeners: Listeners<'_>| patch::remove_http_filter(&Place::outbound(listeners), ALPN_FILTER);
        if self.mixed.contains(&number) {
            let names: Vec<String> = ports.iter().flat_map(|port| port.listeners()).collect();
            names.iter().map(|name| remove(Listeners::Named(name))).collect()
        } else {
            vec![remove(Listeners::Port(number))]
        }
    }
}

/// What tells inlets apart that are not told apart by their destinations: mostly the codec alone.
fn kind(port: &MeshPort<'_>) -> String {
    let (config, codec) = (port.protocol.inlet(), &port.protocol.codec.name);
    if config == InletConfig::new(CodecConfig { name: codec.clone(), options: BTreeMap::new() }) {
        codec.clone()
    } else {
        format!("{codec}-{}", version_of(&serde_json::to_string(&config).unwrap_or_default()))
    }
}

/// How many objects services are in.
fn parts(ports: &[&MeshPort<'_>]) -> Parts {
    // A bridge, and lines of the two tables.
    let bytes = |port: &MeshPort<'_>| 600 + port.host.len() + port.addresses.len() * (150 + port.host.len());
    Parts::of(ports.iter().map(|port| bytes(port)).sum())
}
