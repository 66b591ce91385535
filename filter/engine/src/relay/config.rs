use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    config::{CodecConfig, Destination, LimitsConfig, VERSION, readable},
    route::config::RouteConfig,
};

/// Configuration of the network filter `relay`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Schema version: 1.
    pub version: u32,
    /// The protocol that is spoken.
    pub codec: CodecConfig,
    /// Bounds on what a peer may make us hold.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Act only on connections to these; on all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// Requests of one connection that may wait for their replies; further ones are not read until one is answered.
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: u32,
    /// Routes; the first that matches is taken.
    pub routes: Vec<RouteConfig>,
}

readable!(RelayConfig { version, codec, routes } or {
    limits: LimitsConfig::default(),
    destinations: Vec::new(),
    max_in_flight: default_max_in_flight()
});

const fn default_max_in_flight() -> u32 {
    256
}

impl RelayConfig {
    /// Configuration for a codec and routes, everything else default.
    pub fn new(codec: CodecConfig, routes: Vec<RouteConfig>) -> Self {
        Self {
            version: VERSION,
            codec,
            limits: LimitsConfig::default(),
            destinations: Vec::new(),
            max_in_flight: default_max_in_flight(),
            routes,
        }
    }
}
