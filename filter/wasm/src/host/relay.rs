use core::{
    cell::{Cell, RefCell},
    time::Duration,
};
use std::{
    hash::{BuildHasher, RandomState},
    rc::Rc,
    sync::Arc,
};

use meltemi_engine::{
    config::ConfigError,
    names,
    relay::{Relay, RelayConfig, RelayShared},
};

use super::{
    destination,
    inbox::Inbox,
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
            inbox: Inbox::default(),
            pumping: Cell::new(false),
        })
    }

    fn on_tick(&self) -> bool {
        self.metrics.flush()
    }
}

struct RelayConnection {
    plugin: Rc<RelayPlugin>,
    context: Context,
    /// `None`: the connection is not ours and passes untouched.
    state: RefCell<Option<State>>,
    closed: Cell<bool>,
    inbox: Inbox,
    pumping: Cell<bool>,
}

struct State {
    engine: Relay,
    /// `tcp_proxy` knows its cluster.
    routed: bool,
    /// For the client, when the server's bytes next come.
    to_client: Vec<u8>,
    /// There is an error among them: a client that waits for it must not wait for ever.
    refused: bool,
    /// Bytes of the client that there is no room for and that had to make way for ours.
    held: Vec<u8>,
    client: Client,
    in_flight: InFlight,
    context: Context,
}

/// The client's side of the connection. Once it has ended, Envoy tells `tcp_proxy` so with whatever it is given next: that must
/// be the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Sends,
    Ended,
    /// `tcp_proxy` was given the last.
    Done,
}

/// What is to be done next.
enum Step {
    Nothing,
    /// What is in Envoy's buffer goes on as it is; `last`: nothing is to be done behind it.
    Pass {
        last: bool,
    },
    Send(Vec<u8>),
    Close,
}

/// Bytes for the client that may wait before it is not read any more.
const MAX_WAITING: usize = 1 << 20;

impl State {
    /// Lets the engine have what there is room for; whether what it then has for the server is the same as what lies in Envoy's
    /// buffer.
    fn take_in(&mut self, now: Duration, inbox: &Inbox) -> bool {
        let engine = &mut self.engine;
        let mut same = false;
        if self.client == Client::Ended {
            engine.take_all();
        }
        if engine.wants_client_data() && !self.held.is_empty() {
            engine.on_client_data(now, &core::mem::take(&mut self.held), false);
        }
        if engine.wants_client_data() {
            let nothing_yet = engine.to_server().is_empty();
            inbox.take(&mut |piece, is_all| {
                engine.on_client_data(now, piece, false);
                same = is_all && nothing_yet && engine.to_server() == piece;
            });
        }
        if self.client == Client::Ended && !inbox.waits() && self.held.is_empty() {
            engine.on_client_data(now, b"", true);
        }
        engine.on_time(now);
        same
    }

    fn report(&mut self, now: Duration, plugin: &RelayPlugin) {
        self.to_client.append(self.engine.to_client());
        self.engine.on_client_writable(now, self.to_client.len() < MAX_WAITING);
        let stats = self.engine.take_stats();
        self.refused |= stats.errors().iter().any(|errors| *errors > 0);
        plugin.metrics.report(self.context, &stats, || self.engine.take_duration(), &mut self.in_flight);
    }

    /// `same`: see [`take_in`](Self::take_in).
    fn next_step(&mut self, now: Duration, same: bool, inbox: &Inbox, plugin: &RelayPlugin) -> Step {
        let knew = self.routed;
        if let Some(cluster) = self.engine.cluster().filter(|_| !self.routed) {
            // Bytes that went on now would reach whatever cluster stands in the configuration.
            if !abi::set_cluster(cluster) {
                return self.give_up(now, plugin, "Envoy does not take its cluster");
            }
            self.routed = true;
            let (service, method) = self.engine.routed();
            abi::set_property(names::SERVICE_STATE, service);
            abi::set_property(names::METHOD_STATE, method);
        }
        let last = self.client == Client::Ended && self.engine.ends_sending();
        let sends = !self.engine.to_server().is_empty() && (self.client == Client::Sends || last);
        if self.routed && (sends || last) {
            // What goes to the server has to pass where these bytes are.
            if !inbox.make_way(&mut self.held) {
                return self.give_up(now, plugin, "too much that there is no room for");
            }
            if last {
                self.client = Client::Done;
            }
            // Unless there is more by now.
            if same && self.engine.to_server().len() == inbox.size() {
                self.engine.to_server().clear();
                let more = self.client != Client::Sends || self.refused || self.engine.close().is_some();
                return Step::Pass { last: knew && !more };
            }
            return Step::Send(core::mem::take(self.engine.to_server()));
        }
        if self.refused && !self.to_client.is_empty() && !self.engine.awaits_server() {
            return self.give_up(now, plugin, "an error that cannot be written before the server's bytes");
        }
        if self.engine.close().is_some() && self.to_client.is_empty() { Step::Close } else { Step::Nothing }
    }

