//! Which services there are, on which ports, spoken how, at which endpoints.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use meltemi::{Capabilities, CodecEntry, Options};
use meltemi_engine::config::{CodecConfig, LimitsConfig};

use crate::{
    model::{
        ApplicationProtocol, DestinationRule, Metadata, MetaRouter, Mode, Model, Object, Resolution, Subset,
    },
    problem::{Origin, Problem},
};

/// How port names say that a port is ours: Aeraki's way.
const PORT_PREFIX: &str = "tcp-metaprotocol-";
/// How `appProtocol` says it.
const APP_PROTOCOL_PREFIX: &str = "meltemi.dev/";
/// Annotation of a service: `meltemi.dev/mode.<port>: connection`.
const MODE_ANNOTATION: &str = "meltemi.dev/mode.";

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

/// What is spoken on a port.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// The codec, with its options.
    pub codec: CodecConfig,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Other names of the service in matches.
    pub service_aliases: &'static [&'static str],
    /// Who routes.
    pub mode: Mode,
    /// Bounds.
    pub limits: LimitsConfig,
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
    ports: BTreeMap<(String, u16), Port>,
    rules: HashMap<&'a str, &'a Object<DestinationRule>>,
    routers: HashMap<&'a str, &'a Object<MetaRouter>>,
}

