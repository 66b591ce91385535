use core::cell::{Cell, RefCell};
use std::{
    hash::{BuildHasher, RandomState},
    rc::Rc,
    sync::Arc,
};

use meltemi_engine::{
    Close,
    config::ConfigError,
    names,
    relay::{Relay, RelayConfig, RelayShared},
};

use super::{clock::now, metrics::InletMetrics};
use crate::{
    abi::{ConfigScope, Connection, ConnectionEvent, Connections, Network, Status, Wakeup},
    registry,
};

/// Filter state by which `tcp_proxy` lets itself be told its cluster.
const CLUSTER_KEY: &str = "envoy.tcp_proxy.cluster";

/// Network filter `relay`, in front of `tcp_proxy`.
pub(super) struct RelayConnections {
    shared: Arc<RelayShared>,
    metrics: InletMetrics,
    random: RandomState,
}

impl RelayConnections {
    pub(super) fn new(config: &RelayConfig, scope: ConfigScope) -> Result<Self, ConfigError> {
        let shared = RelayShared::new(config, registry::build(&config.codec)?)?;
        let metrics = InletMetrics::new(scope, shared.protocol());
        Ok(Self { metrics, shared: Arc::new(shared), random: RandomState::new() })
    }
}

impl Connections for RelayConnections {
    fn accept(self: Arc<Self>) -> Rc<dyn Connection> {
        Rc::new(RelayConnection {
            config: self,
            engine: RefCell::new(None),
            routed: Cell::new(false),
            sending_ended: Cell::new(false),
            closed: Cell::new(false),
            reading_disabled: Cell::new(false),
            in_flight: Cell::new(0),
            wakeup: RefCell::new(None),
        })
    }
}

struct RelayConnection {
    config: Arc<RelayConnections>,
    /// `None`: the connection is not ours and passes untouched.
    engine: RefCell<Option<Relay>>,
    /// `tcp_proxy` knows its cluster.
    routed: Cell<bool>,
    /// `tcp_proxy` knows that the client sends no more.
    sending_ended: Cell<bool>,
    closed: Cell<bool>,
    reading_disabled: Cell<bool>,
    in_flight: Cell<i64>,
    wakeup: RefCell<Option<Wakeup>>,
}

impl RelayConnection {
    fn with<T>(&self, work: impl FnOnce(&mut Relay) -> T) -> Option<T> {
        self.engine.borrow_mut().as_mut().map(work)
    }

    fn is_ours(&self) -> bool {
        self.engine.borrow().is_some()
    }

    /// Tells `tcp_proxy` where to go, as soon as that is known; `false` as long as it was not told.
    fn route(&self, envoy: Network) -> bool {
        if !self.routed.get()
            && let Some(cluster) = self.with(|engine| engine.cluster().map(str::to_owned)).flatten()
        {
            self.routed.set(envoy.set_typed_filter_state(CLUSTER_KEY, cluster.as_bytes()));
            if self.routed.get() {
                self.publish(envoy);
            } else {
                // Bytes that went on now would reach whatever cluster stands in the configuration.
                self.closed.set(true);
                envoy.close(false);
            }
        }
        self.routed.get()
    }

    /// Sets service and method of the call that was routed as filter state.
    fn publish(&self, envoy: Network) {
        self.with(|engine| {
            let (service, method) = engine.routed();
            envoy.set_filter_state(names::SERVICE_STATE, service);
            envoy.set_filter_state(names::METHOD_STATE, method);
        });
    }

    /// Takes what the engine wants sent: to the client, to the server, and whether the latter is the last.
    fn outputs(&self) -> (Vec<u8>, Vec<u8>, bool) {
        let (mut to_client, mut to_server, mut last) = (Vec::new(), Vec::new(), false);
        self.with(|engine| {
            core::mem::swap(engine.to_client(), &mut to_client);
            core::mem::swap(engine.to_server(), &mut to_server);
            last = engine.ends_sending() && engine.close().is_none() && !self.sending_ended.get();
        });
        (to_client, to_server, last)
    }

    /// Gives bytes to `tcp_proxy`, outside of a read.
    fn send_on(&self, envoy: Network, to_server: &[u8], last: bool) {
        if (last || !to_server.is_empty()) && self.route(envoy) {
            self.sending_ended.set(self.sending_ended.get() || last);
            envoy.inject_read(to_server, last);
        }
    }

    /// Gives the engine its memory back, unless it grew large, or something came meanwhile.
    fn give_back(&self, mut to_client: Vec<u8>, mut to_server: Vec<u8>) {
        const KEEP: usize = 64 * 1024;
        self.with(|engine| {
            if engine.to_client().is_empty() && to_client.capacity() <= KEEP {
                to_client.clear();
                core::mem::swap(&mut to_client, engine.to_client());
            }
            if engine.to_server().is_empty() && to_server.capacity() <= KEEP {
                to_server.clear();
                core::mem::swap(&mut to_server, engine.to_server());
            }
        });
    }

