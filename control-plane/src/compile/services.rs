//! Which services there are, on which ports, spoken how, at which endpoints.

mod collect;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

pub use super::protocols::Protocol;
use super::protocols::{PORT_PREFIX, Protocols};
use crate::{
    model::{DestinationRule, EndpointSlice, MetaRouter, Metadata, Model, Object, Subset, TrafficPolicy},
    problem::{Kind, Origin, Problem},
};

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
}

fn slices_by_service(model: &Model) -> HashMap<(&str, &str), Vec<&Object<EndpointSlice>>> {
    let mut slices: HashMap<_, Vec<&Object<EndpointSlice>>> = HashMap::new();
    for slice in &model.endpoint_slices {
        if let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") {
            slices.entry((slice.metadata.namespace.as_str(), service.as_str())).or_default().push(slice);
        }
    }
    slices
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
