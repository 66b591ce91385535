//! What a cluster needs for us to work in it, looked at once.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    time::Duration,
};

use anyhow::Context;
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Container, Pod},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};
use serde::Serialize;

use super::{
    MANAGER,
    kinds::{Watched, ours, written},
    lease,
    live::{KINDS, Target},
    others,
};
use crate::istio::{Compiled, MODULE_LABEL};

/// The first Istio whose proxies load dynamic modules.
const ISTIO: (u32, u32) = (1, 31);
/// Where a proxy looks for the module.
const SEARCH_PATH: &str = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH";
/// The init container of our injection template that copies the module.
const COPY: &str = "meltemi-module";

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub level: Level,
    /// What was found, and what to do about it.
    pub what: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not known, or less than it could be.
    Warning,
    /// Calls fail, or nothing happens.
    Error,
}

impl Finding {
    fn new(level: Level, what: impl Into<String>) -> Self {
        Self { level, what: what.into() }
    }
}

impl fmt::Display for Finding {
    /// `level: what`, as problems read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{level}: {}", self.what)
    }
}

/// Looks at a cluster that is to get, or has, what was compiled.
///
/// # Errors
/// If the API server does not answer, or refuses.
pub async fn preflight(
    client: &Client,
    namespace: &str,
    root_namespace: &str,
    compiled: &Compiled,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = kinds(client).await?;
    let list = |api: Api<Pod>, labels: String| async move {
        let pods = api.list(&ListParams::default().labels(&labels)).await.context("cannot list pods")?;
        anyhow::Ok(pods.items)
    };
    let istiod = list(Api::namespaced(client.clone(), root_namespace), "app=istiod".to_owned()).await?;
    findings.push(of_istiod(&istiod, root_namespace));
    for pod in list(Api::all(client.clone()), MODULE_LABEL.0.to_owned()).await? {
        findings.extend(of_carrier(&pod));
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease = leases.get_opt(MANAGER).await.context("cannot read our lease")?;
    let at_work = of_lease(lease.as_ref(), namespace, Timestamp::now());
    let is_at_work = at_work.level == Level::Ok;
    findings.push(at_work);
    if is_at_work {
        findings.push(of_written(client, compiled).await.context("cannot list what is written")?);
    }
    Ok(findings)
}

/// Whether the kinds that we need are there.
async fn kinds(client: &Client) -> anyhow::Result<Vec<Finding>> {
    let mut missing: Vec<ApiResource> = Vec::new();
    let needed = Watched::ALL.into_iter().filter(|watched| !watched.is_built_in() && !watched.is_optional());
    for resource in needed.map(Watched::resource).chain(others::resources()) {
        let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => missing.push(resource),
            Err(error) => return Err(error).with_context(|| format!("cannot list {}", resource.plural)),
        }
    }
    let (ours, istio): (Vec<_>, Vec<_>) = missing.into_iter().partition(|resource| resource.group == "meltemi.dev");
    let names = |all: &[ApiResource]| all.iter().map(|one| one.kind.clone()).collect::<Vec<_>>().join(", ");
    let of = |missing: &[ApiResource], whose: &str, cure: &str| match missing {
        [] => Finding::new(Level::Ok, format!("{whose} kinds are installed")),
        missing => Finding::new(Level::Error, format!("{whose} kinds {} are not installed: {cure}", names(missing))),
    };
    Ok(vec![
        of(&istio, "Istio's", "install Istio first"),
        of(&ours, "our own", "install the chart, or `meltemi crds | kubectl apply --server-side -f -`"),
    ])
}

fn of_istiod(pods: &[Pod], root_namespace: &str) -> Finding {
    let versions: BTreeMap<&str, Option<(u32, u32)>> = pods
        .iter()
        .flat_map(containers)
        .filter(|container| container.name == "discovery")
        .filter_map(|container| tag(container).map(|tag| (tag, version(tag))))
        .collect();
    let old: Vec<&str> = versions.iter().filter(|(_, v)| v.is_some_and(|v| v < ISTIO)).map(|(tag, _)| *tag).collect();
    let all = || versions.keys().copied().collect::<Vec<_>>().join(", ");
    if let Some(old) = old.first() {
        Finding::new(Level::Error, format!("istiod is {old}; proxies load modules from Istio 1.31 on: upgrade Istio"))
    } else if versions.values().any(Option::is_some) {
        Finding::new(Level::Ok, format!("istiod is {}", all()))
    } else {
        let what = format!(
            "the version of Istio is not known: no pod in {root_namespace} has app=istiod and a version as its image's tag"
        );
        Finding::new(Level::Warning, what)
    }
}

