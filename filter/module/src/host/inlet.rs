use core::cell::{Cell, RefCell};
use std::{rc::Rc, sync::Arc};

use meltemi_engine::{
    Close,
    config::{ConfigError, InletConfig},
    inlet::{Inlet, InletShared},
    names,
};

use super::{clock::now, congestion::Client, metrics::InletMetrics};
use crate::{
    abi::{ConfigScope, Connection, ConnectionEvent, Connections, Network, Status, Wakeup},
    registry,
};

/// Network filter `inlet`.
pub(super) struct InletConnections {
    shared: Arc<InletShared>,
    metrics: InletMetrics,
}

impl InletConnections {
    pub(super) fn new(config: &InletConfig, scope: ConfigScope) -> Result<Self, ConfigError> {
        let shared = InletShared::new(config, registry::build(&config.codec)?)?;
        Ok(Self { metrics: InletMetrics::new(scope, shared.protocol()), shared: Arc::new(shared) })
    }
}

impl Connections for InletConnections {
    fn accept(self: Arc<Self>) -> Rc<dyn Connection> {
        Rc::new(InletConnection {
            config: self,
            engine: RefCell::new(None),
            state: RefCell::default(),
            pumping: Cell::new(false),
            closed: Cell::new(false),
            reading_disabled: Cell::new(false),
            in_flight: Cell::new(0),
            client: Client::new(),
        })
    }
}

struct InletConnection {
    config: Arc<InletConnections>,
    /// `None`: the connection is not ours and passes untouched.
    engine: RefCell<Option<Inlet>>,
    state: RefCell<State>,
    /// Bytes are being given to HCM: what it writes meanwhile waits for us to be done.
    pumping: Cell<bool>,
    closed: Cell<bool>,
    reading_disabled: Cell<bool>,
    in_flight: Cell<i64>,
    client: Client,
}

/// Memory that is used again.
#[derive(Default)]
struct State {
    wakeup: Option<Wakeup>,
    service: Vec<u8>,
    method: Vec<u8>,
    to_hcm: Vec<u8>,
    to_client: Vec<u8>,
}

impl InletConnection {
    fn with<T>(&self, work: impl FnOnce(&mut Inlet) -> T) -> Option<T> {
        self.engine.borrow_mut().as_mut().map(work)
    }

    fn is_ours(&self) -> bool {
        self.engine.borrow().is_some()
    }

    /// Carries bytes between the engine, HCM and the client until there are none left. HCM may write within.
    fn pump(&self, envoy: Network) {
        if self.pumping.replace(true) {
            return;
        }
        while !self.closed.get() {
            let (mut to_client, mut to_hcm) = self.buffers();
            self.with(|engine| {
                core::mem::swap(engine.to_client(), &mut to_client);
                core::mem::swap(engine.to_hcm(), &mut to_hcm);
            });
            let idle = to_client.is_empty() && to_hcm.is_empty();
            if !to_client.is_empty() {
                envoy.inject_write(&to_client, false);
            }
            if !to_hcm.is_empty() {
                self.publish(envoy);
                envoy.inject_read(&to_hcm, false);
            }
            self.keep(to_client, to_hcm);
            if idle {
                break;
            }
        }
        self.pumping.set(false);
        self.finish(envoy);
    }

    fn buffers(&self) -> (Vec<u8>, Vec<u8>) {
        let mut state = self.state.borrow_mut();
        (core::mem::take(&mut state.to_client), core::mem::take(&mut state.to_hcm))
    }

    /// Keeps buffers for later, unless they have grown large.
    fn keep(&self, mut to_client: Vec<u8>, mut to_hcm: Vec<u8>) {
        const KEEP: usize = 16 * 1024;
        let mut state = self.state.borrow_mut();
        for (buffer, place) in [(&mut to_client, 0), (&mut to_hcm, 1)] {
            buffer.clear();
            if buffer.capacity() <= KEEP {
                let slot = if place == 0 { &mut state.to_client } else { &mut state.to_hcm };
                *slot = core::mem::take(buffer);
            }
        }
    }

    /// Sets the last request's service and method as filter state, where they changed.
    fn publish(&self, envoy: Network) {
        self.with(|engine| {
            let (service, method) = engine.current();
            let state = &mut *self.state.borrow_mut();
            for (key, new, old) in
                [(names::SERVICE_STATE, service, &mut state.service), (names::METHOD_STATE, method, &mut state.method)]
            {
                if new != old {
                    old.clear();
                    old.extend_from_slice(new);
                    envoy.set_filter_state(key, new);
                }
            }
        });
    }

