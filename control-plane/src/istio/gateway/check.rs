//! What leads through gateways of ours and does not fit.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    super::{
        api_routes::{self, Parent},
        check::{changes_filters, destinations},
    },
    CONTEXT, Compiled, Facts, Fleet, Taken, host,
};
use crate::{
    compile::Services,
    model::{Metadata, Model, Object},
    problem::{Origin, Problem},
};

/// Adds what is wrong with routes of gateways, and with what else changes them.
pub(super) fn add(
    model: &Model,
    services: &Services<'_>,
    facts: &Facts,
    fleets: &[Fleet<'_>],
    taken: &[Taken<'_>],
    output: &mut Compiled,
) {
    if taken.is_empty() {
        return;
    }
    for router in &model.meta_routers {
        let hosts = router.spec.hosts.iter().map(|host| services.host_of(host, &router.metadata)).collect();
        let bound = Bound { origin: &router.origin, metadata: &router.metadata, hosts };
        bound.check_names(router.spec.gateways.iter().map(String::as_str), taken, output);
    }
    for service in facts.others("VirtualService") {
        let texts = |field: &str| {
            let all = service.spec[field].as_array().into_iter().flatten();
            all.filter_map(Value::as_str).collect::<Vec<_>>()
        };
        let hosts = texts("hosts").into_iter().map(|host| services.host_of(host, &service.metadata)).collect();
        let bound = Bound { origin: &service.origin, metadata: &service.metadata, hosts };
        let gateways = texts("gateways");
        bound.check_names(gateways.iter().copied(), taken, output);
        let through = taken.iter().find(|one| gateways.iter().any(|name| bound.means(name, one.fleet)));
        if let Some(one) = through {
            destinations(service, &[one.caller()], services, output);
        }
        let fleets = fleets.iter().filter(|fleet| gateways.iter().any(|name| bound.means(name, fleet)));
        for fleet in fleets {
            connections(service, fleet, services, taken, output);
        }
    }
    for route in api_routes::all(facts) {
        let of = |one: &&Taken<'_>| api_routes::parents(route).any(|parent| is_parent(&parent, one));
        if let Some(one) = taken.iter().find(of) {
            api_routes::backends(route, &[one.caller()], services, output);
        }
    }
    for filter in facts.others("EnvoyFilter") {
        output.problems.extend(taken.iter().find_map(|one| conflict(filter, one, facts)));
    }
}

/// Whether a route of the Gateway API is of a server of ours.
fn is_parent(parent: &Parent<'_>, one: &Taken<'_>) -> bool {
    let gateway = &one.fleet.gateway.metadata;
    one.fleet.namespace.is_some()
        && parent.kind == "Gateway"
        && (parent.namespace, parent.name) == (gateway.namespace.as_str(), gateway.name.as_str())
        && parent.takes(one.server.port)
}

/// Somebody else's EnvoyFilter that changes the network filters of a server of ours.
fn conflict(filter: &Object<Value>, one: &Taken<'_>, facts: &Facts) -> Option<Problem> {
    let is_near = |namespace: &str| filter.metadata.namespace == namespace;
    let labels: BTreeMap<String, String> =
        serde_json::from_value(filter.spec["workloadSelector"]["labels"].clone()).unwrap_or_default();
    let of_pods = one.fleet.pods.iter().any(|pod| {
        (is_near(&facts.root_namespace) || is_near(&pod.namespace))
            && labels.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
    });
    let ports = one.fleet.listens_on(one.server.port);
    let index = changes_filters(filter, CONTEXT, |of| {
        let named = |port: &u16| of["name"].as_str().is_none_or(|name| name.ends_with(&format!("_{port}")));
        let numbered = |port: &u16| of["portNumber"].as_u64().is_none_or(|number| number == u64::from(*port));
        ports.iter().any(|port| named(port) && numbered(port))
    })
    .filter(|_| of_pods)?;
    let reason = format!(
        "changes the filters of Gateway {} on port {}, where ours are: the order of the two is not defined",
        one.fleet.gateway.origin.name, one.server.port
    );
    Some(filter.origin.warning(format!("spec.configPatches[{index}]"), reason))
}

/// An object that says by which gateways its routes are.
struct Bound<'a> {
    origin: &'a Origin,
    metadata: &'a Metadata,
    /// The names that it is for.
    hosts: Vec<String>,
}

impl Bound<'_> {
    /// Whether it names this gateway so. Those of the Gateway API have objects of their own for that.
    fn means(&self, name: &str, fleet: &Fleet<'_>) -> bool {
        let (namespace, name) = name.split_once('/').unwrap_or((&self.metadata.namespace, name));
        let gateway = &fleet.gateway.metadata;
        fleet.namespace.is_none() && (gateway.namespace.as_str(), gateway.name.as_str()) == (namespace, name)
    }

    /// Calls that come through a gateway are for one name.
    fn check_names<'n>(&self, gateways: impl Iterator<Item = &'n str>, taken: &[Taken<'_>], output: &mut Compiled) {
        for (index, name) in gateways.enumerate() {
            let mut servers = taken.iter().filter(|one| self.means(name, one.fleet)).peekable();
            let Some(first) = servers.peek().map(|one| one.authority()) else { continue };
            let fits = |one: &Taken<'_>| self.hosts.iter().any(|mine| covers(mine, host(one.server).unwrap_or("*")));
            if !servers.any(fits) {
                let reason = format!(
                    "calls through {name} are for {first}, and not for {}: no call comes here",
                    self.hosts.join(", ")
                );
                output.problems.push(self.origin.warning(format!("spec.gateways[{index}]"), reason));
            }
        }
    }
}

/// Whether routes for a name take calls for another. What a gateway leaves open only those for every name take.
fn covers(mine: &str, host: &str) -> bool {
    mine == "*" || mine == host || mine.strip_prefix('*').is_some_and(|suffix| host != "*" && host.ends_with(suffix))
}

/// Routes of connections: a cluster with the bridge has none.
fn connections(
    service: &Object<Value>,
    fleet: &Fleet<'_>,
    services: &Services<'_>,
    taken: &[Taken<'_>],
    output: &mut Compiled,
) {
    let Some(one) = taken.iter().find(|one| one.fleet.shares_pods_with(fleet)) else { return };
    for kind in ["tcp", "tls"] {
        let routes = service.spec[kind].as_array().into_iter().flatten().enumerate();
        for (index, route) in routes {
            for (place, to) in route["route"].as_array().into_iter().flatten().enumerate() {
                let Some(to_host) = to["destination"]["host"].as_str() else { continue };
                let to_host = services.host_of(to_host, &service.metadata);
                let number = to["destination"]["port"]["number"].as_u64().and_then(|number| number.try_into().ok());
                if services.why_not(&to_host, number, &one.protocol.codec.name).is_none() {
                    let reason = format!(
                        "the proxies of Gateway {} take {} for calls to `{to_host}`, so connections fail",
                        one.fleet.gateway.origin.name, one.protocol.codec.name
                    );
                    let field = format!("spec.{kind}[{index}].route[{place}].destination.host");
                    output.problems.push(service.origin.error(field, reason));
                }
            }
        }
    }
}