impl<'a> Services<'a> {
    /// Collects them from a model.
    pub fn new(model: &'a Model, problems: &mut Vec<Problem>) -> Self {
        let protocols = Protocols::new(model, problems);
        let mut services = Self { ports: BTreeMap::new(), rules: HashMap::new(), routers: HashMap::new() };
        services.add_service_entries(model, &protocols, problems);
        services.add_kubernetes(model, &protocols, problems);
        for rule in &model.destination_rules {
            if let Some(first) = services.rules.get(rule.spec.host.as_str()) {
                problems.push(rule.origin.error("spec.host", taken(&first.origin)));
            } else {
                services.rules.insert(&rule.spec.host, rule);
            }
        }
        for router in &model.meta_routers {
            match router.spec.hosts.as_slice() {
                [host] => {
                    if let Some(first) = services.routers.get(host.as_str()) {
                        problems.push(router.origin.error("spec.hosts[0]", taken(&first.origin)));
                    } else {
                        services.routers.insert(host, router);
                        services.check_host(host, router, problems);
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
        self.ports.keys().any(|(own, _)| own == host)
    }

    /// The rule of a service.
    pub fn rule_of(&self, host: &str) -> Option<&Object<DestinationRule>> {
        self.rules.get(host).copied()
    }

    /// A subset of a service.
    pub fn subset(&self, host: &str, name: &str) -> Option<&Subset> {
        self.rule_of(host)?.spec.subsets.iter().find(|subset| subset.name == name)
    }

    /// The routes of a service.
    pub fn router_of(&self, host: &str) -> Option<&Object<MetaRouter>> {
        self.routers.get(host).copied()
    }

    fn check_host(&self, host: &str, router: &Object<MetaRouter>, problems: &mut Vec<Problem>) {
        if !self.ports.iter().any(|((own, _), port)| own == host && port.protocol.is_some()) {
            let reason = if self.has_host(host) {
                format!("no port of `{host}` is named {PORT_PREFIX}<protocol>, so there is nothing to route")
            } else {
                format!("there is no Service or ServiceEntry for `{host}`")
            };
            problems.push(router.origin.warning("spec.hosts[0]", reason));
        }
    }

    fn add_service_entries(&mut self, model: &Model, protocols: &Protocols, problems: &mut Vec<Problem>) {
        for entry in &model.service_entries {
            let spec = &entry.spec;
            let address = first_address(spec.addresses.iter(), &entry.origin, "spec.addresses", problems);
            for host in &spec.hosts {
                for (index, port) in spec.ports.iter().enumerate() {
                    let field = format!("spec.ports[{index}]");
                    let named = Naming { name: &port.name, app_protocol: Some(&port.protocol) };
                    let endpoints = spec.endpoints.iter().map(|endpoint| PortEndpoint {
                        address: endpoint.address.clone(),
                        port: endpoint.ports.get(&port.name).copied().or(port.target_port).unwrap_or(port.number),
                        weight: endpoint.weight.unwrap_or(1).max(1),
                        labels: endpoint.labels.clone(),
                    });
                    let endpoints: Vec<PortEndpoint> = match spec.resolution {
                        Resolution::Dns | Resolution::DnsRoundRobin if spec.endpoints.is_empty() => vec![PortEndpoint {
                            address: host.clone(),
                            port: port.target_port.unwrap_or(port.number),
                            weight: 1,
                            labels: BTreeMap::new(),
                        }],
                        _ => endpoints.collect(),
                    };
                    let dns = matches!(spec.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
                    if !dns && let Some(bad) = endpoints.iter().position(|e| e.address.parse::<IpAddr>().is_err()) {
                        let reason = "not an IP address; names need `resolution: DNS`";
                        problems.push(entry.origin.error(format!("spec.endpoints[{bad}].address"), reason));
                        continue;
                    }
                    let protocol = protocols.of(&named, &entry.metadata, port.number, &entry.origin, &field, problems);
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

    fn add_kubernetes(&mut self, model: &Model, protocols: &Protocols, problems: &mut Vec<Problem>) {
        for service in &model.services {
            let metadata = &service.metadata;
            let ips = service.spec.cluster_ips.iter().chain(&service.spec.cluster_ip).filter(|ip| *ip != "None");
            let address = first_address(ips, &service.origin, "spec.clusterIP", problems);
            for (index, port) in service.spec.ports.iter().enumerate() {
                let field = format!("spec.ports[{index}]");
                let slices = model.endpoint_slices.iter().filter(|slice| {
                    slice.metadata.namespace == metadata.namespace
                        && slice.metadata.labels.get("kubernetes.io/service-name") == Some(&metadata.name)
                });
                let mut endpoints = Vec::new();
                for slice in slices {
                    let Some(number) =
                        slice.spec.ports.iter().find(|p| p.name.as_deref().unwrap_or_default() == port.name)
                    else {
                        continue;
                    };
                    for endpoint in slice.spec.endpoints.iter().filter(|e| e.conditions.ready != Some(false)) {
                        let Some(address) = endpoint.addresses.first() else { continue };
                        let mut labels = slice.metadata.labels.clone();
                        labels.extend(endpoint.labels.clone());
                        endpoints.push(PortEndpoint { address: address.clone(), port: number.port, weight: 1, labels });
                    }
                }
                let named = Naming { name: &port.name, app_protocol: port.app_protocol.as_deref() };
                let protocol = protocols.of(&named, metadata, port.port, &service.origin, &field, problems);
                let port = Port {
                    origin: service.origin.clone(),
                    annotations: metadata.annotations.clone(),
                    host: format!("{}.{}.svc.cluster.local", metadata.name, metadata.namespace),
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
        let clash = self.ports.values().find(|other| {
            let same_name = other.host == port.host && other.number == port.number;
            let same_listener = other.protocol.is_some()
                && port.protocol.is_some()
                && (other.address, other.number) == (port.address, port.number);
            same_name || same_listener
        });
        if let Some(other) = clash {
            let place = format!("{} ({}:{})", taken(&other.origin), other.address, other.number);
            problems.push(port.origin.error(field, place));
            return;
        }
        self.ports.insert((port.host.clone(), port.number), port);
    }
}

fn taken(by: &Origin) -> String {
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
    let local = IpAddr::from([127, 0, 0, 1]);
    let Some(address) = addresses.next() else { return local };
    address.parse().unwrap_or_else(|_| {
        problems.push(origin.warning(field, format!("`{address}` is not an IP address: listening on {local}")));
        local
    })
}

struct Naming<'n> {
    name: &'n str,
    app_protocol: Option<&'n str>,
}

impl Naming<'_> {
    /// The protocol that the port's name or `appProtocol` says.
    fn protocol(&self) -> Option<&str> {
        if let Some(protocol) = self.app_protocol.and_then(|p| p.strip_prefix(APP_PROTOCOL_PREFIX)) {
            return Some(protocol);
        }
        let rest = self.name.strip_prefix(PORT_PREFIX)?;
        Some(rest.split('-').next().unwrap_or(rest)).filter(|name| !name.is_empty())
    }
}

/// Which codec each protocol name stands for.
struct Protocols<'a> {
    declared: HashMap<&'a str, &'a Object<ApplicationProtocol>>,
}

impl<'a> Protocols<'a> {
    fn new(model: &'a Model, problems: &mut Vec<Problem>) -> Self {
        let mut declared: HashMap<&str, &Object<ApplicationProtocol>> = HashMap::new();
        for object in &model.application_protocols {
            let spec = &object.spec;
            if let Err((field, reason)) = entry_of(spec.codec_name()).and_then(|entry| {
                (entry.build)(&Options(spec.options.clone()))
                    .map_err(|error| (format!("spec.options.{}", error.name), error.reason))
            }) {
                problems.push(object.origin.error(field, reason));
                continue;
            }
            if let Some(first) = declared.get(spec.protocol.as_str()) {
                problems.push(object.origin.error("spec.protocol", taken(&first.origin)));
                continue;
            }
            declared.insert(&spec.protocol, object);
        }
        Self { declared }
    }

    fn of(
        &self,
        naming: &Naming<'_>,
        metadata: &Metadata,
        number: u16,
        origin: &Origin,
        field: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Protocol> {
        let name = naming.protocol()?;
        let declared = self.declared.get(name).map(|object| &object.spec);
        let codec = declared.map_or(name, |spec| spec.codec_name());
        let options = declared.map(|spec| spec.options.clone()).unwrap_or_default();
        let entry = match entry_of(codec) {
            Ok(entry) => entry,
            Err((_, reason)) => {
                problems.push(origin.error(format!("{field}.name"), reason));
                return None;
            }
        };
        let built = (entry.build)(&Options(options.clone())).ok()?;
        let mut limits = LimitsConfig::default();
        if let Some(bytes) = declared.and_then(|spec| spec.max_frame_bytes) {
            limits.max_frame_bytes = bytes;
        }
        let mut mode = declared.map(|spec| spec.mode).unwrap_or_default();
        let annotation = format!("{MODE_ANNOTATION}{number}");
        match metadata.annotations.get(&annotation).map(String::as_str) {
            None => {}
            Some("request") => mode = Mode::Request,
            Some("connection") => mode = Mode::Connection,
            Some(other) => {
                let reason = format!("`{other}` is neither `request` nor `connection`");
                problems.push(origin.error(format!("metadata.annotations[{annotation}]"), reason));
            }
        }
        Some(Protocol {
            codec: CodecConfig { name: codec.to_owned(), options },
            capabilities: built.capabilities(),
            service_aliases: entry.service_aliases,
            mode,
            limits,
        })
    }
}

fn entry_of(codec: &str) -> Result<&'static CodecEntry, (String, String)> {
    meltemi_codecs::ALL.iter().find(|entry| entry.name == codec).ok_or_else(|| {
        let known: Vec<&str> = meltemi_codecs::ALL.iter().map(|entry| entry.name).collect();
        ("spec.codec".to_owned(), format!("there is no codec `{codec}`; there are: {}", known.join(", ")))
    })
}
