//! Connection mode: our route table in front of `tcp_proxy`.

use envoy_types::pb::envoy::config::listener::v3::Filter;

use super::services::{Port, Protocol, Services};
use crate::{
    model::{MetaRouter, Object},
    problem::Problem,
};

/// The relay's configuration and the chain's filters.
pub(super) fn filters(
    _name: &str,
    port: &Port,
    _protocol: &Protocol,
    _router: Option<&Object<MetaRouter>>,
    _services: &Services<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(serde_json::Value, Vec<Filter>)> {
    problems.push(port.origin.error("metadata.annotations", "connection mode is not there yet"));
    None
}
