//! What leads through gateways of ours and does not fit.

use serde_json::Value;

use super::{
    super::check::{Caller, destinations},
    Compiled, Facts, Fleet, Taken, host,
};
use crate::{
    compile::Services,
    model::{Metadata, Model, Object},
    problem::Origin,
};

/// Adds what is wrong with routes of gateways.
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
            let name = format!("Gateway {}", one.fleet.gateway.origin.name);
            destinations(service, &[Caller { name, codec: &one.protocol.codec.name, number: None }], services, output);
        }
        let fleets = fleets.iter().filter(|fleet| gateways.iter().any(|name| bound.means(name, fleet)));
        for fleet in fleets {
            connections(service, fleet, services, taken, output);
        }
    }
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
