//! Engines as Envoy's extensions.

mod clock;
mod congestion;
mod declare;
mod inlet;
mod metrics;
mod outlet;
mod proto_struct;
mod relay;

use std::sync::Arc;

use meltemi_engine::{
    config::{self, Blank, ConfigError, DeclareConfig, InletConfig, OutletConfig, Read},
    relay::RelayConfig,
};

use crate::abi::{Accept, ConfigScope, Connections, RequestConfig};

/// The network filter of a name.
pub(crate) fn network(name: &[u8], config: &[u8], scope: ConfigScope) -> Result<Arc<dyn Connections>, ConfigError> {
    match name {
        b"inlet" => Ok(Arc::new(inlet::InletConnections::new(&read::<InletConfig>(config)?, scope)?)),
        b"relay" => Ok(Arc::new(relay::RelayConnections::new(&read::<RelayConfig>(config)?, scope)?)),
        _ => Err(ConfigError("no such filter: there are `inlet` and `relay`".to_owned())),
    }
}

/// The upstream bridge of a name.
pub(crate) fn bridge(name: &[u8], config: &[u8]) -> Result<Arc<dyn RequestConfig>, ConfigError> {
    match name {
        b"outlet" => Ok(Arc::new(outlet::OutletRequests::new(&read::<OutletConfig>(config)?)?)),
        _ => Err(ConfigError("no such bridge: there is `outlet`".to_owned())),
    }
}

/// The listener filter of a name.
pub(crate) fn listener(name: &[u8], config: &[u8]) -> Result<Arc<dyn Accept>, ConfigError> {
    match name {
        b"declare" => Ok(Arc::new(declare::Declare::new(read::<DeclareConfig>(config)?))),
        _ => Err(ConfigError("no such listener filter: there is `declare`".to_owned())),
    }
}

/// Reads a configuration, in whichever form this Envoy gives it.
fn read<T: Read + Blank>(config: &[u8]) -> Result<T, ConfigError> {
    // The binary form begins with the tag of its first field, which is a line end: JSON may as well.
    match config.starts_with(b"\n").then(|| proto_struct::read(config)).flatten() {
        Some(json) => config::read(&json),
        None => config::parse(config),
    }
}

#[cfg(test)]
mod tests;
