//! Objects of the user that lead to our ports what is no call: their clusters carry the bridge, where a proxy has the module, and
//! connections and HTTP fail there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Compiled, Facts,
    check::{hosts_of, is_of_mesh, list},
    ports::{MeshPort, Shape},
};
use crate::{
    compile::Services,
    model::{Mode, Object},
};

/// Protocols that Istio does not find out, but is told.
const KNOWN: [&str; 11] =
    ["TCP", "HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS", "MONGO", "REDIS", "MYSQL", "HTTP_PROXY"];

/// Adds what is found.
pub(super) fn add(ports: &[MeshPort<'_>], services: &Services<'_>, facts: &Facts, output: &mut Compiled) {
    for service in facts.others("VirtualService") {
        virtual_service(service, ports, services, output);
    }
    for sidecar in facts.others("Sidecar") {
        listeners(sidecar, ports, output);
        own_ports(sidecar, ports, facts, output);
    }
}

/// Routes of a service that is not ours.
fn virtual_service(service: &Object<Value>, ports: &[MeshPort<'_>], services: &Services<'_>, output: &mut Compiled) {
    let full = |host: &str| services.host_of(host, &service.metadata);
    let hosts = hosts_of(service, services);
    if !is_of_mesh(service) || ports.iter().any(|port| hosts.iter().any(|host| host == port.host)) {
        return;
    }
    // A destination that names no port keeps the number.
    let kept: Vec<u16> = hosts.iter().flat_map(|host| services.numbers_of(host)).collect();
    for (kind, what) in [("http", "HTTP"), ("tcp", "connections"), ("tls", "connections")] {
        for (index, route) in list(&service.spec, kind).enumerate() {
            for (place, to) in list(route, "route").enumerate() {
                let destination = &to["destination"];
                let Some(host) = destination["host"].as_str().map(full) else { continue };
                let number = destination["port"]["number"].as_u64();
                let is_there = |port: &&MeshPort<'_>| {
                    let same = |number| number == u64::from(port.number);
                    port.host == host
                        && port.protocol.mode == Mode::Request
                        && number.map_or_else(|| kept.contains(&port.number), same)
                };
                if let Some(port) = ports.iter().find(is_there) {
                    let reason = format!(
                        "port {} of `{host}` takes calls of {}: {what} of {} fail there",
                        port.number,
                        port.protocol.codec.name,
                        hosts.join(", ")
                    );
                    let field = format!("spec.{kind}[{index}].route[{place}].destination.host");
                    output.problems.push(service.origin.error(field, reason));
                }
            }
        }
    }
}

/// Listeners that a Sidecar resource makes otherwise than our filters need them.
fn listeners(sidecar: &Object<Value>, ports: &[MeshPort<'_>], output: &mut Compiled) {
    for (index, egress) in list(&sidecar.spec, "egress").enumerate() {
        let Some(number) = egress["port"]["number"].as_u64() else { continue };
        let of_this = ports.iter().filter(|port| {
            u64::from(port.number) == number
                && port.shape != Shape::Http
                && port.protocol.mode == Mode::Request
                && list(egress, "hosts")
                    .filter_map(Value::as_str)
                    .any(|h| imports(h, &sidecar.metadata.namespace, port))
        });
        for port in of_this {
            if let Some(why) = unfit(port, egress) {
                let reason = format!("{why}: calls to {} fail there; leave `port` out", port.host);
                output.problems.push(sidecar.origin.error(format!("spec.egress[{index}].port"), reason));
                break;
            }
        }
    }
}

/// Ports of its pods that a Sidecar resource says are of a protocol which leaves our filters no place.
fn own_ports(sidecar: &Object<Value>, ports: &[MeshPort<'_>], facts: &Facts, output: &mut Compiled) {
    let labels: BTreeMap<String, String> =
        serde_json::from_value(sidecar.spec["workloadSelector"]["labels"].clone()).unwrap_or_default();
    let is_of = |port: &MeshPort<'_>| {
        port.namespace == sidecar.metadata.namespace
            && facts.workloads.iter().any(|pod| {
                pod.is_selected(port.namespace, port.selector)
                    && labels.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
            })
    };
    for (index, ingress) in list(&sidecar.spec, "ingress").enumerate() {
        let Some(number) = ingress["port"]["number"].as_u64() else { continue };
        let said = ingress["port"]["protocol"].as_str().unwrap_or_default().to_uppercase();
        let is_http = matches!(said.as_str(), "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB");
        let misses = |port: &&MeshPort<'_>| {
            let fits =
                !KNOWN.contains(&said.as_str()) || if port.shape == Shape::Tcp { said == "TCP" } else { is_http };
            !fits && port.targets.iter().any(|target| u64::from(*target) == number) && is_of(port)
        };
        if let Some(port) = ports.iter().find(misses) {
            let fit = if port.shape == Shape::Tcp { "TCP" } else { "HTTP" };
            let reason = format!("{said}, so calls to {} fail there: say {fit}, or nothing", port.authority());
            output.problems.push(sidecar.origin.error(format!("spec.ingress[{index}].port.protocol"), reason));
        }
    }
}

/// Why our filters take no calls in the listener that an egress makes, if it is so.
fn unfit(port: &MeshPort<'_>, egress: &Value) -> Option<String> {
    let bind = egress["bind"].as_str().map(|bind| format!("{bind}_{}", port.number));
    if let Some(name) = bind.filter(|name| !port.listeners().contains(name)) {
        return Some(format!("makes the listener {name}, of an address that is not ours"));
    }
    // A protocol that Istio does not know is found out there, as ours is without this.
    let said = egress["port"]["protocol"].as_str().unwrap_or_default().to_uppercase();
    let fits = !KNOWN.contains(&said.as_str()) || (port.shape == Shape::Tcp && said == "TCP");
    (!fits).then(|| format!("says that port {} is {said}", port.number))
}

/// Whether `namespace/host` of a Sidecar resource means this port's service.
fn imports(hosts: &str, own: &str, port: &MeshPort<'_>) -> bool {
    let Some((namespace, host)) = hosts.split_once('/') else { return false };
    let of_namespace = match namespace {
        "*" => true,
        "." => port.namespace == own,
        other => port.namespace == other,
    };
    let of_name = host == port.host || host.strip_prefix('*').is_some_and(|suffix| port.host.ends_with(suffix));
    of_namespace && of_name
}
