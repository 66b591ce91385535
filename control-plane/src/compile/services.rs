//! Which services there are, on which ports, spoken how, at which endpoints.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
};

pub use super::protocols::Protocol;
use super::protocols::{Naming, PORT_PREFIX, Protocols};
use crate::{
    model::{DestinationRule, EndpointSlice, MetaRouter, Metadata, Model, Object, Resolution, Subset, TrafficPolicy},
    problem::{Kind, Origin, Problem},
};

/// Where a service without an address is listened for.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One port of a service.
#[derive(Debug, Clone)]
pub struct Port {
    /// The object that declares it.
    pub origin: Origin,
    /// Its service's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The service.
    pub host: String,
    /// Its number.
    pub number: u16,
    /// Address to listen on.
    pub address: IpAddr,
    /// What is spoken; `None`: not ours, but routes or rate limits may name it.
    pub protocol: Option<Protocol>,
    /// Its endpoints are names to be resolved.
    pub dns: bool,
    /// Where it runs.
    pub endpoints: Vec<PortEndpoint>,
}

/// One endpoint of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEndpoint {
    /// Address or name.
    pub address: String,
    /// Port.
    pub port: u16,
    /// Share.
    pub weight: u32,
    /// What subsets select by.
    pub labels: BTreeMap<String, String>,
}

/// All services, and what belongs to them.
#[derive(Debug)]
pub struct Services<'a> {
    protocols: Protocols<'a>,
    ports: BTreeMap<(String, u16), Port>,
    /// We make the listeners, so two ports cannot have the same address.
    own_listeners: bool,
    /// Endpoints, by namespace and name of their Service.
    slices: HashMap<(&'a str, &'a str), Vec<&'a Object<EndpointSlice>>>,
    rules: HashMap<String, &'a Object<DestinationRule>>,
    routers: HashMap<String, &'a Object<MetaRouter>>,
}

impl<'a> Services<'a> {
    /// Collects them from a model, for standalone proxies, where each port has a listener of its own.
    pub fn new(model: &'a Model, problems: &mut Vec<Problem>) -> Self {
        Self::collect(model, true, problems)
    }

    /// Collects them from a model, for sidecars, whose listeners are Istio's business.
    pub fn of_mesh(model: &'a Model, problems: &mut Vec<Problem>) -> Self {
        Self::collect(model, false, problems)
    }

    fn collect(model: &'a Model, own_listeners: bool, problems: &mut Vec<Problem>) -> Self {
        let mut services = Self {
            protocols: Protocols::new(model, problems),
            ports: BTreeMap::new(),
            own_listeners,
            slices: slices_by_service(model),
            rules: HashMap::new(),
            routers: HashMap::new(),
        };
        services.add_service_entries(model, problems);
        services.add_kubernetes(model, problems);
        for rule in &model.destination_rules {
            services.add_rule(rule, problems);
        }
        for router in &model.meta_routers {
            match router.spec.hosts.as_slice() {
                [host] => {
                    let host = services.host_of(host, &router.metadata);
                    if let Some(first) = services.routers.get(&host) {
                        problems.push(router.origin.error("spec.hosts[0]", taken(&first.origin)).of(Kind::Conflict));
                    } else {
                        services.check_host(&host, router, problems);
                        services.routers.insert(host, router);
                    }
                }
                hosts => {
                    let reason = format!("must name exactly one host, not {}", hosts.len());
                    problems.push(router.origin.error("spec.hosts", reason));
                }
            }
        }
        services
    }

