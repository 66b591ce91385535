//! Ports of the mesh that are ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use meltemi_engine::config::Destination;
use serde::Serialize;

use super::{Compiled, Options, Planned, Workload, patch::Side, pods::Pods};
use crate::{
    compile::{CODEC_ANNOTATION, Host, Port, Protocol, Services},
    model::{
        EndpointSlice, Metadata, Model, Object, Resolution, Service, ServiceEntry, ServiceEntryPort, ServicePort,
        TargetPort,
    },
    problem::Origin,
};

/// Ports that Istio takes for TCP unless their protocol says otherwise, which ours, unknown to it, does not.
const WELL_KNOWN: [u16; 4] = [25, 53, 3306, 27017];

/// What the listeners of no address are called by.
const WILDCARDS: [&str; 2] = ["0.0.0.0", "::"];

/// What people are told of a port whose clients choose.
const BY_CLIENT: &str = "Istio knows no endpoints of it: each call goes to the address that its client chose";

/// Which configuration a port gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// istiod's HCM in a listener of the service's own.
    Native,
    /// istiod's HCM in the listener that HTTP services share.
    Http,
    /// Our HCM in the place of `tcp_proxy`.
    Tcp,
}

/// A port of a service, as the mesh sees it.
#[derive(Debug)]
pub(super) struct MeshPort<'a> {
    pub(super) origin: &'a Origin,
    pub(super) namespace: &'a str,
    /// Name of the object.
    pub(super) name: &'a str,
    pub(super) host: &'a str,
    pub(super) number: u16,
    pub(super) shape: Shape,
    pub(super) protocol: &'a Protocol,
    /// Where clients connect to: the service's addresses, or its pods'.
    pub(super) addresses: Vec<IpAddr>,
    /// Each address has a listener of its own. Otherwise they share one, which is called by the first.
    pub(super) apart: bool,
    /// Some proxies take its connections in the listener of no address, where all of this port number are that have no other:
    /// it has no addresses, or a range of them.
    pub(super) anywhere: bool,
    /// Those ranges, by their first address and the bits that count.
    pub(super) ranges: Vec<(IpAddr, u8)>,
    /// Istio knows no endpoints of it: each call goes to the address that its client chose.
    pub(super) by_client: bool,
    /// The port's numbers in the pods.
    pub(super) targets: BTreeSet<u16>,
    /// Which pods; empty if it selects none.
    pub(super) selector: &'a BTreeMap<String, String>,
}

impl MeshPort<'_> {
    /// No two are the same in both.
    pub(super) const fn key(&self) -> (&str, u16) {
        (self.host, self.number)
    }

    /// Names of the listeners in which clients' sidecars take its connections; none for a headless service without pods.
    pub(super) fn listeners(&self) -> Vec<String> {
        if self.addresses.is_empty() && !self.anywhere {
            return Vec::new();
        }
        let named = |address: &dyn std::fmt::Display| format!("{address}_{}", self.number);
        let first_of = |ipv6: bool| self.addresses.iter().find(|address| address.is_ipv6() == ipv6);
        if self.shape == Shape::Http {
            // The shared one is called by the families that a proxy has, not by those of the service.
            let wildcards = WILDCARDS.into_iter().take(if first_of(true).is_some() { 2 } else { 1 });
            return wildcards.map(|wildcard| named(&wildcard)).collect();
        }
        let mut names: Vec<String> = match self.addresses.as_slice() {
            // A proxy of both families calls it by the first address, one of a single family by the first of its own.
            [first, ..] if !self.apart => {
                std::iter::once(first).chain(first_of(!first.is_ipv6())).map(|address| named(address)).collect()
            }
            addresses => addresses.iter().map(|address| named(address)).collect(),
        };
        names.extend(self.listeners_of_no_address());
        names
    }

    /// Names of the listener of no address, if it takes connections of the port: it has the second in proxies of IPv6 alone.
    pub(super) fn listeners_of_no_address(&self) -> Vec<String> {
        let names = WILDCARDS.iter().filter(|_| self.anywhere).map(|wildcard| format!("{wildcard}_{}", self.number));
        names.collect()
    }

    /// Those listeners carry nothing else.
    pub(super) fn has_own_listeners(&self) -> bool {
        self.shape == Shape::Native && !self.anywhere
    }

    /// Where its connections go to.
    pub(super) fn destinations(&self) -> Vec<Destination> {
        let of = |address| Destination { address, port: self.number, authority: Some(self.authority()) };
        if self.anywhere {
            return vec![of(None)];
        }
        self.addresses.iter().map(|address| of(Some(*address))).collect()
    }

    /// `:authority` of its requests.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.number)
    }

    /// Name of the EnvoyFilter for its servers.
    pub(super) fn server_filter_name(&self, runner: &Host) -> String {
        format!("meltemi-{}in-{}-{}", runner.word().replace('.', "-"), self.name, self.number)
    }

    /// Name of a filter configuration, of which a proxy must not have two.
    pub(super) fn extension_name(&self, runner: &Host, filter: &str, side: Side) -> String {
        let runner = runner.word();
        format!("meltemi.{runner}{filter}.{}.{}.{}.{}", side.word(), self.namespace, self.name, self.number)
    }

    /// The sidecar of a pod has our filters on this port.
    pub(super) fn is_taken_by(&self, pod: &Workload, options: &Options) -> bool {
        pod.has_module() || self.shape == Shape::Tcp && options.wasm.is_some() && pod.has_wasm()
    }

    /// What people are told of it; without the objects.
    pub(super) fn planned(&self, pods: &Pods<'_>, options: &Options) -> Planned {
        let behind = pods.behind(self.namespace, self.selector).into_iter();
        let (with, without): (Vec<_>, Vec<_>) = behind.partition(|pod| self.is_taken_by(pod, options));
        let names = |pods: Vec<&Workload>| pods.iter().map(|p| format!("{}/{}", p.namespace, p.name)).collect();
        Planned {
            host: self.host.to_owned(),
            port: self.number,
            codec: Some(self.protocol.codec.name.clone()),
            shape: Some(self.shape),
            notes: self.by_client.then(|| BY_CLIENT.to_owned()).into_iter().collect(),
            objects: Vec::new(),
            workloads: names(with),
            without_module: names(without),
        }
    }
}

