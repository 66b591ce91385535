//! HTTPRoutes and GRPCRoutes of the Gateway API, which lead calls as VirtualServices do.

use serde_json::Value;

use super::{
    Compiled, Facts,
    check::{Caller, list, no_effect},
    ports::{MeshPort, Shape},
};
use crate::{
    compile::{Services, kubernetes_host},
    model::{Mode, Object},
};

/// The group of the kinds, and of a parent that names none.
const GROUP: &str = "gateway.networking.k8s.io";

/// All routes.
pub(super) fn all(facts: &Facts) -> impl Iterator<Item = &Object<Value>> {
    facts.others("HTTPRoute").chain(facts.others("GRPCRoute"))
}

/// Adds what is wrong with routes whose parent is a Service.
pub(super) fn add(ports: &[MeshPort<'_>], services: &Services<'_>, facts: &Facts, output: &mut Compiled) {
    for route in all(facts) {
        let parents = parents(route).enumerate().filter(|(_, parent)| (parent.group, parent.kind) == ("", "Service"));
        for (index, parent) in parents {
            let host = kubernetes_host(parent.name, parent.namespace);
            let numbers = services.numbers_of(&host).into_iter().filter(|number| parent.takes(*number));
            if let Some(reason) = no_effect(&host, &numbers.collect::<Vec<_>>(), ports) {
                output.problems.push(route.origin.error(format!("spec.parentRefs[{index}]"), reason));
            }
            let of_parent = |port: &&MeshPort<'_>| port.host == host && parent.takes(port.number);
            if ports.iter().any(|port| of_parent(&port)) {
                let ours = ports.iter().filter(of_parent).filter(|port| port.shape != Shape::Tcp);
                let callers: Vec<Caller<'_>> = ours.map(Caller::of).collect();
                backends(route, &callers, services, output);
            } else {
                of_http(route, &host, ports, output);
            }
        }
    }
}

/// What a route is of.
pub(super) struct Parent<'v> {
    pub(super) group: &'v str,
    pub(super) kind: &'v str,
    pub(super) namespace: &'v str,
    pub(super) name: &'v str,
    port: Option<u64>,
}

impl Parent<'_> {
    /// Whether it means this port too.
    pub(super) fn takes(&self, number: u16) -> bool {
        self.port.is_none_or(|port| port == u64::from(number))
    }
}

/// The parents of a route.
pub(super) fn parents(route: &Object<Value>) -> impl Iterator<Item = Parent<'_>> {
    list(&route.spec, "parentRefs").map(|parent| Parent {
        group: parent["group"].as_str().unwrap_or(GROUP),
        kind: parent["kind"].as_str().unwrap_or("Gateway"),
        namespace: parent["namespace"].as_str().unwrap_or(&route.metadata.namespace),
        name: parent["name"].as_str().unwrap_or_default(),
        port: parent["port"].as_u64(),
    })
}

/// Reports what these calls are led to and fail at.
pub(super) fn backends(route: &Object<Value>, callers: &[Caller<'_>], services: &Services<'_>, output: &mut Compiled) {
    for to in destinations(route) {
        let astray = callers.iter().find_map(|caller| {
            let why = services.why_not(&to.host, to.number.or(caller.number), caller.codec)?;
            Some(format!("{why}, so calls of {} fail there", caller.name))
        });
        output.problems.extend(astray.map(|reason| route.origin.error(to.field, reason)));
    }
}

/// Routes of a service that is not ours: what they lead to ports of ours is no call.
fn of_http(route: &Object<Value>, parent: &str, ports: &[MeshPort<'_>], output: &mut Compiled) {
    for to in destinations(route) {
        let takes_calls = |port: &&MeshPort<'_>| {
            port.host == to.host && port.protocol.mode == Mode::Request && to.number == Some(port.number)
        };
        if let Some(port) = ports.iter().find(takes_calls) {
            let reason = format!(
                "port {} of `{}` takes calls of {}: HTTP of {parent} fails there",
                port.number, to.host, port.protocol.codec.name
            );
            output.problems.push(route.origin.error(to.field, reason));
        }
    }
}

struct Destination {
    field: String,
    host: String,
    number: Option<u16>,
}

/// Where a route leads requests and copies of them.
fn destinations(route: &Object<Value>) -> Vec<Destination> {
    let mut all = Vec::new();
    for (index, rule) in list(&route.spec, "rules").enumerate() {
        let to = list(rule, "backendRefs").enumerate();
        let to = to.map(|(place, to)| (format!("spec.rules[{index}].backendRefs[{place}]"), to));
        let mirrors = list(rule, "filters").enumerate().filter(|(_, filter)| filter["type"] == "RequestMirror");
        let mirrors = mirrors.map(|(place, filter)| {
            let field = format!("spec.rules[{index}].filters[{place}].requestMirror.backendRef");
            (field, &filter["requestMirror"]["backendRef"])
        });
        all.extend(to.chain(mirrors).filter_map(|(field, to)| destination(route, field, to)));
    }
    all
}

/// A Service, or what Istio calls a Hostname; other kinds are not ours to judge.
fn destination(route: &Object<Value>, field: String, to: &Value) -> Option<Destination> {
    let name = to["name"].as_str()?;
    let text = |field: &str, default| to[field].as_str().unwrap_or(default);
    let host = match (text("group", ""), text("kind", "Service")) {
        ("", "Service") => kubernetes_host(name, text("namespace", &route.metadata.namespace)),
        ("networking.istio.io", "Hostname") => name.to_owned(),
        _ => return None,
    };
    // What is no port's number is as good as 0, which no port has.
    Some(Destination { field, host, number: to["port"].as_u64().map(|number| number.try_into().unwrap_or(0)) })
}
