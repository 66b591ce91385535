use meltemi_engine::{Destinations, config::DeclareConfig};

use crate::abi::{Accept, Listener};

/// Listener filter `declare`: says what connections to certain addresses speak, so that Envoy picks the filter chain for
/// it without looking at the bytes.
pub(super) struct Declare {
    destinations: Destinations,
    application_protocols: Vec<String>,
}

impl Declare {
    pub(super) fn new(config: DeclareConfig) -> Self {
        let destinations = Destinations::new(&config.destinations);
        Self { destinations, application_protocols: config.application_protocols }
    }
}

impl Accept for Declare {
    fn on_accept(&self, envoy: Listener) {
        if self.destinations.are_all() || self.destinations.have(envoy.local_address()) {
            envoy.set_application_protocols(&self.application_protocols);
        }
    }
}
