use meltemi_engine::config::DeclareConfig;

use crate::abi::{Accept, Listener};

/// Listener filter `declare`: says what connections to certain addresses speak, so that Envoy picks the filter chain for
/// it without looking at the bytes.
pub(super) struct Declare {
    config: DeclareConfig,
}

impl Declare {
    pub(super) const fn new(config: DeclareConfig) -> Self {
        Self { config }
    }
}

impl Accept for Declare {
    fn on_accept(&self, envoy: Listener) {
        let destinations = &self.config.destinations;
        let ours = destinations.is_empty()
            || envoy.local_address().is_some_and(|(address, port)| destinations.iter().any(|d| d.is(address, port)));
        if ours {
            envoy.set_application_protocols(&self.config.application_protocols);
        }
    }
}
