//! Stock Istio: the objects we write beside the user's, so that istiod configures its proxies for our protocols. Pure, as
//! the compile for standalone proxies: the same model and facts give the same objects.
//!
//! | shape | port | who makes HCM and routes |
//! |---|---|---|
//! | native | `appProtocol: meltemi.dev/<protocol>`, or HTTP-named with the annotation `meltemi.dev/codec` | istiod |
//! | tcp | named `tcp-metaprotocol-<protocol>[-x]` | we: a filter that we serve in the place of `tcp_proxy` |
#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value indexed by a name that is not there is null; we write to objects alone"
)]

mod api_routes;
mod astray;
mod callers;
mod check;
mod desired;
mod facts;
mod gateway;
mod hop;
mod manager;
mod messages;
mod native;
mod parts;
mod passthrough;
mod patch;
mod pods;
mod port_numbers;
mod ports;
mod rivals;
mod runner;
mod tcp;
#[cfg(test)]
mod tests;
mod theirs;
mod virtual_service;
mod xds;

use std::collections::{HashMap, HashSet};

use serde::Serialize;

pub(crate) use self::xds::{san_match, upstream_tls};
use self::{callers::Callers, pods::Pods, port_numbers::PortNumbers, ports::Shape, rivals::Rivals, tcp::Tcp};
pub use self::{
    desired::{Desired, DesiredKind, Digest, Spec},
    facts::{Facts, LOOKED_AT, Workload},
    xds::{Root, ServiceTls, XdsService},
};
use crate::{
    compile::{Code, Host, Services, Telemetry},
    model::{Mode, Model},
    problem::Problem,
    snapshot::Snapshot,
};

/// Label of workloads that carry the module: the generation of its configuration schema.
pub const MODULE_LABEL: (&str, &str) = ("meltemi.dev/module", "1");

/// Label of workloads whose sidecars may run our filters in Wasm, if they know no modules: likewise.
pub const WASM_LABEL: (&str, &str) = ("meltemi.dev/wasm", "1");

/// Label of all that we write.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "meltemi");

/// How objects are made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Proxies are stock Envoys without Istio's own extensions.
    pub stock_envoy: bool,
    /// Where proxies find our xDS server; without it there is no `tcp` shape.
    pub xds: Option<XdsService>,
    /// What proxies tell of calls in the `tcp` shape.
    pub telemetry: Telemetry,
    /// Where proxies that know no modules find our filters in Wasm; without it they stay as they are.
    pub wasm: Option<Code>,
}

impl Options {
    /// What runs our filters in the mesh.
    fn runners(&self) -> impl Iterator<Item = Host> {
        std::iter::once(Host::Module).chain(self.wasm.clone().map(Host::Wasm))
    }
}

/// What a model becomes.
#[derive(Debug, Default)]
pub struct Compiled {
    /// Objects for the cluster.
    pub desired: Vec<Desired>,
    /// What sidecars get from us.
    pub snapshot: Snapshot,
    /// What is wrong with the model.
    pub problems: Vec<Problem>,
    /// Port by port, for people.
    pub plan: Vec<Planned>,
}

/// What becomes of one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The service, by its host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The codec, if the port asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<String>,
    /// The shape, if the port is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// Why it is left alone, or what is noteworthy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Names of the objects that are written for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
    /// Workloads behind it whose sidecars are changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<String>,
    /// Workloads behind it that lack the module and go on as plain TCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without_module: Vec<String>,
}

/// Compiles a model for the sidecars of a mesh.
pub fn compile(model: &Model, facts: &Facts, options: &Options) -> Compiled {
    let mut output = Compiled::default();
    let services = Services::of_mesh(model, &mut output.problems);
    let ports = ports::collect(model, &services, &mut output);
    let numbers = PortNumbers::new(&ports, &services);
    let shared: HashMap<(&str, u16), String> = numbers
        .names()
        .flat_map(|(name, ports)| ports.iter().map(move |port| (port.key(), name)))
        .map(|(port, name)| (port, DesiredKind::EnvoyFilter.display(&facts.root_namespace, name)))
        .collect();
    let pods = Pods::new(&facts.workloads);
    let rivals = Rivals::new(&ports, &services, &pods, &mut output);
    let mut runners: Vec<Tcp<'_>> =
        options.runners().map(|runner| Tcp::new(runner, &services, &options.telemetry, &rivals)).collect();
    let mut callers = Callers::default();
    let mut names: HashSet<String> = HashSet::new();
    let led_to = if options.wasm.is_some() { tcp::led_to(&ports, &services) } else { HashSet::new() };
    for port in &ports {
        let mut planned = port.planned(&pods, options);
        planned.notes.extend(rivals.note(port));
        if port.shape == Shape::Tcp && port.protocol.mode == Mode::Request && options.xds.is_none() {
            planned.notes.push("the tcp shape needs the address of our xDS server (--xds-service)".to_owned());
            output.plan.push(planned);
            continue;
        }
        if port.shape == Shape::Tcp && options.wasm.is_some() && tcp::is_hashed(port, &services) {
            let note = "in proxies that run our filters in Wasm a consistent hash has no effect";
            planned.notes.push(note.to_owned());
        }
        let before = (output.desired.len(), callers.len());
        match port.shape {
            Shape::Native | Shape::Http => {
                native::add(port, &mut callers, &mut output);
                if led_to.contains(port.host) {
                    runners.iter().for_each(|runner| runner.add_way(port, &mut callers));
                }
            }
            Shape::Tcp => {
                planned
                    .notes
                    .extend(runners.iter_mut().filter_map(|runner| runner.add(port, &mut callers, &mut output)));
            }
        }
        let own: Vec<String> = output.desired.iter().skip(before.0).map(Desired::display).collect();
        let named: Vec<String> = own.iter().cloned().chain(callers.names(before.1)).collect();
        if let Some(taken) = named.iter().find(|name| names.contains(*name)) {
            // One is a Service, the other a ServiceEntry.
            let reason = format!("an older service of its name has {taken}, so this one is left alone: rename it");
            output.desired.truncate(before.0);
            callers.truncate(before.1);
            output.problems.push(port.origin.error("metadata.name", reason.clone()));
            output.plan.push(Planned { notes: vec![reason], ..planned });
            continue;
        }
        names.extend(named);
        planned.objects = shared.get(&port.key()).cloned().into_iter().chain(own).collect();
        output.plan.push(planned);
    }
    let (objects, of_ports) = callers.objects(facts);
    output.desired.extend(objects);
    for planned in &mut output.plan {
        let names = of_ports.get(&(planned.host.as_str(), planned.port)).into_iter().flatten();
        let names: Vec<String> =
            names.map(|name| DesiredKind::EnvoyFilter.display(&facts.root_namespace, name)).collect();
        planned.objects.splice(..0, names);
    }
    output.desired.extend(numbers.objects(facts, options));
    output.desired.extend(options.runners().filter_map(|runner| runner::first_vm(&runner, facts)));
    gateway::add(model, &services, facts, options, &mut output);
    check::add(&ports, &services, facts, &pods, options, &mut output);
    astray::add(&ports, &services, facts, &mut output);
    api_routes::add(&ports, &services, facts, &mut output);
    passthrough::add(model, &ports, &services, facts, &mut output);
    virtual_service::add(model, &services, &ports, facts, &mut output);
    if ports.iter().any(|port| port.shape == Shape::Tcp)
        && let Some(xds) = &options.xds
    {
        output.desired.extend(options.runners().map(|runner| xds::cluster(&runner, xds, facts)));
    }
    output
}