    /// The connection is closed for want of another way.
    fn give_up(&mut self, now: Duration, plugin: &RelayPlugin, reason: &str) -> Step {
        abi::log_error(&format!("meltemi: connection closed: {reason}"));
        self.engine.on_lost();
        plugin.metrics.unanswered(self.context);
        self.report(now, plugin);
        Step::Close
    }
}

impl RelayConnection {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> Option<T> {
        self.state.borrow_mut().as_mut().map(work)
    }

    fn is_ours(&self) -> bool {
        self.state.borrow().is_some()
    }

    /// Gives `tcp_proxy` what it is to send, until there is no more, or closes. What passes as it is it gets when the hook
    /// ends, if this is one of its bytes (`reads`).
    fn pump(&self, reads: bool) -> Action {
        if self.pumping.replace(true) {
            return Action::Pause;
        }
        let mut action = Action::Pause;
        let now = now();
        while !self.closed.get() {
            let step = self.with(|state| {
                let same = state.take_in(now, &self.inbox);
                state.report(now, &self.plugin);
                state.next_step(now, same, &self.inbox, &self.plugin)
            });
            match step {
                None | Some(Step::Nothing) => break,
                Some(Step::Pass { last: true }) if reads => {
                    action = Action::Continue;
                    self.inbox.leave();
                    break;
                }
                Some(Step::Pass { .. }) => self.inbox.resume(),
                Some(Step::Send(bytes)) => {
                    self.inbox.put(&bytes);
                    self.inbox.resume();
                }
                Some(Step::Close) => {
                    self.closed.set(true);
                    abi::close();
                }
            }
        }
        self.inbox.clear();
        self.pumping.set(false);
        action
    }
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
            refused: false,
            held: Vec::new(),
            client: Client::Sends,
            in_flight: InFlight::default(),
            context: self.context,
        });
        // `tcp_proxy` looks for its cluster when it learns of the connection: with the first bytes that we let through.
        Action::Pause
    }

    fn on_read(&self, size: usize, end: bool) -> Action {
        if !self.is_ours() {
            return Action::Continue;
        }
        self.inbox.arrive(size);
        self.with(|state| {
            if end && state.client == Client::Sends {
                state.client = Client::Ended;
            }
        });
        self.pump(true)
    }

    fn on_write(&self, size: usize, end: bool) -> Action {
        if !self.is_ours() {
            return Action::Continue;
        }
        self.with(|state| {
            let now = now();
            let engine = &mut state.engine;
            let mut same = false;
            let nothing_yet = state.to_client.is_empty();
            abi::read(Buffer::Write, size, &mut |piece| {
                engine.on_server_data(now, piece, false);
                same = nothing_yet && engine.to_client() == piece;
            });
            if end {
                engine.on_server_data(now, b"", true);
            }
            engine.on_time(now);
            state.report(now, &self.plugin);
            // Else it is there already.
            if !same || state.to_client.len() != size {
                abi::write(Buffer::Write, &state.to_client);
            }
            state.to_client.clear();
            state.refused = false;
            state.engine.on_client_writable(now, true);
        });
        // What was just written is not in the connection's buffer yet, and `tcp_proxy` is at work: what follows comes later.
        if !self.pumping.get() && !self.closed.get() {
            let more = self.with(|state| {
                let waits = self.inbox.waits() || !state.held.is_empty();
                let engine = &mut state.engine;
                engine.close().is_some() || !engine.to_server().is_empty() || (waits && engine.wants_client_data())
            });
            if more == Some(true) {
                self.context.wake_later();
            }
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
            state.report(now(), &self.plugin);
            self.plugin.metrics.forget(self.context, &mut state.in_flight);
        });
    }

    fn on_wakeup(&self) {
        self.pump(false);
    }
}