/// Finds all ports that are ours; of the others the plan says why they are left alone.
pub(super) fn collect<'a>(model: &'a Model, services: &'a Services<'_>, output: &mut Compiled) -> Vec<MeshPort<'a>> {
    let mut all = Vec::new();
    for service in &model.services {
        for port in &service.spec.ports {
            let host = crate::compile::kubernetes_host(&service.metadata.name, &service.metadata.namespace);
            let Some(compiled) = services.port(&host, port.port).filter(|p| p.origin == service.origin) else {
                continue;
            };
            match shape(&port.name, port.app_protocol.as_deref(), &service.metadata) {
                Some(Shape::Native) if compiled.protocol.is_some() && WELL_KNOWN.contains(&port.port) => {
                    let reason = format!(
                        "Istio takes port {} for plain TCP whatever its appProtocol says, so it is left alone; use another \
                         number, or the name tcp-metaprotocol-<protocol>",
                        port.port
                    );
                    refuse(compiled, "spec.ports", reason, output);
                }
                Some(shape) if compiled.protocol.is_some() => {
                    all.extend(of_service(service, port, compiled, shape, services))
                }
                shape => output.plan.push(left_alone(compiled, shape)),
            }
        }
    }
    for entry in &model.service_entries {
        for (host, port) in entry.spec.hosts.iter().flat_map(|h| entry.spec.ports.iter().map(move |p| (h, p))) {
            let Some(compiled) = services.port(host, port.number).filter(|p| p.origin == entry.origin) else {
                continue;
            };
            let shape = match shape(&port.name, Some(&port.protocol), &entry.metadata) {
                // Nothing said is sniffed, as is a protocol that Istio does not know.
                Some(Shape::Http) if port.protocol.is_empty() => Some(Shape::Native),
                shape => shape,
            };
            let range = entry.spec.addresses.iter().find(|address| single(address).is_none());
            match (shape, range) {
                (Some(Shape::Native), Some(range)) if compiled.protocol.is_some() => {
                    let reason = format!(
                        "`{range}` is not one address: behind it Istio sees plain TCP, so port {} is left alone; list \
                         addresses, or name the port tcp-metaprotocol-<protocol>",
                        port.number
                    );
                    refuse(compiled, "spec.addresses", reason, output);
                }
                (Some(shape), _) if compiled.protocol.is_some() => all.extend(of_entry(entry, port, compiled, shape)),
                _ => output.plan.push(left_alone(compiled, shape)),
            }
        }
    }
    all
}

/// The shape that a port asks for.
fn shape(name: &str, app_protocol: Option<&str>, metadata: &Metadata) -> Option<Shape> {
    if app_protocol.is_some_and(|protocol| protocol.starts_with("meltemi.dev/")) {
        Some(Shape::Native)
    } else if name.starts_with("tcp-metaprotocol-") {
        Some(Shape::Tcp)
    } else if metadata.annotations.contains_key(CODEC_ANNOTATION) {
        Some(Shape::Http)
    } else {
        None
    }
}

/// Leaves a port alone that Istio sees plain TCP on, where a bridge would fail every call.
fn refuse(port: &Port, field: &str, reason: String, output: &mut Compiled) {
    output.plan.push(Planned { notes: vec![reason.clone()], ..left_alone(port, None) });
    output.problems.push(port.origin.error(field, reason));
}

