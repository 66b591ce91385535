//! Model → resources. Pure: the same model gives the same snapshot. A wrong object is left out and reported; it never
//! keeps the others from being served.

mod cluster;
mod hash;
pub(crate) mod hop;
pub(crate) mod host;
mod limits;
mod listener;
mod matcher;
pub(crate) mod mesh;
mod packing;
mod policy;
mod protocols;
pub(crate) mod re2;
mod router;
mod routes;
mod scope;
mod services;
mod telemetry;
mod tls;

use std::collections::BTreeSet;

use crate::{
    model::Model,
    problem::Problem,
    snapshot::{Resource, Snapshot, TypeUrl},
};

pub(crate) use cluster::name as cluster_name;
pub use host::{Code, Host};
pub(crate) use matcher::{check_regex, metadata_key};
pub use protocols::{CODEC_ANNOTATION, Protocol};
pub(crate) use services::kubernetes_host;
pub use services::{Port, Services};
pub(crate) use telemetry::Side;
pub use telemetry::Telemetry;

/// Name under which the dynamic module is loaded: `libmeltemi.so`.
pub const MODULE: &str = "meltemi";

/// What a model becomes.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// The resources.
    pub snapshot: Snapshot,
    /// What is wrong with the model.
    pub problems: Vec<Problem>,
}

/// Compiles a model for standalone proxies.
pub fn compile(model: &Model, host: &Host) -> Compiled {
    let mut problems = Vec::new();
    let services = Services::new(model, &mut problems);
    problems.extend(
        model
            .gateways
            .iter()
            .map(|gateway| gateway.origin.warning("", "a standalone proxy has no gateways: it was passed over")),
    );
    let mut output = Output { snapshot: Snapshot::default(), secrets: BTreeSet::new(), host: host.clone() };
    if let Some((name, cluster)) = host.code_cluster() {
        output.add(TypeUrl::Cluster, name, &cluster);
    }
    for port in services.ports() {
        cluster::add(port, &services, &mut output, &mut problems);
    }
    for port in services.ports() {
        let router = services.router_of(&port.host);
        listener::add(port, router, &services, &mut output, &mut problems);
    }
    Compiled { snapshot: output.snapshot, problems: once(problems) }
}

/// What is wrong with a rule is found with each of its clusters.
fn once(problems: Vec<Problem>) -> Vec<Problem> {
    let mut all: Vec<Problem> = Vec::new();
    for problem in problems {
        if !all.contains(&problem) {
            all.push(problem);
        }
    }
    all
}

/// Resources in the making.
struct Output {
    snapshot: Snapshot,
    /// Names of secrets that are already there.
    secrets: BTreeSet<String>,
    host: Host,
}

impl Output {
    fn add<M: prost::Message + prost::Name>(&mut self, kind: TypeUrl, name: &str, message: &M) {
        self.snapshot.insert(kind, Resource::new(name, message));
    }
}

#[cfg(test)]
mod tests;
