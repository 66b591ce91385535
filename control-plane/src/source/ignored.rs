//! Fields of Istio's kinds that have no effect on standalone proxies. Those of our own kinds are refused when they are not known, and those
//! of Kubernetes' kinds, and of gateways, are not ours to judge.

use serde_ignored::Path;

use crate::{
    model::{AnyObject, Resolution, ServiceEntry, SimpleLb, TrafficPolicy},
    problem::{Kind, Problem},
};

/// What an object has beside its `spec`.
const BESIDE: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// Fields that Istio has and that are not acted on here.
const OF_ISTIO: [&str; 29] = [
    "caCrl",
    "connectionPoolPerHostStat",
    "consecutiveErrors",
    "consecutiveLocalOriginFailures",
    "exportTo",
    "h2UpgradePolicy",
    "http2MaxConcurrentStreams",
    "httpCookie",
    "httpQueryParameterName",
    "localityLbSetting",
    "locality",
    "location",
    "maxConcurrentStreams",
    "maxConnectionDuration",
    "maxRequestsPerConnection",
    "network",
    "proxyProtocol",
    "retryBudget",
    "serviceAccount",
    "splitExternalLocalOriginErrors",
    "subjectAltNames",
    "tcpKeepalive",
    "trafficDistribution",
    "tunnel",
    "useClientProtocol",
    "visibility",
    "warmup",
    "warmupDurationSecs",
    "workloadSelector",
];

/// A path as in problems.
pub(super) fn shown(path: &Path<'_>) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", shown(parent)),
        Path::Map { parent, key } => match shown(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => shown(parent),
    }
}

/// Says what is passed over in an object, given the paths of the fields that nobody read.
pub(super) fn warnings(object: &AnyObject, ignored: &[String]) -> Vec<Problem> {
    let origin = object.origin();
    let kind = &origin.kind;
    let of_standalone = |field: &str, reason: &str| origin.warning(field, reason).of(Kind::Standalone);
    let mut all: Vec<Problem> = match object {
        AnyObject::Service(_) | AnyObject::EndpointSlice(_) | AnyObject::Gateway(_) => return Vec::new(),
        AnyObject::ServiceEntry(entry) => {
            resolution(&entry.spec).map(|(field, reason)| of_standalone(field, reason)).into_iter().collect()
        }
        AnyObject::DestinationRule(rule) => {
            let own = rule.spec.traffic_policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
            let subsets = rule.spec.subsets.iter().enumerate().filter_map(|(index, subset)| {
                Some((format!("spec.subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref()?))
            });
            own.chain(subsets)
                .flat_map(|(field, policy)| passthrough(&field, policy))
                .map(|field| {
                    of_standalone(
                        &field,
                        "PASSTHROUGH is not acted on here: endpoints are chosen as with LEAST_REQUEST",
                    )
                })
                .collect()
        }
        AnyObject::MetaRouter(_) | AnyObject::ApplicationProtocol(_) => Vec::new(),
    };
    all.extend(ignored.iter().filter_map(|field| {
        let last = field.rsplit('.').next().unwrap_or(field);
        if OF_ISTIO.contains(&last) {
            return Some(of_standalone(field, "not acted on here"));
        }
        let reason = if field.starts_with("spec.") || !BESIDE.contains(&field.split(['.', '[']).next().unwrap_or(field))
        {
            format!("there is no such field in a {kind}; it is passed over")
        } else {
            return None;
        };
        Some(origin.warning(field.as_str(), reason))
    }));
    all
}

fn resolution(entry: &ServiceEntry) -> Option<(&'static str, &'static str)> {
    (entry.resolution == Resolution::None).then_some((
        "spec.resolution",
        "NONE, which is what it is when it is not given, is not acted on here: the endpoints are used as with STATIC",
    ))
}

/// Fields that ask for the address that the client wanted.
fn passthrough(field: &str, policy: &TrafficPolicy) -> Vec<String> {
    let is = |policy: &TrafficPolicy| {
        policy.load_balancer.as_ref().and_then(|balancer| balancer.simple) == Some(SimpleLb::Passthrough)
    };
    let ports = policy.port_level_settings.iter().enumerate().filter(|(_, port)| is(&port.policy));
    let own = is(policy).then(|| format!("{field}.loadBalancer.simple"));
    own.into_iter()
        .chain(ports.map(|(index, _)| format!("{field}.portLevelSettings[{index}].loadBalancer.simple")))
        .collect()
}