/// A port that asks for a shape and has no codec is one whose codec we do not know.
fn left_alone(port: &Port, asks: Option<Shape>) -> Planned {
    let why = if asks.is_some() {
        "its codec is not known: see the errors"
    } else {
        "no codec: neither appProtocol meltemi.dev/<protocol>, nor the name tcp-metaprotocol-<protocol>, nor an HTTP name \
         with the annotation meltemi.dev/codec"
    };
    Planned {
        host: port.host.clone(),
        port: port.number,
        codec: None,
        shape: None,
        notes: vec![why.to_owned()],
        objects: Vec::new(),
        workloads: Vec::new(),
        without_module: Vec::new(),
    }
}

fn of_service<'a>(
    service: &'a Object<Service>,
    port: &'a ServicePort,
    compiled: &'a Port,
    shape: Shape,
    services: &Services<'_>,
) -> Option<MeshPort<'a>> {
    let slices = services.slices_of(&service.metadata);
    let ips = service.spec.cluster_ips.iter().chain(&service.spec.cluster_ip);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in ips.filter_map(|ip| ip.parse().ok()) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    let headless = addresses.is_empty();
    if headless {
        let pods = slices.iter().flat_map(|slice| &slice.spec.endpoints).flat_map(|endpoint| &endpoint.addresses);
        addresses = pods.filter_map(|address| address.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
    }
    Some(MeshPort {
        origin: &service.origin,
        namespace: &service.metadata.namespace,
        name: &service.metadata.name,
        host: &compiled.host,
        number: compiled.number,
        shape,
        protocol: compiled.protocol.as_ref()?,
        addresses,
        apart: headless,
        anywhere: false,
        ranges: Vec::new(),
        by_client: service.spec.cluster_ip.as_deref() == Some("None"),
        targets: targets(port, slices),
        selector: &service.spec.selector,
    })
}

/// The numbers of a port in the pods behind it.
pub(super) fn targets(port: &ServicePort, slices: &[&Object<EndpointSlice>]) -> BTreeSet<u16> {
    match &port.target_port {
        None => BTreeSet::from([port.port]),
        Some(TargetPort::Number(number)) => BTreeSet::from([*number]),
        // The slices say what the pods' containers call it.
        Some(TargetPort::Name(_)) => slices
            .iter()
            .flat_map(|slice| &slice.spec.ports)
            .filter(|named| named.name.as_deref().unwrap_or_default() == port.name)
            .map(|named| named.port)
            .collect(),
    }
}

fn of_entry<'a>(
    entry: &'a Object<ServiceEntry>,
    port: &ServiceEntryPort,
    compiled: &'a Port,
    shape: Shape,
) -> Option<MeshPort<'a>> {
    static NOBODY: BTreeMap<String, String> = BTreeMap::new();
    let spec = &entry.spec;
    let mut addresses: Vec<IpAddr> = spec.addresses.iter().filter_map(|address| single(address)).collect();
    let ranges: Vec<_> = spec.addresses.iter().filter_map(|address| range(address)).collect();
    let anywhere = !ranges.is_empty() || spec.addresses.is_empty();
    if spec.addresses.is_empty() {
        // Of proxies that answer DNS themselves; others have the listener of no address.
        let mine = spec.assigned.iter().filter(|assigned| assigned.host == compiled.host);
        addresses.extend(mine.filter_map(|assigned| assigned.value.parse::<IpAddr>().ok()));
    }
    Some(MeshPort {
        origin: &entry.origin,
        namespace: &entry.metadata.namespace,
        name: &entry.metadata.name,
        host: &compiled.host,
        number: compiled.number,
        shape,
        protocol: compiled.protocol.as_ref()?,
        addresses,
        apart: true,
        anywhere,
        ranges,
        by_client: spec.resolution == Resolution::None,
        targets: BTreeSet::from([port.target_port.unwrap_or(compiled.number)]),
        selector: spec.workload_selector.as_ref().map_or(&NOBODY, |selector| &selector.labels),
    })
}

/// An address, or a range of one, which istiod takes for it.
fn single(address: &str) -> Option<IpAddr> {
    let (ip, bits) = address.split_once('/').map_or((address, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().ok()?;
    let all = if ip.is_ipv6() { "128" } else { "32" };
    bits.is_none_or(|bits| bits == all).then_some(ip)
}

/// A range of several addresses, by the first of them however it is written: Envoy compares no more of it.
fn range(address: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = address.split_once('/').filter(|_| single(address).is_none())?;
    let (ip, bits): (IpAddr, u8) = (ip.parse().ok()?, bits.parse().ok()?);
    let first = match ip {
        IpAddr::V4(ip) => {
            let free = 32_u32.checked_sub(bits.into())?;
            IpAddr::V4((u32::from(ip) & u32::MAX.checked_shl(free).unwrap_or(0)).into())
        }
        IpAddr::V6(ip) => {
            let free = 128_u32.checked_sub(bits.into())?;
            IpAddr::V6((u128::from(ip) & u128::MAX.checked_shl(free).unwrap_or(0)).into())
        }
    };
    Some((first, bits))
}
