//! One route of a MetaRouter while it is compiled: what both modes check in the same way.

use envoy_types::pb::envoy::{config::route::v3::HeaderMatcher, r#type::v3::TokenBucket as EnvoyBucket};
use meltemi::MutationSupport;

use super::{
    cluster, limits, matcher,
    services::{Port, Protocol, Services},
};
use crate::{
    model::{Abort, Destination, KeyValue, MetaRouter, Mode, Object, Percent, Route, TokenBucket},
    problem::{Kind, Problem},
};

/// Bytes of a name or value that Envoy takes in a route: 16 KiB, of which escaping may need three for one.
const MAX_HEADER: usize = 5000;

/// Status of what clients get for a route that is wrong.
pub(super) const BROKEN: u32 = 503;

/// A route, and where it stands.
pub(super) struct Scope<'a> {
    pub(super) port: &'a Port,
    pub(super) protocol: &'a Protocol,
    pub(super) router: &'a Object<MetaRouter>,
    pub(super) services: &'a Services<'a>,
    /// Path of the route in its object.
    pub(super) field: String,
}

pub(super) type Result<T> = std::result::Result<T, Box<Problem>>;

impl Scope<'_> {
    pub(super) fn wrong<T>(&self, field: &str, reason: impl Into<String>) -> Result<T> {
        Err(Box::new(self.router.origin.error(format!("{}.{field}", self.field), reason)))
    }

    /// What a destination names is not there, or not what it would have to be.
    fn unresolved<T>(&self, field: &str, reason: impl Into<String>) -> Result<T> {
        self.wrong(field, reason).map_err(|problem| Box::new(problem.of(Kind::Reference)))
    }

    pub(super) fn warning(&self, field: &str, reason: impl Into<String>) -> Problem {
        self.router.origin.warning(format!("{}.{field}", self.field), reason)
    }

    /// What the route's match says.
    pub(super) fn conditions(&self, spec: &Route) -> Result<Vec<HeaderMatcher>> {
        let Some(conditions) = &spec.r#match else { return Ok(Vec::new()) };
        matcher::headers(conditions, self.protocol.service_aliases)
            .or_else(|(field, reason)| self.wrong(&format!("match.{field}"), reason))
    }

    /// The clusters of a route's destinations and their shares.
    pub(super) fn destinations(&self, spec: &Route) -> Result<Vec<(String, u32)>> {
        let mut clusters = Vec::new();
        for (index, weighted) in spec.route.iter().enumerate() {
            let weight = match weighted.weight {
                Some(weight) => weight,
                None if spec.route.len() == 1 => 1,
                None => {
                    return self
                        .wrong(&format!("route[{index}].weight"), "needed where there are several destinations");
                }
            };
            clusters.push((self.cluster(&weighted.destination, &format!("route[{index}].destination"))?, weight));
        }
        let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
        match clusters.as_slice() {
            [] => self.wrong("route", "a route needs a destination"),
            // Its share of one is all, whatever it says.
            [_] => Ok(clusters),
            _ if total == 0 || total > u64::from(u32::MAX) => {
                self.wrong("route", format!("the weights add up to {total}"))
            }
            _ => Ok(clusters),
        }
    }

    /// The cluster of a destination, which must speak the same protocol in the same mode.
    pub(super) fn cluster(&self, to: &Destination, field: &str) -> Result<String> {
        let (host, number) = self.target(to);
        let Some(port) = self.services.port(&host, number) else {
            return if self.services.has_host(&host) {
                self.unresolved(&format!("{field}.port"), format!("`{host}` has no port {number}"))
            } else {
                self.unresolved(&format!("{field}.host"), format!("there is no Service or ServiceEntry for `{host}`"))
            };
        };
        let name = |mode: Mode| if mode == Mode::Request { "request" } else { "connection" };
        match &port.protocol {
            Some(protocol) if protocol.mode != self.protocol.mode => {
                let (theirs, ours) = (name(protocol.mode), name(self.protocol.mode));
                let reason = format!("its port is in {theirs} mode, this one in {ours} mode");
                return self.unresolved(&format!("{field}.host"), reason);
            }
            Some(protocol) if protocol.codec.name == self.protocol.codec.name => {}
            Some(protocol) => {
                let (theirs, ours) = (&protocol.codec.name, &self.protocol.codec.name);
                return self.unresolved(&format!("{field}.host"), format!("it speaks {theirs}, this service {ours}"));
            }
            None => {
                return self.unresolved(&format!("{field}.port"), format!("port {number} is not named as one of ours"));
            }
        }
        if let Some(subset) = &to.subset
            && self.services.subset(&host, subset).is_none()
        {
            return self
                .unresolved(&format!("{field}.subset"), format!("no DestinationRule of `{host}` has `{subset}`"));
        }
        Ok(cluster::name(&host, number, to.subset.as_deref()))
    }

    /// The host and port of a destination.
    pub(super) fn target(&self, to: &Destination) -> (String, u16) {
        let number = to.port.map_or(self.port.number, |port| port.number);
        (self.services.host_of(&to.host, &self.router.metadata), number)
    }

    /// Finds what is wrong with changes of headers.
    pub(super) fn changes(&self, changes: &[KeyValue], support: MutationSupport, field: &str) -> Result<()> {
        for (index, change) in changes.iter().enumerate() {
            let field = format!("{field}[{index}]");
            if support == MutationSupport::None {
                return self
                    .wrong(&field, format!("{} has no headers that could be changed", self.protocol.codec.name));
            }
            if change.key.is_empty() {
                return self.wrong(&format!("{field}.key"), "missing");
            }
            if change.key.len().max(change.value.len()) > MAX_HEADER {
                return self.wrong(&field, format!("longer than {MAX_HEADER} bytes"));
            }
            if matches!(change.key.as_str(), "service" | "method") {
                return self.wrong(&format!("{field}.key"), "service and method cannot be changed");
            }
        }
        Ok(())
    }

    pub(super) fn percentage(&self, percent: Option<Percent>, field: &str) -> Result<()> {
        match percent {
            Some(Percent { value }) if !(0.0..=100.0).contains(&value) => {
                self.wrong(&format!("{field}.value"), format!("{value} is not between 0 and 100"))
            }
            _ => Ok(()),
        }
    }

    /// The status that a failure on purpose stands for.
    pub(super) fn abort_status(&self, abort: &Abort) -> Result<u32> {
        self.percentage(abort.percentage, "fault.abort.percentage")?;
        let status = abort.http_status.unwrap_or(503);
        if (400..600).contains(&status) {
            Ok(status)
        } else {
            self.wrong("fault.abort.httpStatus", format!("{status} is no failure: 400 to 599"))
        }
    }

    /// The route's own limit.
    pub(super) fn bucket(&self, spec: &TokenBucket) -> Result<EnvoyBucket> {
        limits::envoy_bucket(spec).or_else(|(field, reason)| self.wrong(&format!("localRateLimit.{field}"), reason))
    }
}
