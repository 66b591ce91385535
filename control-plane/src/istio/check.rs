//! What would not work in this mesh, found before it hurts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    Compiled, Facts, Options, Workload,
    pods::Pods,
    ports::{MeshPort, Shape},
};
use crate::{compile::Services, model::Object, problem::Problem};

/// Adds what is wrong with the mesh's own objects, as far as our ports are concerned.
pub(super) fn add(
    ports: &[MeshPort<'_>],
    services: &Services<'_>,
    facts: &Facts,
    pods: &Pods<'_>,
    options: &Options,
    output: &mut Compiled,
) {
    let policies: Vec<_> = facts.others("AuthorizationPolicy").collect();
    for port in ports {
        no_address(port, output);
        let behind = pods.behind(port.namespace, port.selector);
        without_module(port, &behind, options, output);
        output.problems.extend(policies.iter().filter_map(|policy| tcp_policy(port, policy, facts, &behind)));
    }
    for service in facts.others("VirtualService") {
        virtual_service(service, ports, services, output);
    }
    let mut filters = facts.others("EnvoyFilter").peekable();
    if filters.peek().is_some() {
        let places: Vec<_> = ports.iter().map(|port| (port.number, port.listeners())).collect();
        output.problems.extend(
            filters.filter_map(|filter| {
                places.iter().find_map(|(number, listeners)| conflict(filter, *number, listeners))
            }),
        );
    }
}

/// Connections in such a listener say nothing but their port number.
fn no_address(port: &MeshPort<'_>, output: &mut Compiled) {
    if port.anywhere {
        let reason = format!(
            "not given, or a range: calls to {} share the listener 0.0.0.0_{} with all connections to that port number that have \
             no other, and all of them are taken for {}",
            port.host, port.number, port.protocol.codec.name
        );
        output.problems.push(port.origin.warning("spec.addresses", reason));
    }
}

fn without_module(port: &MeshPort<'_>, behind: &[&Workload], options: &Options, output: &mut Compiled) {
    let without = behind.iter().filter(|pod| !port.is_taken_by(pod, options));
    let without: Vec<&str> = without.map(|pod| pod.name.as_str()).collect();
    if !without.is_empty() {
        let reason = format!(
            "port {}: {} of its pods have no module and see plain TCP: no policies or telemetry by request there ({})",
            port.number,
            without.len(),
            without.iter().take(3).copied().collect::<Vec<_>>().join(", "),
        );
        output.problems.push(port.origin.warning("spec.selector", reason));
    }
}

/// On a port that is TCP to Istio, a policy with HTTP's fields denies everything, or allows nothing.
fn tcp_policy(port: &MeshPort<'_>, policy: &Object<Value>, facts: &Facts, behind: &[&Workload]) -> Option<Problem> {
    if port.shape != Shape::Tcp {
        return None;
    }
    let everywhere = policy.metadata.namespace == facts.root_namespace;
    if !everywhere && policy.metadata.namespace != port.namespace {
        return None;
    }
    let selected: BTreeMap<String, String> =
        serde_json::from_value(policy.spec["selector"]["matchLabels"].clone()).unwrap_or_default();
    let (index, field) = http_of_rules(&policy.spec, &port.targets)?;
    let action = policy.spec["action"].as_str().unwrap_or("ALLOW");
    let what = if action == "DENY" { "denies every call" } else { "allows no call" };
    let has = |labels: &BTreeMap<String, String>| selected.iter().all(|(name, value)| labels.get(name) == Some(value));
    // A folder has no pods: then it is those that the service may have.
    let may_have = || selected.iter().all(|(name, value)| port.selector.get(name).is_none_or(|has| has == value));
    let touches = if facts.workloads.is_empty() { may_have() } else { behind.iter().any(|pod| has(&pod.labels)) };
    touches.then(|| {
        policy.origin.error(
            format!("spec.rules[{index}].{field}"),
            format!(
                "port {} of {} is TCP to Istio, for which a {action} rule with HTTP's fields {what}; use appProtocol \
                 meltemi.dev/{}, or `deny` in a MetaRouter",
                port.number, port.host, port.protocol.codec.name
            ),
        )
    })
}

/// The first of a policy's rules for one of these ports that says what HTTP alone has, and where it does.
fn http_of_rules(policy: &Value, targets: &BTreeSet<u16>) -> Option<(usize, &'static str)> {
    let any = |value: &Value, fields: &[&str]| fields.iter().any(|field| value.get(field).is_some());
    let on_port = |operation: &Value| {
        let is =
            |said: &Value| said.as_str().is_some_and(|said| targets.iter().any(|target| target.to_string() == said));
        operation["ports"].as_array().is_none_or(|ports| ports.iter().any(is))
    };
    list(policy, "rules").enumerate().find_map(|(index, rule)| {
        let mut here = list(rule, "to").map(|to| &to["operation"]).filter(|operation| on_port(operation)).peekable();
        if here.peek().is_none() && list(rule, "to").next().is_some() {
            return None;
        }
        let of_call = ["paths", "notPaths", "methods", "notMethods", "hosts", "notHosts"];
        let of_token = ["requestPrincipals", "notRequestPrincipals"];
        let key = |when: &Value| when["key"].as_str().is_some_and(|key| key.starts_with("request."));
        if here.any(|operation| any(operation, &of_call)) {
            Some((index, "to"))
        } else if list(rule, "from").any(|from| any(&from["source"], &of_token)) {
            Some((index, "from"))
        } else {
            list(rule, "when").any(key).then_some((index, "when"))
        }
    })
}

/// Whose calls a VirtualService, or a route of the Gateway API, is for.
pub(super) struct Caller<'c> {
    pub(super) name: String,
    pub(super) codec: &'c str,
    /// The port that is called, whose number a destination has that names none.
    pub(super) number: Option<u16>,
}

