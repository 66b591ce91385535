//! What picks the endpoint of clusters with a consistent hash.

use envoy_types::pb::envoy::config::route::v3::route_action::{
    HashPolicy,
    hash_policy::{ConnectionProperties, Header, PolicySpecifier},
};
use meltemi_engine::names;

use super::{
    matcher,
    services::{Protocol, Services},
};

/// The hash of a value of the metadata.
pub(super) fn of_metadata(key: &str, protocol: &Protocol) -> HashPolicy {
    let header_name = names::match_header(matcher::metadata_key(key, protocol.service_aliases), None).0;
    policy(PolicySpecifier::Header(Header { header_name, ..Header::default() }))
}

/// What the rule of a destination says.
pub(super) fn of_destination(
    services: &Services<'_>,
    protocol: &Protocol,
    host: &str,
    number: u16,
    subset: Option<&str>,
) -> Vec<HashPolicy> {
    let balancer = services.policy(host, number, subset).load_balancer;
    let Some(hash) = balancer.and_then(|balancer| balancer.consistent_hash) else { return Vec::new() };
    let source = hash
        .use_source_ip
        .then(|| policy(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })));
    let header = hash.http_header_name.filter(|name| !name.is_empty()).map(|name| of_metadata(&name, protocol));
    header.into_iter().chain(source).collect()
}

fn policy(specifier: PolicySpecifier) -> HashPolicy {
    HashPolicy { policy_specifier: Some(specifier), terminal: false }
}
