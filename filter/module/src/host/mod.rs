//! Engines as Envoy's extensions.

mod clock;
mod declare;
mod inlet;
mod metrics;
mod outlet;

use std::sync::Arc;

use meltemi_engine::config::{ConfigError, DeclareConfig, InletConfig, OutletConfig, parse};

use crate::abi::{Accept, ConfigScope, Connections, RequestConfig};

/// The network filter of a name.
pub(crate) fn network(name: &[u8], json: &[u8], scope: ConfigScope) -> Result<Arc<dyn Connections>, ConfigError> {
    match name {
        b"inlet" => Ok(Arc::new(inlet::InletConnections::new(&parse::<InletConfig>(json)?, scope)?)),
        _ => Err(ConfigError("no such filter: there are `inlet` and `relay`".to_owned())),
    }
}

/// The upstream bridge of a name.
pub(crate) fn bridge(name: &[u8], json: &[u8]) -> Result<Arc<dyn RequestConfig>, ConfigError> {
    match name {
        b"outlet" => Ok(Arc::new(outlet::OutletRequests::new(&parse::<OutletConfig>(json)?)?)),
        _ => Err(ConfigError("no such bridge: there is `outlet`".to_owned())),
    }
}

/// The listener filter of a name.
pub(crate) fn listener(name: &[u8], json: &[u8]) -> Result<Arc<dyn Accept>, ConfigError> {
    match name {
        b"declare" => Ok(Arc::new(declare::Declare::new(parse::<DeclareConfig>(json)?))),
        _ => Err(ConfigError("no such listener filter: there is `declare`".to_owned())),
    }
}