impl<'c> Caller<'c> {
    /// The callers of a port.
    pub(super) fn of(port: &'c MeshPort<'_>) -> Self {
        Self { name: port.authority(), codec: &port.protocol.codec.name, number: Some(port.number) }
    }
}

/// What is in a field that is a list.
pub(super) fn list<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value[field].as_array().into_iter().flatten()
}

/// The hosts of a VirtualService, by their whole names.
pub(super) fn hosts_of(service: &Object<Value>, services: &Services<'_>) -> Vec<String> {
    let hosts = list(&service.spec, "hosts").filter_map(Value::as_str);
    hosts.map(|host| services.host_of(host, &service.metadata)).collect()
}

/// Where a route leads must speak the same protocol: its cluster needs the bridge.
fn virtual_service(service: &Object<Value>, ports: &[MeshPort<'_>], services: &Services<'_>, output: &mut Compiled) {
    let hosts = hosts_of(service, services);
    let ours = ports.iter().filter(|port| port.shape != Shape::Tcp && hosts.iter().any(|host| host == port.host));
    let callers: Vec<Caller<'_>> = ours.map(Caller::of).collect();
    destinations(service, &callers, services, output);
    if is_of_mesh(service) {
        let routes = service.spec["http"].as_array().into_iter().flatten().enumerate();
        let in_vain = routes.filter_map(|(index, route)| {
            let why = |host: &String| {
                let numbers = services.numbers_of(host).into_iter().filter(|number| is_of_port(route, Some(*number)));
                no_effect(host, &numbers.collect::<Vec<_>>(), ports)
            };
            Some(service.origin.error(format!("spec.http[{index}]"), hosts.iter().find_map(why)?))
        });
        output.problems.extend(in_vain);
    }
}

/// Whether a VirtualService is for sidecars, and not for gateways alone.
pub(super) fn is_of_mesh(service: &Object<Value>) -> bool {
    let gateways = service.spec["gateways"].as_array();
    gateways.is_none_or(|gateways| gateways.is_empty() || gateways.iter().any(|gateway| gateway == "mesh"))
}

/// Why HTTP's routes for these ports of a host do nothing: Istio sees TCP on all of them.
pub(super) fn no_effect(host: &str, numbers: &[u16], ports: &[MeshPort<'_>]) -> Option<String> {
    let is_tcp = |port: &&MeshPort<'_>| port.host == host && port.shape == Shape::Tcp && numbers.contains(&port.number);
    let first = ports.iter().find(is_tcp)?;
    (ports.iter().filter(is_tcp).count() == numbers.len()).then(|| {
        format!(
            "has no effect: port {} of {host} is TCP to Istio; use a MetaRouter, or appProtocol meltemi.dev/{}",
            first.number, first.protocol.codec.name
        )
    })
}

/// Where the routes lead.
pub(super) fn destinations(
    service: &Object<Value>,
    callers: &[Caller<'_>],
    services: &Services<'_>,
    output: &mut Compiled,
) {
    let full = |host: &str| services.host_of(host, &service.metadata);
    let routes = service.spec["http"].as_array().into_iter().flatten().enumerate();
    for (index, route) in routes {
        let callers: Vec<_> = callers.iter().filter(|caller| is_of_port(route, caller.number)).collect();
        let to = route["route"].as_array().into_iter().flatten().enumerate();
        let to = to.map(|(place, to)| (format!("route[{place}].destination"), &to["destination"]));
        let mirrors = route["mirrors"].as_array().into_iter().flatten().enumerate();
        let mirrors = mirrors.map(|(place, mirror)| (format!("mirrors[{place}].destination"), &mirror["destination"]));
        for (field, destination) in to.chain([("mirror".to_owned(), &route["mirror"])]).chain(mirrors) {
            let Some(host) = destination["host"].as_str().map(full) else { continue };
            // What is no port's number is as good as 0, which no port has.
            let number = destination["port"]["number"].as_u64().map(|number| number.try_into().unwrap_or(0));
            let astray = callers.iter().find_map(|caller| {
                let why = services.why_not(&host, number.or(caller.number), caller.codec)?;
                Some(format!("{why}, so calls of {} fail there", caller.name))
            });
            if let Some(reason) = astray {
                let field = format!("spec.http[{index}].{field}.host");
                output.problems.push(service.origin.error(field, reason));
            }
        }
    }
}

/// Whether a route can be for calls on this port.
fn is_of_port(route: &Value, number: Option<u16>) -> bool {
    let Some(number) = number else { return true };
    let matches = route["match"].as_array();
    let on = |one: &Value| one["port"].as_u64().is_none_or(|port| port == u64::from(number));
    matches.is_none_or(|matches| matches.is_empty() || matches.iter().any(on))
}

/// Somebody else's EnvoyFilter that changes the network filters of one of our listeners.
fn conflict(filter: &Object<Value>, port: u16, listeners: &[String]) -> Option<Problem> {
    let index = changes_filters(filter, "SIDECAR_OUTBOUND", |of| {
        of["name"].as_str().is_none_or(|name| listeners.iter().any(|ours| ours == name))
            && of["portNumber"].as_u64().is_none_or(|number| number == u64::from(port))
    })?;
    let reason =
        format!("changes the filters of {}, where ours are: the order of the two is not defined", listeners.join(", "));
    Some(filter.origin.warning(format!("spec.configPatches[{index}]"), reason))
}

/// The first patch of network filters in such listeners of a context.
pub(super) fn changes_filters(
    filter: &Object<Value>,
    context: &str,
    is_ours: impl Fn(&Value) -> bool,
) -> Option<usize> {
    filter.spec["configPatches"].as_array()?.iter().position(|patch| {
        let of = patch["match"]["context"].as_str().unwrap_or("ANY");
        (of == "ANY" || of == context)
            && is_ours(&patch["match"]["listener"])
            && patch["applyTo"] == "NETWORK_FILTER"
            && patch["patch"]["operation"] != "MERGE"
    })
}
