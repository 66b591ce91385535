use core::cell::{Cell, RefCell};
use std::{
    hash::{BuildHasher, RandomState},
    rc::Rc,
    sync::Arc,
};

use meltemi_engine::{
    config::ConfigError,
    relay::{Relay, RelayConfig, RelayShared},
};

use super::{
    METHOD_KEY, SERVICE_KEY, destination,
    metrics::{InFlight, Metrics},
    now,
};
use crate::{
    abi::{self, Buffer},
    vm::{Action, Connection, Context, Plugin, build},
};

/// Plugin `relay`, in front of a `tcp_proxy` that connects when data comes (`upstream_connect_mode: ON_DOWNSTREAM_DATA`).
///
/// Bytes for the client can be written only while the server's are: an answer of ours waits for the server's next one. If
/// none is to come, the connection is closed instead, and counted.
pub(super) struct RelayPlugin {
    shared: Arc<RelayShared>,
    metrics: Metrics,
    random: RandomState,
}

impl RelayPlugin {
    pub(super) fn new(config: &RelayConfig) -> Result<Self, ConfigError> {
        let shared = RelayShared::new(config, build(&config.codec)?)?;
        Ok(Self { metrics: Metrics::new(shared.protocol()), shared: Arc::new(shared), random: RandomState::new() })
    }
}

impl Plugin for RelayPlugin {
    fn accept(self: Rc<Self>, context: Context) -> Rc<dyn Connection> {
        Rc::new(RelayConnection {
            plugin: self,
            context,
            state: RefCell::new(None),
            closed: Cell::new(false),
            left: Cell::new(0),
            resuming: Cell::new(false),
        })
    }
}

struct RelayConnection {
    plugin: Rc<RelayPlugin>,
    context: Context,
    /// `None`: the connection is not ours and passes untouched.
    state: RefCell<Option<State>>,
    closed: Cell<bool>,
    /// Bytes of the client that there is no room for are left in Envoy's buffer: when that is full, Envoy reads no more.
    left: Cell<usize>,
    /// `tcp_proxy` is being given bytes.
    resuming: Cell<bool>,
}

struct State {
    engine: Relay,
    /// `tcp_proxy` knows its cluster.
    routed: bool,
    /// For the client, when the server's bytes next come.
    to_client: Vec<u8>,
    in_flight: InFlight,
}

impl RelayConnection {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.state.borrow_mut().as_mut().map(work)
    }

    fn is_ours(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// Gives `tcp_proxy` what it is to send, or closes.
    fn send_on(&self, end: bool) {
        let Some(step) = self.with(|state| self.next_step(state, end)) else { return };
        match step {
            Step::Nothing => {}
            Step::Send(bytes) => {
                abi::write(Buffer::Read, &bytes);
                self.resuming.set(true);
                abi::resume();
                self.resuming.set(false);
            }
            Step::Close => {
                self.closed.set(true);
                abi::close();
            }
        }
    }

    fn next_step(&self, state: &mut State, end: bool) -> Step {
        let engine = &mut state.engine;
        let unanswerable = !state.to_client.is_empty() && !engine.awaits_server();
        if unanswerable {
            self.plugin.metrics.unanswered();
        }
        if unanswerable || (engine.close().is_some() && state.to_client.is_empty()) {
            return Step::Close;
        }
        if let Some(cluster) = engine.cluster().filter(|_| !state.routed) {
            // Bytes that went on now would reach whatever cluster stands in the configuration.
            if !abi::set_cluster(cluster) {
                return Step::Close;
            }
            state.routed = true;
            let (service, method) = engine.routed();
            abi::set_property(SERVICE_KEY, service);
            abi::set_property(METHOD_KEY, method);
        }
        let ends = end && engine.ends_sending();
        if !state.routed || (engine.to_server().is_empty() && !ends) {
            return Step::Nothing;
        }
        // What there is no room for would pass undecoded: it comes first.
        if self.left.get() > 0 {
            return Step::Nothing;
        }
        Step::Send(core::mem::take(engine.to_server()))
    }

    fn report(&self, state: &mut State) {
        let engine = &mut state.engine;
        state.to_client.append(engine.to_client());
        let stats = engine.take_stats();
        self.plugin.metrics.report(&stats, || engine.take_duration(), &mut state.in_flight);
    }
}

/// What is to be done next.
enum Step {
    Nothing,
    Send(Vec<u8>),
    Close,
}

impl Connection for RelayConnection {
    fn on_new_connection(&self) -> Action {
        let plugin = &self.plugin;
        if !plugin.shared.is_ours(destination()) {
            return Action::Continue;
        }
        // A fresh number each time: `RandomState` has random keys, and the context's number is its own.
        let random = plugin.random.hash_one((self.context.number, now()));
        *self.state.borrow_mut() = Some(State {
            engine: Relay::new(plugin.shared.clone(), random),
            routed: false,
            to_client: Vec::new(),
            in_flight: InFlight::default(),
        });
        // `tcp_proxy` looks for its cluster when it learns of the connection: with the first bytes that we let through.
        Action::Pause
    }

    fn on_read(&self, size: usize, end: bool) -> Action {
        if !self.is_ours() {
            return Action::Continue;
        }
        self.left.set(size);
        self.with(|state| {
            if state.engine.wants_client_data() {
                let now = now();
                abi::read(Buffer::Read, self.left.replace(0), &mut |piece| {
                    state.engine.on_client_data(now, piece, false);
                });
                abi::write(Buffer::Read, b"");
                if end {
                    state.engine.on_client_data(now, b"", true);
                }
                state.engine.on_time(now);
            }
            self.report(state);
        });
        self.send_on(end);
        Action::Pause
    }

    fn on_write(&self, size: usize, end: bool) -> Action {
        if !self.is_ours() {
            return Action::Continue;
        }
        let more = self.with(|state| {
            let now = now();
            abi::read(Buffer::Write, size, &mut |piece| state.engine.on_server_data(now, piece, false));
            if end {
                state.engine.on_server_data(now, b"", true);
            }
            state.engine.on_time(now);
            self.report(state);
            abi::write(Buffer::Write, &state.to_client);
            state.to_client.clear();
            let engine = &mut state.engine;
            // What was just written is not in the connection's buffer yet: closing now would lose it.
            engine.close().is_some()
                || !engine.to_server().is_empty()
                || (self.left.get() > 0 && engine.wants_client_data())
        });
        if more == Some(true) && !self.closed.get() {
            self.context.wake_later();
        }
        Action::Continue
    }

    fn on_closed(&self, by_us: bool) {
        let lost = by_us && !self.closed.replace(true);
        self.with(|state| {
            // When `tcp_proxy` loses the server it closes the client's connection, and nothing can be written any more.
            if lost {
                state.engine.on_lost();
            }
            self.report(state);
            self.plugin.metrics.forget(&mut state.in_flight);
        });
    }

    fn on_wakeup(&self) {
        if self.closed.get() || self.resuming.get() {
            return;
        }
        match self.left.get() {
            0 => self.send_on(false),
            left => {
                self.on_read(left, false);
            }
        }
    }
}
