//! Engines as plugins of Envoy.

mod behind;
mod inbox;
mod inlet;
mod metrics;
mod outlet;
mod relay;
mod watch;

use std::rc::Rc;
use std::{
    net::{IpAddr, SocketAddr},
    sync::LazyLock,
    time::Instant,
};

use core::time::Duration;

use meltemi_engine::{
    config::{self, ConfigError, InletConfig, OutletConfig},
    relay::RelayConfig,
};

use crate::{abi, vm::Plugin};

/// The plugin of a `root_id`.
pub(crate) fn plugin(root_id: &[u8], configuration: &[u8]) -> Result<Rc<dyn Plugin>, ConfigError> {
    match root_id {
        b"inlet" => Ok(Rc::new(inlet::InletPlugin::new(&config::parse::<InletConfig>(configuration)?)?)),
        b"outlet" => Ok(Rc::new(outlet::OutletPlugin::new(&config::parse::<OutletConfig>(configuration)?)?)),
        b"relay" => Ok(Rc::new(relay::RelayPlugin::new(&config::parse::<RelayConfig>(configuration)?)?)),
        other => Err(ConfigError(format!(
            "`root_id`: no such filter as `{}`: there are `inlet`, `outlet` and `relay`",
            String::from_utf8_lossy(other)
        ))),
    }
}

/// Time since the VM began.
fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// Where the client wanted to go; `None` for addresses that are no IP.
fn destination() -> Option<(IpAddr, u16)> {
    let text = abi::property("destination\0address")?;
    let address: SocketAddr = str::from_utf8(&text).ok()?.parse().ok()?;
    Some((address.ip(), address.port()))
}

#[cfg(test)]
mod tests;
