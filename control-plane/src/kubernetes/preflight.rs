//! What a cluster needs for us to work in it, looked at once.

use std::{collections::HashSet, fmt, time::Duration};

use anyhow::Context;
use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Pod},
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
    carriers::{of_carrier, of_istiod, of_plugin},
    kinds::{Watched, ours, written},
    lease,
    live::{KINDS, Target},
    others,
};
use crate::istio::{Compiled, MODULE_LABEL, WASM_LABEL};

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
    pub(super) fn new(level: Level, what: impl Into<String>) -> Self {
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

/// Looks at a cluster that is to get, or has, what was compiled. `plugins`: proxies without modules get our filters in Wasm.
///
/// # Errors
/// If the API server does not answer, or refuses.
pub async fn preflight(
    client: &Client,
    namespace: &str,
    root_namespace: &str,
    compiled: &Compiled,
    plugins: bool,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = kinds(client).await?;
    let list = |api: Api<Pod>, labels: String| async move {
        let pods = api.list(&ListParams::default().labels(&labels)).await.context("cannot list pods")?;
        anyhow::Ok(pods.items)
    };
    let istiod = list(Api::namespaced(client.clone(), root_namespace), "app=istiod".to_owned()).await?;
    findings.push(of_istiod(&istiod, root_namespace, plugins));
    for pod in list(Api::all(client.clone()), MODULE_LABEL.0.to_owned()).await? {
        findings.extend(of_carrier(&pod, plugins));
    }
    let only = format!("{},!{}", WASM_LABEL.0, MODULE_LABEL.0);
    for pod in list(Api::all(client.clone()), only).await? {
        findings.extend(of_plugin(&pod, plugins));
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
    let looked_at = others::resources().into_iter().filter(|resource| !others::is_optional(resource));
    for resource in needed.map(Watched::resource).chain(looked_at) {
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
