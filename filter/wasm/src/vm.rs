//! The plugins and connections of one VM. Hooks may be entered again while Envoy is called from one of them: nothing here
//! is borrowed meanwhile.

use core::cell::{Cell, RefCell};
use std::{collections::HashMap, rc::Rc};

use meltemi_core::{Codec, CodecEntry};
use meltemi_engine::config::{CodecConfig, ConfigError};

use crate::{abi, few::Few, host};

/// What the filters behind us do after a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    /// They go on with what is in the buffer.
    Continue = 0,
    /// They are not called.
    Pause = 1,
}

/// Makes the filters of one configuration.
pub(crate) trait Plugin {
    /// A filter for a new connection.
    fn accept(self: Rc<Self>, context: Context) -> Rc<dyn Connection>;

    /// A while after [`Context::tick_later`], and before the plugin goes: gives Envoy what was put by; whether that was anything.
    fn on_tick(&self) -> bool {
        false
    }
}

/// A filter on one connection.
pub(crate) trait Connection {
    fn on_new_connection(&self) -> Action;
    /// So many bytes of the client are in the read buffer.
    fn on_read(&self, size: usize, end: bool) -> Action;
    /// The filters behind us write so many bytes.
    fn on_write(&self, size: usize, end: bool) -> Action;
    /// The connection is closed; `by_us`: by this Envoy.
    fn on_closed(&self, by_us: bool);
    /// A while after [`Context::wake_later`].
    fn on_wakeup(&self);
}

/// The numbers by which Envoy knows a connection and its plugin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) number: u32,
    pub(crate) root: u32,
}

/// Milliseconds until what cannot be done now is done: as soon as Envoy's timers can.
const SOON: u32 = 1;

/// Milliseconds that what can wait is put by: long enough for many calls of a busy worker, too short for anybody to see.
const LATER: u32 = 10;

/// The ticks of a plugin.
struct Ticks {
    /// Milliseconds between two of them.
    period: u32,
    /// Connections that want to be woken.
    waiting: Vec<u32>,
}

#[derive(Default)]
struct Vm {
    codecs: Cell<&'static [CodecEntry]>,
    plugins: RefCell<Few<Rc<dyn Plugin>>>,
    connections: RefCell<HashMap<u32, Rc<dyn Connection>>>,
    /// Of the plugins that tick.
    ticks: RefCell<Few<Ticks>>,
}

thread_local! {
    static VM: Vm = Vm::default();
}

pub(crate) fn register(codecs: &'static [CodecEntry]) {
    VM.with(|vm| vm.codecs.set(codecs));
}

/// Makes the codec that a configuration names.
pub(crate) fn build(config: &CodecConfig) -> Result<Box<dyn Codec>, ConfigError> {
    config.build(VM.with(|vm| vm.codecs.get()))
}

fn plugin(root: u32) -> Option<Rc<dyn Plugin>> {
    VM.with(|vm| vm.plugins.borrow().get(root).cloned())
}

/// A plugin's root context, or a connection of one.
pub(crate) fn on_create(context: u32, root: u32) {
    if root == 0 {
        return;
    }
    if let Some(plugin) = plugin(root) {
        let connection = plugin.accept(Context { number: context, root });
        VM.with(|vm| vm.connections.borrow_mut().insert(context, connection));
    }
}

/// Reads the configuration of a plugin; `false` if it is wrong, which the log says.
pub(crate) fn on_configure(root: u32, size: usize) -> bool {
    match host::plugin(&abi::root_id(), &abi::configuration(size)) {
        Ok(plugin) => {
            VM.with(|vm| vm.plugins.borrow_mut().insert(root, plugin));
            true
        }
        Err(ConfigError(reason)) => {
            abi::log_error(&format!("meltemi: {reason}"));
            false
        }
    }
}

/// Lets a connection do something. Of one that is not known nothing passes: its bytes are not what the filters behind take
/// them for.
pub(crate) fn with(context: u32, work: impl FnOnce(&dyn Connection) -> Action) -> Action {
    connection(context).map_or(Action::Pause, |connection| work(connection.as_ref()))
}

fn connection(context: u32) -> Option<Rc<dyn Connection>> {
    VM.with(|vm| vm.connections.borrow().get(&context).cloned())
}

/// A connection begins; one whose plugin is not configured ends at once.
pub(crate) fn on_new_connection(context: u32) -> Action {
    if connection(context).is_none() {
        abi::log_error("meltemi: a connection before the configuration");
        abi::close();
    }
    with(context, |connection| connection.on_new_connection())
}

/// A connection is closed; `by_us`: by this Envoy.
pub(crate) fn on_closed(context: u32, by_us: bool) {
    if let Some(connection) = connection(context) {
        connection.on_closed(by_us);
    }
}

/// A connection or a plugin is not needed any more.
pub(crate) fn on_done(context: u32) {
    if let Some(plugin) = plugin(context) {
        plugin.on_tick();
    }
}

pub(crate) fn on_delete(context: u32) {
    let gone = VM.with(|vm| {
        vm.plugins.borrow_mut().remove(context);
        vm.ticks.borrow_mut().remove(context);
        vm.connections.borrow_mut().remove(&context)
    });
    // Not while the map is borrowed.
    drop(gone);
}

/// Wakes those that want it. A plugin that was busy ticks on, so that it need not be told again.
pub(crate) fn on_tick(root: u32) {
    let waiting = VM.with(|vm| vm.ticks.borrow_mut().get_mut(root).map(|ticks| core::mem::take(&mut ticks.waiting)));
    let waiting = waiting.unwrap_or_default();
    for context in &waiting {
        if let Some(connection) = connection(*context).filter(|_| abi::set_context(*context)) {
            connection.on_wakeup();
        }
    }
    if !waiting.is_empty() {
        abi::set_context(root);
    }
    let had_work = plugin(root).is_some_and(|plugin| plugin.on_tick());
    let stops = VM.with(|vm| {
        let mut all = vm.ticks.borrow_mut();
        let stops = !had_work && all.get(root).is_none_or(|ticks| ticks.waiting.is_empty());
        if stops {
            all.remove(root);
        }
        stops
    });
    if stops {
        abi::set_tick(0);
    }
}

impl Context {
    /// Comes back to what cannot be done while Envoy is in the middle of something.
    pub(crate) fn wake_later(self) {
        self.tick(SOON, |ticks| {
            if !ticks.waiting.contains(&self.number) {
                ticks.waiting.push(self.number);
            }
        });
    }

    /// Has the plugin give Envoy what it put by.
    pub(crate) fn tick_later(self) {
        self.tick(LATER, |_| {});
    }

    fn tick(self, period: u32, change: impl FnOnce(&mut Ticks)) {
        let sooner = VM.with(|vm| {
            let mut all = vm.ticks.borrow_mut();
            let mut ticks = all.remove(self.root).unwrap_or(Ticks { period: u32::MAX, waiting: Vec::new() });
            change(&mut ticks);
            let sooner = period < ticks.period;
            ticks.period = ticks.period.min(period);
            all.insert(self.root, ticks);
            sooner
        });
        if sooner {
            abi::set_tick(period);
        }
    }
}