    /// What follows every piece of work: statistics, back-pressure, the end.
    fn finish(&self, envoy: Network) {
        let wishes = self.with(|engine| {
            self.report(engine, envoy);
            (engine.wants_client_data(), engine.close())
        });
        let Some((wants_data, close)) = wishes else { return };
        if self.closed.get() {
            return;
        }
        if let Some(close) = close {
            self.closed.set(true);
            envoy.close(close == Close::Flush);
        } else if self.reading_disabled.replace(!wants_data) == wants_data {
            envoy.read_disable(!wants_data);
        }
    }

    /// Comes back to what cannot be done now.
    fn wake_later(&self, envoy: Network) {
        let mut wakeup = self.wakeup.borrow_mut();
        if wakeup.is_none() {
            *wakeup = Wakeup::new(envoy);
        }
        if let Some(wakeup) = &*wakeup {
            wakeup.wake();
        }
    }

    fn report(&self, engine: &mut Relay, envoy: Network) {
        let stats = engine.take_stats();
        let change = self.config.metrics.report(&stats, || engine.take_duration(), envoy);
        self.in_flight.set(self.in_flight.get().saturating_add(change));
    }
}

impl Connection for RelayConnection {
    fn on_new_connection(&self, envoy: Network) -> Status {
        let config = &self.config;
        if config.shared.is_ours(envoy.local_address()) {
            // A fresh number each time: `RandomState` has random keys, and the address of this connection is its own.
            let random = config.random.hash_one(core::ptr::from_ref(self) as usize as u64 ^ now().as_nanos() as u64);
            *self.engine.borrow_mut() = Some(Relay::new(config.shared.clone(), random));
            // `tcp_proxy` looks for its cluster when it learns of the connection: with the first bytes that we let through.
            return Status::Stop;
        }
        Status::Continue
    }

    fn on_read(&self, envoy: Network, end: bool) -> Status {
        if !self.is_ours() {
            return Status::Continue;
        }
        let (now, mut length) = (now(), 0);
        self.with(|engine| {
            length = envoy.read_buffer(&mut |piece| engine.on_client_data(now, piece, false));
            if end {
                engine.on_client_data(now, b"", true);
            }
            engine.on_time(now);
        });
        envoy.drain_read(length);
        let (to_client, to_server, last) = self.outputs();
        if !to_client.is_empty() {
            envoy.inject_write(&to_client, false);
        }
        let mut status = Status::Stop;
        if end != last {
            // Requests wait for room: the end comes behind them.
            self.send_on(envoy, &to_server, last);
        } else if (last || !to_server.is_empty()) && self.route(envoy) {
            self.sending_ended.set(last);
            envoy.append_read(&to_server);
            status = Status::Continue;
        }
        self.give_back(to_client, to_server);
        self.finish(envoy);
        status
    }

    fn on_write(&self, envoy: Network, end: bool) -> Status {
        if !self.is_ours() {
            return Status::Continue;
        }
        let (now, mut length) = (now(), 0);
        self.with(|engine| {
            length = envoy.write_buffer(&mut |piece| engine.on_server_data(now, piece, false));
            if end {
                engine.on_server_data(now, b"", true);
            }
            engine.on_time(now);
        });
        envoy.drain_write(length);
        let (to_client, to_server, last) = self.outputs();
        if !to_client.is_empty() {
            envoy.append_write(&to_client);
        }
        self.send_on(envoy, &to_server, last);
        self.give_back(to_client, to_server);
        if self.with(|engine| engine.close()).flatten().is_some() {
            // What was just written is not in the connection's buffer yet: closing now would lose it.
            self.wake_later(envoy);
        } else {
            self.finish(envoy);
        }
        Status::Continue
    }

    fn on_event(&self, envoy: Network, event: ConnectionEvent) {
        if event.is_closed() {
            // When `tcp_proxy` loses the server it closes the client's connection, and nothing can be written any more.
            let lost = !self.closed.replace(true) && event == ConnectionEvent::ClosedByEnvoy;
            self.with(|engine| {
                if lost {
                    engine.on_lost();
                }
                self.report(engine, envoy);
            });
            self.config.metrics.forget(self.in_flight.replace(0), envoy);
            *self.wakeup.borrow_mut() = None;
        }
    }

    /// Towards the server, Envoy's own watermarks hold `tcp_proxy` back; what we answer ourselves we must hold back.
    fn on_writable(&self, envoy: Network, writable: bool) {
        if self.is_ours() {
            self.with(|engine| engine.on_client_writable(now(), writable));
            // Envoy may call this from within a write.
            self.wake_later(envoy);
        }
    }

    fn on_wakeup(&self, envoy: Network) {
        if !self.is_ours() || self.closed.get() {
            return;
        }
        self.with(|engine| engine.on_time(now()));
        let (to_client, to_server, last) = self.outputs();
        if !to_client.is_empty() {
            envoy.inject_write(&to_client, false);
        }
        self.send_on(envoy, &to_server, last);
        self.give_back(to_client, to_server);
        self.finish(envoy);
    }

    fn on_panic(&self, envoy: Network) {
        self.closed.set(true);
        self.config.metrics.panicked(envoy);
        self.config.metrics.forget(self.in_flight.replace(0), envoy);
    }
}
