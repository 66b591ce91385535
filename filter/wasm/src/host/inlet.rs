use core::cell::RefCell;
use std::{rc::Rc, sync::Arc};

use meltemi_engine::{
    Close,
    config::{ConfigError, InletConfig},
    inlet::{Inlet, InletShared},
    names,
};

use super::{
    behind::{Behind, Engine},
    destination,
    metrics::{InFlight, Metrics},
    watch::Watch,
};
use crate::{
    abi,
    vm::{Action, Connection, Context, Plugin, build},
};

/// Plugin `inlet`.
pub(super) struct InletPlugin {
    shared: Arc<InletShared>,
    metrics: Rc<Metrics>,
}

impl InletPlugin {
    pub(super) fn new(config: &InletConfig) -> Result<Self, ConfigError> {
        let shared = InletShared::new(config, build(&config.codec)?)?;
        Ok(Self { metrics: Rc::new(Metrics::new(shared.protocol())), shared: Arc::new(shared) })
    }
}

impl Plugin for InletPlugin {
    fn accept(self: Rc<Self>, context: Context) -> Rc<dyn Connection> {
        Rc::new(InletConnection { plugin: self, context, behind: RefCell::new(None) })
    }

    fn on_tick(&self) -> bool {
        self.metrics.flush()
    }
}

struct InletConnection {
    plugin: Rc<InletPlugin>,
    context: Context,
    /// `None`: the connection is not ours and passes untouched.
    behind: RefCell<Option<Rc<Behind<Client>>>>,
}

impl InletConnection {
    fn ours(&self) -> Option<Rc<Behind<Client>>> {
        self.behind.borrow().clone()
    }
}

/// A client, as the engine sees it.
struct Client {
    context: Context,
    engine: Inlet,
    metrics: Rc<Metrics>,
    in_flight: InFlight,
    service: Vec<u8>,
    method: Vec<u8>,
}

impl Engine for Client {
    fn on_read(&mut self, data: &[u8]) {
        self.engine.on_client_data(&Watch::default(), data, false);
    }

    fn on_write(&mut self, data: &[u8], end: bool) {
        self.engine.on_hcm_data(&Watch::default(), data, end);
    }

    fn to_front(&mut self) -> &mut Vec<u8> {
        self.engine.to_client()
    }

    fn to_hcm(&mut self) -> &mut Vec<u8> {
        self.engine.to_hcm()
    }

    fn wants_data(&self) -> bool {
        self.engine.wants_client_data()
    }

    fn prompt(&mut self) {
        self.engine.prompt();
    }

    fn close(&self) -> Option<Close> {
        self.engine.close()
    }

    fn give_up(&mut self) {
        self.metrics.unanswered(self.context);
    }

    fn report(&mut self) {
        let stats = self.engine.take_stats();
        self.metrics.report(self.context, &stats, || self.engine.take_duration(), &mut self.in_flight);
        let (service, method) = self.engine.current();
        for (key, new, old) in
            [(names::SERVICE_STATE, service, &mut self.service), (names::METHOD_STATE, method, &mut self.method)]
        {
            if new != old {
                old.clear();
                old.extend_from_slice(new);
                abi::set_property(key, new);
            }
        }
    }
}

impl Connection for InletConnection {
    fn on_new_connection(&self) -> Action {
        let shared = &self.plugin.shared;
        let authority = match destination() {
            Some((address, port)) => shared.authority(address, port),
            None => shared.authority_without_address(),
        };
        // Two objects of a mesh may have put an inlet into one chain, as two services on one port of a pod do: the second
        // would see the first one's HTTP.
        let taken = || abi::property(names::INLET_STATE).is_some();
        if let Some(authority) = authority.filter(|_| !taken()) {
            abi::set_property(names::INLET_STATE, shared.protocol().as_bytes());
            let client = Client {
                context: self.context,
                engine: Inlet::new(shared.clone(), authority.as_bytes()),
                metrics: self.plugin.metrics.clone(),
                in_flight: InFlight::default(),
                service: Vec::new(),
                method: Vec::new(),
            };
            *self.behind.borrow_mut() = Some(Rc::new(Behind::new(self.context, client)));
        }
        Action::Continue
    }

    fn on_read(&self, size: usize, _: bool) -> Action {
        self.ours().map_or(Action::Continue, |behind| behind.on_read(size))
    }

    fn on_write(&self, size: usize, end: bool) -> Action {
        self.ours().map_or(Action::Continue, |behind| behind.on_write(size, end))
    }

    fn on_closed(&self, _: bool) {
        if let Some(behind) = self.ours() {
            behind.on_closed();
            behind.with(|client| client.metrics.forget(client.context, &mut client.in_flight));
        }
    }

    fn on_wakeup(&self) {
        if let Some(behind) = self.ours() {
            behind.pump();
        }
    }
}
