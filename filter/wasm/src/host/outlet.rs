use std::{rc::Rc, sync::Arc};

use meltemi_engine::{
    Close,
    config::{ConfigError, OutletConfig},
    outlet::OutletShared,
    tunnel::Tunnel,
};

use super::behind::{Behind, Engine};
use crate::vm::{Action, Connection, Context, Plugin, build};

/// Plugin `outlet`.
pub(super) struct OutletPlugin {
    shared: Arc<OutletShared>,
}

impl OutletPlugin {
    pub(super) fn new(config: &OutletConfig) -> Result<Self, ConfigError> {
        Ok(Self { shared: Arc::new(OutletShared::new(config, build(&config.codec)?)?) })
    }
}

impl Plugin for OutletPlugin {
    fn accept(self: Rc<Self>, context: Context) -> Rc<dyn Connection> {
        Rc::new(OutletConnection(Behind::new(context, Tunnel::new(self.shared.clone()))))
    }
}

struct OutletConnection(Behind<Tunnel>);

impl Engine for Tunnel {
    fn on_read(&mut self, data: &[u8]) {
        self.on_router_data(data);
    }

    fn on_write(&mut self, data: &[u8], end: bool) {
        self.on_server_data(data, end);
    }

    fn to_front(&mut self) -> &mut Vec<u8> {
        self.to_router()
    }

    fn to_hcm(&mut self) -> &mut Vec<u8> {
        Self::to_hcm(self)
    }

    /// One request at a time, whose size has its limit.
    fn wants_data(&self) -> bool {
        true
    }

    fn prompt(&mut self) {
        Self::prompt(self);
    }

    fn close(&self) -> Option<Close> {
        Self::close(self)
    }

    /// The router sees it, and its inlet counts.
    fn give_up(&mut self) {}

    fn report(&mut self) {}
}

impl Connection for OutletConnection {
    fn on_new_connection(&self) -> Action {
        Action::Continue
    }

    fn on_read(&self, size: usize, _: bool) -> Action {
        self.0.on_read(size)
    }

    fn on_write(&self, size: usize, end: bool) -> Action {
        self.0.on_write(size, end)
    }

    fn on_closed(&self, _: bool) {
        self.0.on_closed();
    }

    fn on_wakeup(&self) {
        self.0.pump();
    }
}
