//! Whether proxies can run our filters, by the pods that say so.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::preflight::{Finding, Level};
use crate::istio::{MODULE_LABEL, WASM_LABEL};

/// The first Istio whose proxies load dynamic modules.
const ISTIO: (u32, u32) = (1, 31);
/// The first whose proxies get our filters in Wasm.
const PLUGINS: (u32, u32) = (1, 28);
/// Where a proxy looks for the module.
const SEARCH_PATH: &str = "ENVOY_DYNAMIC_MODULES_SEARCH_PATH";
/// The init container of our injection template that copies the module.
const COPY: &str = "meltemi-module";

/// Which Istio it is. `plugins`: proxies without modules get our filters in Wasm.
pub(super) fn of_istiod(pods: &[Pod], root_namespace: &str, plugins: bool) -> Finding {
    let versions: BTreeMap<&str, Option<(u32, u32)>> = pods
        .iter()
        .flat_map(containers)
        .filter(|container| container.name == "discovery")
        .filter_map(|container| tag(container).map(|tag| (tag, version(tag))))
        .collect();
    let old: Vec<&str> = versions.iter().filter(|(_, v)| v.is_some_and(|v| v < ISTIO)).map(|(tag, _)| *tag).collect();
    let all = || versions.keys().copied().collect::<Vec<_>>().join(", ");
    if let Some(old) = old.first() {
        let (level, cure) = match plugins {
            true => (
                Level::Warning,
                "until it is upgraded our filters run in Wasm, on ports named tcp-metaprotocol-* alone",
            ),
            false => (Level::Error, "upgrade Istio, or let older proxies run our filters in Wasm (--wasm)"),
        };
        Finding::new(level, format!("istiod is {old}; proxies load modules from Istio 1.31 on: {cure}"))
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
pub(super) fn of_carrier(pod: &Pod, plugins: bool) -> Option<Finding> {
    let wrong = |what: String| Some(finding(pod, Level::Error, &what));
    if let Some(finding) = of_generation(pod, MODULE_LABEL) {
        return Some(finding);
    }
    let Some(proxy) = containers(pod).find(|container| container.name == "istio-proxy") else {
        return wrong(format!("has the label {}, and no sidecar", MODULE_LABEL.0));
    };
    if let Some(tag) = tag(proxy)
        && version(tag).is_some_and(|version| version < ISTIO)
    {
        if label(pod, WASM_LABEL.0).is_some() {
            return of_plugin(pod, plugins);
        }
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

/// What is wrong with a pod that says its sidecar may run our filters in Wasm.
pub(super) fn of_plugin(pod: &Pod, plugins: bool) -> Option<Finding> {
    let of = |level, what: String| Some(finding(pod, level, &what));
    if let Some(finding) = of_generation(pod, WASM_LABEL) {
        return Some(finding);
    }
    let Some(proxy) = containers(pod).find(|container| container.name == "istio-proxy") else {
        return of(Level::Error, format!("has the label {}, and no sidecar", WASM_LABEL.0));
    };
    let tag = tag(proxy).unwrap_or_default();
    match version(tag) {
        Some(version) if version >= ISTIO => of(
            Level::Error,
            format!("its sidecar is Istio {tag}, which is meant to have the module, and has none: inject it"),
        ),
        Some(version) if version < PLUGINS => of(
            Level::Error,
            format!("its sidecar is Istio {tag}, which is too old for our filters in Wasm: 1.28 is the first"),
        ),
        _ if !plugins => {
            of(Level::Warning, format!("has the label {}, and nothing is written for it without --wasm", WASM_LABEL.0))
        }
        _ => None,
    }
}

/// A label of a generation that this version does not write for.
fn of_generation(pod: &Pod, (name, known): (&str, &str)) -> Option<Finding> {
    let generation = label(pod, name).unwrap_or_default();
    let what = format!("{name}={generation} is not known to this version, which writes for {known}: start it anew");
    (generation != known).then(|| finding(pod, Level::Error, &what))
}

fn label<'p>(pod: &'p Pod, name: &str) -> Option<&'p str> {
    pod.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn finding(pod: &Pod, level: Level, what: &str) -> Finding {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let (namespace, name) = (part(&pod.metadata.namespace), part(&pod.metadata.name));
    Finding::new(level, format!("Pod {namespace}/{name}: {what}"))
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
        assert_eq!(of_istiod(&[istiod("istio/pilot:1.31.2")], "istio-system", false).level, Level::Ok);
        assert_eq!(
            of_istiod(&[istiod("istio/pilot:1.31.2"), istiod("istio/pilot:1.30.0")], "i", false).level,
            Level::Error
        );
        assert_eq!(of_istiod(&[istiod("istio/pilot:custom")], "istio-system", false).level, Level::Warning);
        assert_eq!(of_istiod(&[], "istio-system", false).level, Level::Warning);
    }

    #[test]
    fn pods_that_only_say_they_carry_the_module_are_found() {
        let of = |spec: serde_json::Value| of_carrier(&pod(&spec), false).map(|finding| finding.what);
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
        assert!(of_carrier(&other, false).unwrap().what.contains("meltemi.dev/module=9 is not known"));
    }

    #[test]
    fn proxies_of_plugins_have_their_versions() {
        let of = |image: &str, labels: &[&str], plugins: bool| {
            let mut pod = pod(&json!({"containers": [proxy(image, "PATH")]}));
            pod.metadata.labels = Some(labels.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect());
            let finding =
                if labels.contains(&MODULE_LABEL.0) { of_carrier(&pod, plugins) } else { of_plugin(&pod, plugins) };
            finding.map_or(String::new(), |finding| format!("{finding}"))
        };
        let only = [WASM_LABEL.0];
        assert_eq!(of("istio/proxyv2:1.30.4", &only, true), "");
        assert_eq!(of("istio/proxyv2:custom", &only, true), "", "nobody knows");
        assert_eq!(of("istio/proxyv2:1.29.0", &[WASM_LABEL.0, MODULE_LABEL.0], true), "", "while a fleet is upgraded");
        assert!(of("istio/proxyv2:1.30.4", &only, false).starts_with("warning: Pod shop/orders-1: has the label"));
        assert!(of("istio/proxyv2:1.31.0", &only, true).contains("meant to have the module"));
        assert!(of("istio/proxyv2:1.27.0", &only, true).contains("too old"));
        let istiod = pod(&json!({"containers": [{"name": "discovery", "image": "istio/pilot:1.30.0"}]}));
        let finding = of_istiod(&[istiod], "istio-system", true);
        assert!(finding.level == Level::Warning && finding.what.contains("in Wasm"), "{finding}");
    }
}
