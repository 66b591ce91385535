//! VirtualServices of the user beside those that MetaRouters become.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Compiled, Facts,
    check::{hosts_of, is_of_mesh},
};
use crate::{
    compile::Services,
    model::{MetaRouter, Object},
};

/// The user's own VirtualServices for sidecars, by their hosts, with the host's place among them.
pub(super) struct Theirs<'f>(HashMap<String, Vec<(usize, &'f Object<Value>)>>);

impl<'f> Theirs<'f> {
    pub(super) fn new(services: &Services<'_>, facts: &'f Facts) -> Self {
        let mut by_host: HashMap<_, Vec<(_, &Object<Value>)>> = HashMap::new();
        for service in facts.others("VirtualService").filter(|service| is_of_mesh(service)) {
            for (index, host) in hosts_of(service, services).into_iter().enumerate() {
                let of_host = by_host.entry(host).or_default();
                // One that names a host twice is told of the first.
                if of_host.last().is_none_or(|(_, last)| !std::ptr::eq(*last, service)) {
                    of_host.push((index, service));
                }
            }
        }
        Self(by_host)
    }

    /// Says of those for the same calls as a router's that there are two: Istio gives sidecars the older one alone.
    pub(super) fn rival(&self, router: &Object<MetaRouter>, host: &str, output: &mut Compiled) {
        for (index, other) in self.0.get(host).into_iter().flatten() {
            let all = "Istio gives sidecars the routes of the older one alone; delete one";
            let theirs = format!("{}/{}", other.metadata.namespace, other.metadata.name);
            let reason = format!("VirtualService {theirs} has routes of {host} as well: {all}");
            output.problems.push(router.origin.warning("spec.hosts", reason));
            let ours = format!("{}/{}", router.metadata.namespace, router.metadata.name);
            let reason = format!("MetaRouter {ours} has routes of {host} as well, as a VirtualService: {all}");
            output.problems.push(other.origin.warning(format!("spec.hosts[{index}]"), reason));
        }
    }
}