    /// All ports, ours and others.
    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.values()
    }

    /// A port of a service.
    pub fn port(&self, host: &str, number: u16) -> Option<&Port> {
        self.ports.get(&(host.to_owned(), number))
    }

    /// Whether there is such a service.
    pub fn has_host(&self, host: &str) -> bool {
        self.ports_of(host).next().is_some()
    }

    fn ports_of(&self, host: &str) -> impl Iterator<Item = &Port> {
        self.ports.range((host.to_owned(), 0)..=(host.to_owned(), u16::MAX)).map(|(_, port)| port)
    }

    /// The protocol of this name, or why there is none.
    pub(crate) fn protocol(&self, name: &str) -> Result<Protocol, String> {
        self.protocols.named(name)
    }

    /// Why calls of a codec cannot be led to a service, to this port if there is one; `None` if they can.
    pub(crate) fn why_not(&self, host: &str, number: Option<u16>, codec: &str) -> Option<String> {
        let speaks = |port: &&Port| port.protocol.as_ref().is_some_and(|protocol| protocol.codec.name == codec);
        let able: Vec<u16> = self.ports_of(host).filter(speaks).map(|port| port.number).collect();
        match (able.first(), number) {
            (None, _) if self.has_host(host) => Some(format!("`{host}` has no port that speaks {codec}")),
            (None, _) => Some(format!("there is no Service or ServiceEntry for `{host}`")),
            (Some(port), Some(number)) if !able.contains(&number) => Some(format!(
                "port {number} of `{host}` does not speak {codec}, port {port} does, and a destination that names none keeps the \
                 number of the caller's"
            )),
            _ => None,
        }
    }

    /// All ports of a service, ours and others.
    pub(crate) fn numbers_of(&self, host: &str) -> Vec<u16> {
        self.ports_of(host).map(|port| port.number).collect()
    }

    /// The endpoints of a Service.
    pub(crate) fn slices_of<'s>(&'s self, service: &'s Metadata) -> &'s [&'a Object<EndpointSlice>] {
        let key = (service.namespace.as_str(), service.name.as_str());
        self.slices.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The rule of a service.
    pub fn rule_of(&self, host: &str) -> Option<&'a Object<DestinationRule>> {
        self.rules.get(host).copied()
    }

    /// A subset of a service.
    pub fn subset(&self, host: &str, name: &str) -> Option<&'a Subset> {
        self.rule_of(host)?.spec.subsets.iter().find(|subset| subset.name == name)
    }

    /// How the endpoints of a port, or of a subset of them, are reached: the rule's policy with the subset's over it.
    pub fn policy(&self, host: &str, number: u16, subset: Option<&str>) -> TrafficPolicy {
        let of_port = |policy: &TrafficPolicy| {
            let port = policy.port_level_settings.iter().find(|settings| settings.port.number == number);
            port.map_or_else(|| policy.clone(), |settings| settings.policy.clone())
        };
        let rule = self.rule_of(host).and_then(|rule| rule.spec.traffic_policy.as_ref());
        let mut policy = rule.map(of_port).unwrap_or_default();
        let subset = subset.and_then(|name| self.subset(host, name)).and_then(|subset| subset.traffic_policy.as_ref());
        if let Some(over) = subset.map(of_port) {
            policy.load_balancer = over.load_balancer.or(policy.load_balancer);
            policy.connection_pool = over.connection_pool.or(policy.connection_pool);
            policy.outlier_detection = over.outlier_detection.or(policy.outlier_detection);
            policy.tls = over.tls.or(policy.tls);
        }
        policy
    }

    /// The service that `host` names, which may be the short name of a Service in the namespace of who says it.
    pub fn host_of(&self, host: &str, says: &Metadata) -> String {
        if !host.contains('.') && !self.has_host(host) {
            let full = kubernetes_host(host, &says.namespace);
            if self.has_host(&full) {
                return full;
            }
        }
        host.to_owned()
    }

    fn add_rule(&mut self, rule: &'a Object<DestinationRule>, problems: &mut Vec<Problem>) {
        let host = self.host_of(&rule.spec.host, &rule.metadata);
        if let Some(first) = self.rules.get(&host) {
            problems.push(rule.origin.error("spec.host", taken(&first.origin)).of(Kind::Conflict));
            return;
        }
        if !self.has_host(&host) {
            let reason = format!("there is no Service or ServiceEntry for `{host}`");
            problems.push(rule.origin.warning("spec.host", reason).of(Kind::Reference));
        }
        for (index, subset) in rule.spec.subsets.iter().enumerate() {
            if rule.spec.subsets.iter().take(index).any(|earlier| earlier.name == subset.name) {
                let reason = format!("there is another subset `{}`", subset.name);
                problems.push(rule.origin.error(format!("spec.subsets[{index}].name"), reason));
            }
        }
        self.rules.insert(host, rule);
    }

    /// The routes of a service.
    pub fn router_of(&self, host: &str) -> Option<&'a Object<MetaRouter>> {
        self.routers.get(host).copied()
    }

    fn check_host(&self, host: &str, router: &Object<MetaRouter>, problems: &mut Vec<Problem>) {
        if !self.ports_of(host).any(|port| port.protocol.is_some()) {
            let reason = if self.has_host(host) {
                format!("no port of `{host}` is named {PORT_PREFIX}<protocol>, so there is nothing to route")
            } else {
                format!("there is no Service or ServiceEntry for `{host}`")
            };
            problems.push(router.origin.warning("spec.hosts[0]", reason).of(Kind::Reference));
        }
    }

    fn add_service_entries(&mut self, model: &Model, problems: &mut Vec<Problem>) {
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

    fn add_kubernetes(&mut self, model: &Model, problems: &mut Vec<Problem>) {
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

fn slices_by_service(model: &Model) -> HashMap<(&str, &str), Vec<&Object<EndpointSlice>>> {
    let mut slices: HashMap<_, Vec<_>> = HashMap::new();
    for slice in &model.endpoint_slices {
        if let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") {
            slices.entry((slice.metadata.namespace.as_str(), service.as_str())).or_default().push(slice);
        }
    }
    slices
}

/// Whether two listeners with these addresses would be in each other's way on one port.
fn overlap(one: IpAddr, other: IpAddr) -> bool {
    one == other || (one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified()))
}

pub(crate) fn kubernetes_host(name: &str, namespace: &str) -> String {
    format!("{name}.{namespace}.svc.cluster.local")
}

pub(super) fn taken(by: &Origin) -> String {
    let place = match (&by.file, by.line) {
        (Some(file), Some(line)) => format!(" ({}:{line})", file.display()),
        _ => String::new(),
    };
    format!("{} {}{place} already has this", by.kind, by.name)
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