    /// What follows every piece of work: statistics, back-pressure, the end.
    fn finish(&self, envoy: Network) {
        if self.closed.get() {
            return;
        }
        let wishes = self.with(|engine| {
            self.report(engine, envoy);
            (engine.wants_client_data(), engine.close())
        });
        let Some((wants_data, close)) = wishes else { return };
        if let Some(close) = close {
            self.closed.set(true);
            envoy.close(close == Close::Flush);
            return;
        }
        if self.reading_disabled.replace(!wants_data) == wants_data {
            envoy.read_disable(!wants_data);
        }
    }

    fn report(&self, engine: &mut Inlet, envoy: Network) {
        let change = {
            let stats = engine.take_stats();
            self.config.metrics.report(&stats, || engine.take_duration(), envoy)
        };
        self.in_flight.set(self.in_flight.get().saturating_add(change));
    }

    /// Comes back to what cannot be done while HCM is on the stack.
    fn wake_later(&self, envoy: Network) {
        let mut state = self.state.borrow_mut();
        if state.wakeup.is_none() {
            state.wakeup = Wakeup::new(envoy);
        }
        if let Some(wakeup) = &state.wakeup {
            wakeup.wake();
        }
    }
}

impl Connection for InletConnection {
    fn on_new_connection(&self, envoy: Network) -> Status {
        let shared = &self.config.shared;
        let authority = match envoy.local_address() {
            Some((address, port)) => shared.authority(address, port),
            None => shared.authority_without_address(),
        };
        // Two objects of a mesh may have put an inlet into one chain, as two services on one port of a pod do: the second
        // would see the first one's HTTP.
        if let Some(authority) = authority.filter(|_| !envoy.has_filter_state(names::INLET_STATE)) {
            envoy.set_filter_state(names::INLET_STATE, shared.protocol().as_bytes());
            let mut engine = Inlet::new(shared.clone(), authority.as_bytes());
            engine.set_connection_name(self.client.name().as_bytes());
            *self.engine.borrow_mut() = Some(engine);
            // A client that has sent its last request still wants its replies.
            envoy.enable_half_close();
        }
        Status::Continue
    }

    fn on_read(&self, envoy: Network, end: bool) -> Status {
        if !self.is_ours() {
            return Status::Continue;
        }
        let now = now();
        let mut length = 0;
        self.with(|engine| {
            length = envoy.read_buffer(&mut |piece| engine.on_client_data(now, piece, false));
            if end {
                engine.on_client_data(now, b"", true);
            }
        });
        envoy.drain_read(length);
        self.pump(envoy);
        Status::Stop
    }

    fn on_write(&self, envoy: Network, end: bool) -> Status {
        if !self.is_ours() {
            return Status::Continue;
        }
        let now = now();
        let (mut to_client, to_hcm) = self.buffers();
        let (mut length, mut wants_more) = (0, false);
        self.with(|engine| {
            length = envoy.write_buffer(&mut |piece| engine.on_hcm_data(now, piece, false));
            if end {
                engine.on_hcm_data(now, b"", true);
            }
            core::mem::swap(engine.to_client(), &mut to_client);
            wants_more = !engine.to_hcm().is_empty()
                || engine.close().is_some()
                || engine.wants_client_data() == self.reading_disabled.get();
        });
        envoy.drain_write(length);
        // At once, not when HCM has returned: it may close the connection behind its last response.
        if !to_client.is_empty() {
            envoy.append_write(&to_client);
        }
        let nothing = to_client.is_empty() && !end;
        self.keep(to_client, to_hcm);
        if !self.pumping.get() {
            self.with(|engine| self.report(engine, envoy));
            if wants_more {
                self.wake_later(envoy);
            }
        }
        if nothing { Status::Stop } else { Status::Continue }
    }

    fn on_event(&self, envoy: Network, event: ConnectionEvent) {
        if event.is_closed() {
            if !self.closed.replace(true) {
                self.with(|engine| self.report(engine, envoy));
            }
            self.config.metrics.forget(self.in_flight.replace(0), envoy);
            self.state.borrow_mut().wakeup = None;
        }
    }

    fn on_writable(&self, envoy: Network, writable: bool) {
        if self.is_ours() {
            self.client.set_congested(!writable);
            self.with(|engine| engine.on_client_writable(now(), writable));
            // Envoy may call this from within a write.
            self.wake_later(envoy);
        }
    }

    fn on_wakeup(&self, envoy: Network) {
        if self.is_ours() {
            self.pump(envoy);
        }
    }

    fn on_panic(&self, envoy: Network) {
        self.closed.set(true);
        self.config.metrics.panicked(envoy);
        self.config.metrics.forget(self.in_flight.replace(0), envoy);
    }
}
