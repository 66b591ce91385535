//! The proxies of a gateway, and the ports that they listen on.

use std::collections::BTreeMap;

use super::{
    super::{Facts, Workload, ports::targets},
    Ports,
};
use crate::{
    compile::{CODEC_ANNOTATION, Services},
    model::{Gateway, Metadata, Model, Object, Proxies, Service},
};

/// A Service with this label has nothing to say about Istio's own gateways.
const NO_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// The proxies of a gateway; those of the Gateway API may have several fleets.
pub(super) struct Fleet<'a> {
    pub(super) gateway: &'a Object<Gateway>,
    /// Labels of its pods; `None`: nothing is known of them yet.
    pub(super) labels: Option<BTreeMap<String, String>>,
    /// Where its pods are; `None`: in whatever namespace.
    pub(super) namespace: Option<&'a str>,
    /// Its Service, if it is known by one.
    service: Option<&'a str>,
    /// Pods that are there now.
    pub(super) pods: Vec<&'a Workload>,
    /// Numbers of the ports of Services in front of it, and of what these are in pods.
    translated: BTreeMap<u16, Ports>,
}

impl<'a> Fleet<'a> {
    /// All that a gateway has.
    pub(super) fn all(
        gateway: &'a Object<Gateway>,
        model: &'a Model,
        services: &Services<'_>,
        facts: &'a Facts,
    ) -> Vec<Self> {
        match &gateway.spec.proxies {
            Proxies::Labels(labels) => vec![Self::labelled(gateway, labels, model, services, facts)],
            Proxies::Services(names) => {
                names.iter().map(|name| Self::behind(gateway, name, model, services, facts)).collect()
            }
        }
    }

    fn labelled(
        gateway: &'a Object<Gateway>,
        labels: &BTreeMap<String, String>,
        model: &Model,
        services: &Services<'_>,
        facts: &'a Facts,
    ) -> Self {
        // Without labels it is for whatever is a gateway, which pods do not tell.
        let is_selected = |pod: &&Workload| !labels.is_empty() && contains(&pod.labels, labels);
        let pods: Vec<&Workload> = facts.workloads.iter().filter(is_selected).collect();
        let in_front = model.services.iter().map(AsRef::as_ref).filter(|service| {
            let selector = &service.spec.selector;
            !labels.is_empty()
                && !service.metadata.labels.contains_key(NO_TRANSLATION)
                && (contains(selector, labels)
                    || pods.iter().any(|pod| pod.is_selected(&service.metadata.namespace, selector)))
        });
        let translated = translated(in_front, services);
        let labels = Some(labels.clone());
        Self { gateway, labels, namespace: None, service: None, pods, translated }
    }

    fn behind(
        gateway: &'a Object<Gateway>,
        name: &'a str,
        model: &Model,
        services: &Services<'_>,
        facts: &'a Facts,
    ) -> Self {
        let namespace = gateway.metadata.namespace.as_str();
        let is_it = |metadata: &Metadata| metadata.name == name && metadata.namespace == namespace;
        let service = model.services.iter().map(AsRef::as_ref).find(|service| is_it(&service.metadata));
        let labels = service.map(|service| service.spec.selector.clone()).filter(|labels| !labels.is_empty());
        let selected = |pod: &&Workload| labels.as_ref().is_some_and(|labels| pod.is_selected(namespace, labels));
        let pods = facts.workloads.iter().filter(selected).collect();
        let translated = translated(service.into_iter(), services);
        Self { gateway, labels, namespace: Some(namespace), service: Some(name), pods, translated }
    }

    /// The annotation that makes it ours.
    pub(super) fn codec(&self) -> Option<&'a str> {
        self.gateway.metadata.annotations.get(CODEC_ANNOTATION).map(String::as_str)
    }

    /// Ports of its listeners for a port that the gateway names. As in istiod: where no Service in front has it, Istio's
    /// own gateways listen on the number itself.
    pub(super) fn listens_on(&self, number: u16) -> Ports {
        match self.translated.get(&number) {
            Some(ports) => ports.clone(),
            None if self.service.is_none() => Ports::from([number]),
            None => Ports::new(),
        }
    }

    /// Whether there are pods of both, or could be.
    pub(super) fn shares_pods_with(&self, other: &Self) -> bool {
        let (Some(mine), Some(theirs)) = (&self.labels, &other.labels) else { return false };
        let apart = self.namespace.zip(other.namespace).is_some_and(|(a, b)| a != b);
        let same = |pod: &&Workload| other.pods.iter().any(|theirs| theirs == pod);
        !apart && (contains(mine, theirs) || contains(theirs, mine) || self.pods.iter().any(same))
    }

    /// Its name where names must differ.
    pub(super) fn id(&self) -> String {
        let Metadata { namespace, name, .. } = &self.gateway.metadata;
        let service = self.service.map(|service| format!(".{service}")).unwrap_or_default();
        format!("{namespace}.{name}{service}")
    }

    /// What its calls are for if the gateway does not say it.
    pub(super) fn host(&self) -> String {
        let Metadata { namespace, name, .. } = &self.gateway.metadata;
        format!("{name}.{namespace}")
    }

    /// Name of its EnvoyFilter.
    pub(super) fn filter_name(&self) -> String {
        let Metadata { namespace, name, .. } = &self.gateway.metadata;
        match self.service {
            None => format!("meltemi-gateway-{namespace}-{name}"),
            Some(service) => format!("meltemi-api-gateway-{name}-{service}"),
        }
    }

    /// How the kind calls its servers, ...
    pub(super) fn servers_field(&self) -> &'static str {
        if self.service.is_none() { "servers" } else { "listeners" }
    }

    /// ... their names, ...
    pub(super) fn hosts_field(&self) -> &'static str {
        if self.service.is_none() { "hosts" } else { "hostname" }
    }

    /// ... and its proxies.
    pub(super) fn proxies_field(&self) -> &'static str {
        if self.service.is_none() { "spec.selector" } else { "spec" }
    }
}

fn translated<'s>(
    in_front: impl Iterator<Item = &'s Object<Service>>,
    services: &Services<'_>,
) -> BTreeMap<u16, Ports> {
    let mut all: BTreeMap<u16, Ports> = BTreeMap::new();
    for service in in_front {
        for port in &service.spec.ports {
            all.entry(port.port).or_default().extend(targets(port, services.slices_of(&service.metadata)));
        }
    }
    all
}

/// All of `part` is in `whole`.
fn contains(whole: &BTreeMap<String, String>, part: &BTreeMap<String, String>) -> bool {
    part.iter().all(|(name, value)| whole.get(name) == Some(value))
}