/// What is wrong with a pod that says it carries the module.
fn of_carrier(pod: &Pod) -> Option<Finding> {
    let metadata = &pod.metadata;
    let name = format!(
        "Pod {}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    );
    let generation = metadata.labels.as_ref().and_then(|labels| labels.get(MODULE_LABEL.0)).map_or("", String::as_str);
    let wrong = |what: String| Some(Finding::new(Level::Error, format!("{name}: {what}")));
    if generation != MODULE_LABEL.1 {
        let (label, known) = MODULE_LABEL;
        return wrong(format!(
            "{label}={generation} is not known to this version, which writes for {known}: start it anew"
        ));
    }
    let Some(proxy) = containers(pod).find(|container| container.name == "istio-proxy") else {
        return wrong(format!("has the label {}, and no sidecar", MODULE_LABEL.0));
    };
    if let Some(tag) = tag(proxy)
        && version(tag).is_some_and(|version| version < ISTIO)
    {
        return wrong(format!("its sidecar is Istio {tag}, which loads no modules: start it anew after the upgrade"));
    }
    if !proxy.env.iter().flatten().any(|variable| variable.name == SEARCH_PATH) {
        return wrong(format!(
            "its sidecar has no {SEARCH_PATH}, so it does not find the module, and closes connections of our ports"
        ));
    }
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let mut order = init.filter(|container| ["istio-proxy", COPY].contains(&container.name.as_str()));
    if order.next().is_some_and(|first| first.name != COPY) && order.next().is_some() {
        return wrong(format!(
            "its native sidecar starts before {COPY} has copied the module: use the template of image volumes, or the \
             annotation sidecar.istio.io/nativeSidecar: \"false\""
        ));
    }
    None
}

/// Native sidecars are init containers.
fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
}

/// The tag of its image.
fn tag(container: &Container) -> Option<&str> {
    let image = container.image.as_deref()?.split('@').next()?;
    // The registry may have a port.
    image.rsplit('/').next()?.split_once(':').map(|(_, tag)| tag)
}

