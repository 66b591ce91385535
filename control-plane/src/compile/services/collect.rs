//! Ports out of ServiceEntries and Services.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use super::{Port, PortEndpoint, Services, kubernetes_host, taken};
use crate::{
    compile::protocols::Naming,
    model::{Model, Resolution},
    problem::{Kind, Origin, Problem},
};

/// Where a service without an address is listened for.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Services<'_> {
    pub(super) fn add_service_entries(&mut self, model: &Model, problems: &mut Vec<Problem>) {
        for entry in &model.service_entries {
            let spec = &entry.spec;
            for (order, host) in spec.hosts.iter().enumerate() {
                // Each of several hosts has a listener and needs an address of its own. istiod gives all of them to one host.
                let enough = self.own_listeners && spec.addresses.len() >= spec.hosts.len();
                let own = if enough { order } else { 0 };
                let shares = order > own;
                let address = if self.own_listeners {
                    first_address(spec.addresses.iter().skip(own), &entry.origin, "spec.addresses", problems)
                } else {
                    LOCAL
                };
                for (index, port) in spec.ports.iter().enumerate() {
                    let field = format!("spec.ports[{index}]");
                    let named = Naming {
                        name: &port.name,
                        app_protocol: Some(&port.protocol),
                        app_protocol_field: "protocol",
                        sniffed_if_empty: true,
                    };
                    let dns = matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
                    let mut endpoints = Vec::new();
                    for (place, endpoint) in spec.endpoints.iter().enumerate() {
                        let wrong = match endpoint.address.as_str() {
                            "" => Some("missing; the endpoint was left out"),
                            address if !dns && address.parse::<IpAddr>().is_err() => {
                                Some("not an IP address; names need `resolution: DNS`; the endpoint was left out")
                            }
                            _ => None,
                        };
                        if let Some(reason) = wrong {
                            problems.push(entry.origin.error(format!("spec.endpoints[{place}].address"), reason));
                            continue;
                        }
                        endpoints.push(PortEndpoint {
                            address: endpoint.address.clone(),
                            port: endpoint.ports.get(&port.name).copied().or(port.target_port).unwrap_or(port.number),
                            weight: endpoint.weight.unwrap_or(1).max(1),
                            labels: endpoint.labels.clone(),
                        });
                    }
                    if dns && spec.endpoints.is_empty() {
                        endpoints.push(PortEndpoint {
                            address: host.clone(),
                            port: port.target_port.unwrap_or(port.number),
                            weight: 1,
                            labels: BTreeMap::new(),
                        });
                    }
                    let protocol =
                        self.protocols.of(&named, &entry.metadata, port.number, &entry.origin, &field, problems);
                    if shares && protocol.is_some() {
                        let reason = if self.own_listeners {
                            "was left out: each of several hosts needs an address of its own in spec.addresses"
                        } else {
                            "was left out: in a mesh all addresses lead to one host; write a ServiceEntry for each"
                        };
                        problems.push(entry.origin.warning(format!("spec.hosts[{order}]"), reason));
                        continue;
                    }
                    self.add(
                        Port {
                            origin: entry.origin.clone(),
                            annotations: entry.metadata.annotations.clone(),
                            host: host.clone(),
                            number: port.number,
                            address,
                            protocol,
                            dns,
                            endpoints,
                        },
                        &field,
                        problems,
                    );
                }
            }
        }
    }

    pub(super) fn add_kubernetes(&mut self, model: &Model, problems: &mut Vec<Problem>) {
        for service in &model.services {
            let metadata = &service.metadata;
            let ips = service.spec.cluster_ips.iter().chain(&service.spec.cluster_ip).filter(|ip| *ip != "None");
            let address = first_address(ips, &service.origin, "spec.clusterIP", problems);
            for (index, port) in service.spec.ports.iter().enumerate() {
                let field = format!("spec.ports[{index}]");
                let mut endpoints = Vec::new();
                for slice in self.slices_of(metadata) {
                    let Some(number) =
                        slice.spec.ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == port.name)
                    else {
                        continue;
                    };
                    for endpoint in slice.spec.endpoints.iter().filter(|e| e.conditions.ready != Some(false)) {
                        let Some(address) = endpoint.addresses.first() else { continue };
                        if address.parse::<IpAddr>().is_err() {
                            let reason = format!("`{address}` is not an IP address, and was left out");
                            problems.push(slice.origin.warning("endpoints", reason));
                            continue;
                        }
                        let mut labels = slice.metadata.labels.clone();
                        labels.extend(endpoint.labels.clone());
                        endpoints.push(PortEndpoint { address: address.clone(), port: number.port, weight: 1, labels });
                    }
                }
                let named = Naming {
                    name: &port.name,
                    app_protocol: port.app_protocol.as_deref(),
                    app_protocol_field: "appProtocol",
                    sniffed_if_empty: false,
                };
                let protocol = self.protocols.of(&named, metadata, port.port, &service.origin, &field, problems);
                let port = Port {
                    origin: service.origin.clone(),
                    annotations: metadata.annotations.clone(),
                    host: kubernetes_host(&metadata.name, &metadata.namespace),
                    number: port.port,
                    address,
                    protocol,
                    dns: false,
                    endpoints,
                };
                self.add(port, &field, problems);
            }
        }
    }

    fn add(&mut self, port: Port, field: &str, problems: &mut Vec<Problem>) {
        if port.number == 0 {
            problems.push(port.origin.error(field, "a port needs a number"));
            return;
        }
        let key = (port.host.clone(), port.number);
        let listens_there = |other: &&Port| {
            other.protocol.is_some()
                && port.protocol.is_some()
                && other.number == port.number
                && overlap(other.address, port.address)
        };
        let on_address = || self.own_listeners.then(|| self.ports.values().find(listens_there)).flatten();
        let clash = self.ports.get(&key).or_else(on_address);
        if let Some(other) = clash {
            let place = format!("{} ({}:{})", taken(&other.origin), other.address, other.number);
            problems.push(port.origin.error(field, place).of(Kind::Conflict));
            return;
        }
        self.ports.insert(key, port);
    }
}

/// Whether two listeners with these addresses would be in each other's way on one port.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

fn first_address<'s>(
    mut addresses: impl Iterator<Item = &'s String>,
    origin: &Origin,
    field: &str,
    problems: &mut Vec<Problem>,
) -> IpAddr {
    let Some(address) = addresses.next() else { return LOCAL };
    address.parse().unwrap_or_else(|_| {
        problems.push(origin.warning(field, format!("`{address}` is not an IP address: listening on {LOCAL}")));
        LOCAL
    })
}
