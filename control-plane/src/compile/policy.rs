//! A DestinationRule's policy → what a cluster says of limits, failing endpoints and the choice among them.

use envoy_types::pb::{
    envoy::config::cluster::v3::{
        CircuitBreakers, Cluster, OutlierDetection as EnvoyOutlier,
        circuit_breakers::Thresholds,
        cluster::{LbConfig, LbPolicy, MaglevLbConfig, RingHashLbConfig},
    },
    google::protobuf::UInt64Value,
};

use super::packing::{number, span};
use crate::model::{ConsistentHash, OutlierDetection, SimpleLb, TrafficPolicy};

/// A field of the rule that is wrong, and why.
pub(super) type Wrong = (String, String);

/// Limits; without a word from the user there are none, as in Istio.
pub(super) fn breakers(policy: &TrafficPolicy) -> CircuitBreakers {
    let pool = policy.connection_pool.clone().unwrap_or_default();
    let or_none = |limit: Option<u32>| number(limit.unwrap_or(u32::MAX));
    let thresholds = Thresholds {
        max_connections: or_none(pool.tcp.max_connections),
        max_pending_requests: or_none(pool.http.max_pending_requests),
        max_requests: or_none(pool.http.max_requests),
        max_retries: or_none(pool.http.max_retries),
        track_remaining: true,
        ..Thresholds::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() }
}

pub(super) fn outliers(spec: &OutlierDetection) -> EnvoyOutlier {
    let on = |given: bool| number(if given { 100 } else { 0 });
    EnvoyOutlier {
        consecutive_5xx: spec.consecutive_5xx_errors.and_then(number),
        enforcing_consecutive_5xx: on(spec.consecutive_5xx_errors != Some(0)),
        consecutive_gateway_failure: spec.consecutive_gateway_errors.and_then(number),
        enforcing_consecutive_gateway_failure: on(spec.consecutive_gateway_errors.is_some_and(|n| n > 0)),
        interval: spec.interval.and_then(|interval| span(interval.0)),
        base_ejection_time: spec.base_ejection_time.and_then(|time| span(time.0)),
        max_ejection_percent: spec.max_ejection_percent.and_then(number),
        enforcing_success_rate: number(0),
        ..EnvoyOutlier::default()
    }
}

pub(super) fn load_balancing(policy: &TrafficPolicy, cluster: &mut Cluster) {
    let balancer = policy.load_balancer.clone().unwrap_or_default();
    let lb_policy = match (&balancer.consistent_hash, balancer.simple) {
        (Some(hash), _) if hash.maglev.is_some() => LbPolicy::Maglev,
        (Some(_), _) => LbPolicy::RingHash,
        (None, Some(SimpleLb::RoundRobin)) => LbPolicy::RoundRobin,
        (None, Some(SimpleLb::Random)) => LbPolicy::Random,
        (None, _) => LbPolicy::LeastRequest,
    };
    cluster.lb_policy = lb_policy.into();
    let Some(hash) = balancer.consistent_hash else { return };
    cluster.lb_config = match &hash.maglev {
        Some(maglev) => Some(LbConfig::MaglevLbConfig(MaglevLbConfig {
            table_size: maglev.table_size.map(|value| UInt64Value { value }),
        })),
        None => ring_size(&hash).map(|value| {
            let minimum_ring_size = Some(UInt64Value { value });
            LbConfig::RingHashLbConfig(RingHashLbConfig { minimum_ring_size, ..RingHashLbConfig::default() })
        }),
    };
}

fn ring_size(hash: &ConsistentHash) -> Option<u64> {
    hash.ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size).or(hash.minimum_ring_size)
}

/// Finds what Envoy would refuse.
pub(super) fn check(policy: &TrafficPolicy) -> Result<(), Wrong> {
    let pool = policy.connection_pool.clone().unwrap_or_default();
    let outliers = policy.outlier_detection.clone().unwrap_or_default();
    let spans = [
        ("connectionPool.tcp.connectTimeout", pool.tcp.connect_timeout),
        ("outlierDetection.interval", outliers.interval),
        ("outlierDetection.baseEjectionTime", outliers.base_ejection_time),
    ];
    let percents = [
        ("outlierDetection.maxEjectionPercent", outliers.max_ejection_percent),
        ("outlierDetection.minHealthPercent", outliers.min_health_percent),
    ];
    let hash = policy.load_balancer.as_ref().and_then(|balancer| balancer.consistent_hash.as_ref());
    let sizes = [
        ("loadBalancer.consistentHash.minimumRingSize", hash.and_then(ring_size), MAX_RING),
        (
            "loadBalancer.consistentHash.maglev.tableSize",
            hash.and_then(|hash| hash.maglev.as_ref()).and_then(|maglev| maglev.table_size),
            MAX_TABLE,
        ),
    ];
    let zero = spans.into_iter().filter(|(_, span)| span.is_some_and(|span| span.0.is_zero()));
    let zero = zero.map(|(field, _)| (field, "must be more than 0".to_owned()));
    let much = percents.into_iter().filter(|(_, percent)| percent.is_some_and(|percent| percent > 100));
    let much = much.map(|(field, _)| (field, "must be at most 100".to_owned()));
    let large = sizes.into_iter().filter(|(_, size, most)| size.is_some_and(|size| size > *most));
    let large = large.map(|(field, _, most)| (field, format!("must be at most {most}")));
    let table = hash.and_then(|hash| hash.maglev.as_ref()).and_then(|maglev| maglev.table_size);
    let uneven = table.filter(|size| *size <= MAX_TABLE && !is_prime(*size)).map(|size| {
        ("loadBalancer.consistentHash.maglev.tableSize", format!("{size} is no prime number, such as 65537"))
    });
    match zero.chain(much).chain(large).chain(uneven).next() {
        Some((field, reason)) => Err((format!("spec.trafficPolicy.{field}"), reason)),
        None => Ok(()),
    }
}

const fn is_prime(number: u64) -> bool {
    let mut divisor = 2;
    while divisor * divisor <= number {
        if number.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    number > 1
}

/// The largest ring that Envoy takes.
const MAX_RING: u64 = 8_388_608;
/// The largest Maglev table that Envoy takes.
const MAX_TABLE: u64 = 5_000_011;