/// Major and minor of `1.31.0-distroless`.
fn version(tag: &str) -> Option<(u32, u32)> {
    let mut parts = tag.split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn of_lease(lease: Option<&Lease>, namespace: &str, now: Timestamp) -> Finding {
    let missing = || {
        let what = format!(
            "no control plane of ours has ever been at work in {namespace}: install the chart, or name its --namespace"
        );
        Finding::new(Level::Warning, what)
    };
    let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else { return missing() };
    let Some(renewed) = spec.renew_time.as_ref() else { return missing() };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    // By the clock of who has it, which may be before ours.
    let age = Duration::try_from(now.duration_since(renewed.0)).unwrap_or_default();
    if holder.is_empty() || age > lease::DURATION {
        let what = format!(
            "no control plane of ours is at work in {namespace} since {}: calls go on as they are, changes have no effect",
            renewed.0
        );
        return Finding::new(Level::Error, what);
    }
    Finding::new(Level::Ok, format!("the control plane {} is at work", holder.split('_').next().unwrap_or(holder)))
}

/// Whether all that should be in the cluster is.
async fn of_written(client: &Client, compiled: &Compiled) -> kube::Result<Finding> {
    let mut there = HashSet::new();
    let params = ListParams::default().labels(&ours());
    for kind in KINDS {
        let api = Api::<DynamicObject>::all_with(client.clone(), &written(kind));
        for object in api.list_metadata(&params).await? {
            let (namespace, name) = (object.metadata.namespace, object.metadata.name);
            there.insert(Target { kind, namespace: namespace.unwrap_or_default(), name: name.unwrap_or_default() });
        }
    }
    let wanted = compiled.desired.iter().map(Target::of);
    let missing: Vec<Target> = wanted.filter(|target| !there.contains(target)).collect();
    Ok(match missing.first() {
        None => Finding::new(Level::Ok, format!("{} object(s) of ours are in the cluster", compiled.desired.len())),
        Some(first) => {
            let what = format!(
                "{} object(s) of ours are not in the cluster, such as {first}: look into the control plane's log",
                missing.len()
            );
            Finding::new(Level::Error, what)
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: &serde_json::Value) -> Pod {
        let metadata = json!({"name": "orders-1", "namespace": "shop", "labels": {"meltemi.dev/module": "1"}});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn proxy(image: &str, variable: &str) -> serde_json::Value {
        json!({"name": "istio-proxy", "image": image, "env": [{"name": variable, "value": "/x"}]})
    }

    #[test]
    fn versions_are_read_off_images() {
        let of = |image: &str| {
            let container = Container { image: Some(image.to_owned()), ..Container::default() };
            tag(&container).and_then(version)
        };
        assert_eq!(of("docker.io/istio/proxyv2:1.31.0-distroless"), Some((1, 31)));
        assert_eq!(of("registry:5000/istio/proxyv2:1.9.1@sha256:00"), Some((1, 9)));
        assert_eq!(of("registry:5000/istio/proxyv2"), None);
        assert_eq!(of("proxyv2:latest"), None);
        let istiod = |image: &str| pod(&json!({"containers": [{"name": "discovery", "image": image}]}));
        assert_eq!(of_istiod(&[istiod("istio/pilot:1.31.2")], "istio-system").level, Level::Ok);
        assert_eq!(of_istiod(&[istiod("istio/pilot:1.31.2"), istiod("istio/pilot:1.30.0")], "i").level, Level::Error);
        assert_eq!(of_istiod(&[istiod("istio/pilot:custom")], "istio-system").level, Level::Warning);
        assert_eq!(of_istiod(&[], "istio-system").level, Level::Warning);
    }

    #[test]
    fn pods_that_only_say_they_carry_the_module_are_found() {
        let of = |spec: serde_json::Value| of_carrier(&pod(&spec)).map(|finding| finding.what);
        let good = proxy("istio/proxyv2:1.31.0", SEARCH_PATH);
        assert_eq!(of(json!({"containers": [good]})), None);
        assert_eq!(of(json!({"containers": [], "initContainers": [good]})), None, "a native sidecar");
        let copy = json!({"name": COPY});
        assert_eq!(of(json!({"containers": [good], "initContainers": [copy]})), None);
        for (spec, word) in [
            (json!({"containers": [], "initContainers": [good, copy]}), "starts before meltemi-module has copied"),
            (json!({"containers": [{"name": "app"}]}), "no sidecar"),
            (
                json!({"containers": [proxy("istio/proxyv2:1.30.1", SEARCH_PATH)]}),
                "Istio 1.30.1, which loads no modules",
            ),
            (
                json!({"containers": [proxy("istio/proxyv2:1.31.0", "PATH")]}),
                "has no ENVOY_DYNAMIC_MODULES_SEARCH_PATH",
            ),
        ] {
            let what = of(spec).unwrap();
            assert!(what.starts_with("Pod shop/orders-1: ") && what.contains(word), "{what}");
        }
        let mut other = pod(&json!({"containers": [good]}));
        other.metadata.labels = Some([("meltemi.dev/module".to_owned(), "9".to_owned())].into());
        assert!(of_carrier(&other).unwrap().what.contains("meltemi.dev/module=9 is not known"));
    }

    #[test]
    fn a_lease_tells_whether_somebody_is_at_work() {
        let lease = |holder: &str, time: &str| -> Lease {
            serde_json::from_value(json!({"spec": {"holderIdentity": holder, "renewTime": time}})).unwrap()
        };
        let now: Timestamp = "2026-01-01T00:00:20Z".parse().unwrap();
        let of = |lease: Option<Lease>| of_lease(lease.as_ref(), "meltemi-system", now);
        let fresh = of(Some(lease("meltemi-7f_1_2", "2026-01-01T00:00:18.000000Z")));
        assert_eq!((fresh.level, fresh.what.as_str()), (Level::Ok, "the control plane meltemi-7f is at work"));
        assert_eq!(of(Some(lease("meltemi-7f_1_2", "2026-01-01T00:00:01.000000Z"))).level, Level::Error);
        assert_eq!(of(Some(lease("", "2026-01-01T00:00:18.000000Z"))).level, Level::Error);
        assert_eq!(of(None).level, Level::Warning);
    }
}
