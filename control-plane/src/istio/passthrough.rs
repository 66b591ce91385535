//! Services without a choice of endpoints: a headless one, or a ServiceEntry with resolution `NONE`. Istio's clusters of them
//! know no endpoints, and take each call to the address that its client chose. A sidecar's route can change nothing about
//! that, whatever subset or service it names.

use std::collections::HashSet;

use serde_json::Value;

use super::{Compiled, Facts, check::is_of_mesh, ports::MeshPort};
use crate::{
    compile::Services,
    model::{Model, Object},
    problem::{Origin, Problem},
};

/// Adds what routes of ours ask for in vain.
pub(super) fn add(
    model: &Model,
    ports: &[MeshPort<'_>],
    services: &Services<'_>,
    facts: &Facts,
    output: &mut Compiled,
) {
    let chosen: HashSet<&str> = ports.iter().filter(|port| port.by_client).map(|port| port.host).collect();
    if chosen.is_empty() {
        return;
    }
    let is_ours = |hosts: &[String]| ports.iter().any(|port| hosts.iter().any(|host| host == port.host));
    for router in &model.meta_routers {
        let full = |host: &str| services.host_of(host, &router.metadata);
        let hosts: Vec<String> = router.spec.hosts.iter().map(|host| full(host)).collect();
        let aim = Aim { origin: &router.origin, hosts: &hosts, chosen: &chosen };
        if is_ours(&hosts) {
            let subset = |name: &Option<String>| name.as_ref().is_some_and(|name| !name.is_empty());
            let all = router.spec.destinations();
            let vain = all.filter_map(|(field, to)| aim.vain(&field, &full(&to.host), subset(&to.subset)));
            output.problems.extend(vain);
        }
    }
    for service in facts.others("VirtualService") {
        virtual_service(service, &chosen, is_ours, services, output);
    }
}

fn virtual_service(
    service: &Object<Value>,
    chosen: &HashSet<&str>,
    is_ours: impl Fn(&[String]) -> bool,
    services: &Services<'_>,
    output: &mut Compiled,
) {
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let full = |host: &str| services.host_of(host, &service.metadata);
    let hosts: Vec<String> = list(&service.spec, "hosts").iter().filter_map(Value::as_str).map(full).collect();
    if !is_of_mesh(service) || !is_ours(&hosts) {
        return;
    }
    let aim = Aim { origin: &service.origin, hosts: &hosts, chosen };
    for (index, route) in list(&service.spec, "http").iter().enumerate() {
        for (place, to) in list(route, "route").iter().enumerate() {
            let Some(host) = to["destination"]["host"].as_str() else { continue };
            let field = format!("spec.http[{index}].route[{place}].destination");
            output.problems.extend(aim.vain(&field, &full(host), to["destination"]["subset"].is_string()));
        }
    }
}

/// Somebody's routes.
struct Aim<'a> {
    origin: &'a Origin,
    /// Whose calls they are for.
    hosts: &'a [String],
    chosen: &'a HashSet<&'a str>,
}

impl Aim<'_> {
    fn vain(&self, field: &str, host: &str, has_subset: bool) -> Option<Problem> {
        if !self.chosen.contains(host) {
            return None;
        }
        let why = format!(
            "Istio knows no endpoints of `{host}`: sidecars take each call to the address that its client chose"
        );
        if !self.hosts.iter().any(|own| own == host) {
            let reason = format!("{why}, and calls of {} do not get there", self.hosts.join(", "));
            return Some(self.origin.warning(format!("{field}.host"), reason));
        }
        has_subset.then(|| self.origin.warning(format!("{field}.subset"), format!("has no effect: {why}")))
    }
}
