//! Services of the tcp shape on one port of a pod. A connection does not say there which of them it was for, and the port has
//! one manager: that of the EnvoyFilter which istiod applies first, with its limits, for the calls of all. So one with limits
//! comes before one without, and of those with limits the older.

use std::collections::HashMap;

use super::{
    Compiled,
    pods::Pods,
    ports::{MeshPort, Shape},
};
use crate::{
    compile::Services,
    model::{MetaRouter, Mode, Object},
};

/// Priority of an object in istiod, where the lower comes first, and what has none is 0.
const FIRST: i32 = -2;
const LATER: i32 = -1;

/// Which object comes first.
#[derive(Default)]
pub(super) struct Rivals<'a> {
    /// By the key of a port, for those with limits.
    priorities: HashMap<(&'a str, u16), i32>,
    /// What people are told of a port: whose limits count its calls.
    notes: HashMap<(&'a str, u16), String>,
}

impl<'a> Rivals<'a> {
    /// Looks at all ports, the older before the younger, and reports limits that count nothing.
    pub(super) fn new(
        ports: &'a [MeshPort<'_>],
        services: &Services<'_>,
        pods: &Pods<'_>,
        output: &mut Compiled,
    ) -> Self {
        let mut rivals = Self::default();
        let mut limited: Vec<&MeshPort<'_>> = Vec::new();
        let (with, without): (Vec<_>, Vec<_>) = ports
            .iter()
            .filter(|port| port.shape == Shape::Tcp && port.protocol.mode == Mode::Request)
            .map(|port| (port, limits(port, services)))
            .partition(|(_, limits)| limits.is_some());
        for (port, limits) in with {
            let older = limited.iter().find(sharer(port, pods));
            rivals.priorities.insert(port.key(), if older.is_some() { LATER } else { FIRST });
            if let (Some(older), Some((router, field))) = (older, limits) {
                let reason = format!(
                    "counts nothing: {} is older and on the same port of a pod, where its limits are for the calls of both",
                    older.authority()
                );
                output.problems.push(router.origin.warning(field, reason));
            }
            limited.push(port);
        }
        for (port, _) in without.iter().filter(|_| !limited.is_empty()) {
            if let Some(other) = limited.iter().find(sharer(port, pods)) {
                let note =
                    format!("the limits of {}, on the same port of a pod, count its calls too", other.authority());
                rivals.notes.insert(port.key(), note);
            }
        }
        rivals
    }

    /// The priority of a server's object, if it needs one.
    pub(super) fn priority(&self, port: &MeshPort<'_>) -> Option<i32> {
        self.priorities.get(&port.key()).copied()
    }

    /// What is noteworthy about a port.
    pub(super) fn note(&self, port: &MeshPort<'_>) -> Option<String> {
        self.notes.get(&port.key()).cloned()
    }
}

/// The limits that a port's servers count, by their field.
fn limits<'s>(port: &MeshPort<'_>, services: &'s Services<'_>) -> Option<(&'s Object<MetaRouter>, &'static str)> {
    let router = services.router_of(port.host)?;
    let local = router.spec.local_rate_limit.as_ref().map(|_| "spec.localRateLimit");
    let global = router.spec.global_rate_limit.as_ref().map(|_| "spec.globalRateLimit");
    Some((router, local.or(global)?))
}

/// Tells the ports for which there are pods that this one has too, or could be, by one number in them.
fn sharer<'p>(port: &'p MeshPort<'_>, pods: &Pods<'p>) -> impl Fn(&&&MeshPort<'_>) -> bool {
    let behind = pods.behind(port.namespace, port.selector);
    let within = |part: &MeshPort<'_>, whole: &MeshPort<'_>| {
        !part.selector.is_empty() && part.selector.iter().all(|(name, value)| whole.selector.get(name) == Some(value))
    };
    move |other| {
        port.namespace == other.namespace
            && !port.targets.is_disjoint(&other.targets)
            && (within(port, other)
                || within(other, port)
                || behind.iter().any(|pod| pod.is_selected(other.namespace, other.selector)))
    }
}
