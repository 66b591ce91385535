//! Network filters.

use core::{cell::Cell, ffi::c_void, net::IpAddr};
use std::{rc::Rc, sync::Arc};

use smallvec::SmallVec;

use super::{
    Level, callbacks,
    guard::guarded,
    log,
    types::{Buffer, ConnectionEvent, EnvoyPtr, ModulePtr, Status},
};

/// Makes the filters of one configuration.
pub(crate) trait Connections: Send + Sync {
    /// A filter for a new connection.
    fn accept(self: Arc<Self>) -> Rc<dyn Connection>;
}

/// A network filter on one connection. Hooks may be entered again from within calls to [`Network`].
pub(crate) trait Connection {
    fn on_new_connection(&self, envoy: Network) -> Status;
    fn on_read(&self, envoy: Network, end: bool) -> Status;
    fn on_write(&self, envoy: Network, end: bool) -> Status;
    fn on_event(&self, envoy: Network, event: ConnectionEvent);
    fn on_writable(&self, envoy: Network, writable: bool);
    fn on_wakeup(&self, envoy: Network);
    /// A hook has panicked, and been logged: no other will be called.
    fn on_panic(&self, envoy: Network);
}

/// Envoy's side of a network filter, for the time of a hook.
#[derive(Clone, Copy)]
pub(crate) struct Network(EnvoyPtr);

/// Number of a metric.
#[derive(Clone, Copy)]
pub(crate) struct Metric(usize);

impl Network {
    /// Lends the bytes read and not yet drained, piece by piece. `visit` must not call Envoy.
    pub(crate) fn read_buffer(self, visit: &mut dyn FnMut(&[u8])) -> usize {
        // SAFETY: valid during the hook.
        lend(unsafe { callbacks::network_read_chunks_size(self.0) }, visit, |out| {
            // SAFETY: `out` has room for as many pieces as Envoy said.
            unsafe { callbacks::network_read_chunks(self.0, out) }
        })
    }

    pub(crate) fn drain_read(self, length: usize) {
        // SAFETY: valid during the hook.
        unsafe { callbacks::network_drain_read(self.0, length) };
    }

    /// Puts bytes where the next filter will read them; only within `on_read`.
    pub(crate) fn append_read(self, data: &[u8]) {
        // SAFETY: Envoy copies the bytes.
        unsafe { callbacks::network_append_read(self.0, Buffer::of(data)) };
    }

    /// As [`read_buffer`](Self::read_buffer) for what is to be written; only within `on_write`.
    pub(crate) fn write_buffer(self, visit: &mut dyn FnMut(&[u8])) -> usize {
        // SAFETY: valid during the hook.
        lend(unsafe { callbacks::network_write_chunks_size(self.0) }, visit, |out| {
            // SAFETY: `out` has room for as many pieces as Envoy said.
            unsafe { callbacks::network_write_chunks(self.0, out) }
        })
    }

    pub(crate) fn drain_write(self, length: usize) {
        // SAFETY: valid during the hook.
        unsafe { callbacks::network_drain_write(self.0, length) };
    }

    pub(crate) fn append_write(self, data: &[u8]) {
        // SAFETY: Envoy copies the bytes.
        unsafe { callbacks::network_append_write(self.0, Buffer::of(data)) };
    }

    /// Gives bytes to the next filter, now.
    pub(crate) fn inject_read(self, data: &[u8], end: bool) {
        // SAFETY: Envoy copies the bytes; hooks may be entered again.
        unsafe { callbacks::network_inject_read(self.0, Buffer::of(data), end) };
    }

    /// Gives bytes to the client, past the filters behind us.
    pub(crate) fn inject_write(self, data: &[u8], end: bool) {
        // SAFETY: Envoy copies the bytes.
        unsafe { callbacks::network_inject_write(self.0, Buffer::of(data), end) };
    }

    /// Closes the connection; `flush`: after everything written has gone out.
    pub(crate) fn close(self, flush: bool) {
        // SAFETY: hooks may be entered again.
        unsafe { callbacks::network_close(self.0, u32::from(!flush)) };
    }

    pub(crate) fn read_disable(self, disable: bool) {
        // SAFETY: valid during the hook.
        unsafe { callbacks::network_read_disable(self.0, disable) };
    }

    pub(crate) fn enable_half_close(self) {
        // SAFETY: valid during the hook.
        unsafe { callbacks::network_enable_half_close(self.0, true) };
    }

    /// Where the client wanted to go; `None` for addresses that are no IP.
    pub(crate) fn local_address(self) -> Option<(IpAddr, u16)> {
        local_address(|address, port| {
            // SAFETY: both point to memory of the caller.
            unsafe { callbacks::network_local_address(self.0, address, port) }
        })
    }

    pub(crate) fn has_filter_state(self, key: &str) -> bool {
        let mut value = Buffer::EMPTY;
        // SAFETY: both point to memory of the caller; the value, which Envoy owns, is not read.
        unsafe { callbacks::network_get_state_bytes(self.0, Buffer::of(key.as_bytes()), &raw mut value) }
    }

    pub(crate) fn set_filter_state(self, key: &str, value: &[u8]) {
        // SAFETY: Envoy copies the bytes.
        unsafe { callbacks::network_set_state_bytes(self.0, Buffer::of(key.as_bytes()), Buffer::of(value)) };
    }

    /// For keys that Envoy itself reads, such as `envoy.tcp_proxy.cluster`; `false` if it does not take the value.
    pub(crate) fn set_typed_filter_state(self, key: &str, value: &[u8]) -> bool {
        // SAFETY: Envoy copies the bytes.
        unsafe { callbacks::network_set_state_typed(self.0, Buffer::of(key.as_bytes()), Buffer::of(value)) }
    }

    pub(crate) fn count(self, counter: Metric, by: u64) {
        if by > 0 {
            // SAFETY: valid during the hook.
            unsafe { callbacks::network_increment_counter(self.0, counter.0, by) };
        }
    }

    pub(crate) fn move_gauge(self, gauge: Metric, by: i64) {
        // SAFETY: valid during the hook.
        unsafe {
            if by > 0 {
                callbacks::network_increment_gauge(self.0, gauge.0, by.unsigned_abs());
            } else if by < 0 {
                callbacks::network_decrement_gauge(self.0, gauge.0, by.unsigned_abs());
            }
        }
    }

    pub(crate) fn record(self, histogram: Metric, value: u64) {
        // SAFETY: valid during the hook.
        unsafe { callbacks::network_record_histogram(self.0, histogram.0, value) };
    }
}

fn lend(count: usize, visit: &mut dyn FnMut(&[u8]), fill: impl FnOnce(*mut Buffer) -> bool) -> usize {
    let mut pieces: SmallVec<[Buffer; 16]> = SmallVec::from_elem(Buffer::EMPTY, count);
    if count == 0 || !fill(pieces.as_mut_ptr()) {
        return 0;
    }
    pieces.iter().fold(0, |sum: usize, piece| {
        // SAFETY: Envoy's pieces stay until the buffer is changed, which `visit` does not.
        let bytes = unsafe { piece.bytes() };
        visit(bytes);
        sum.saturating_add(bytes.len())
    })
}

pub(super) fn local_address(read: impl FnOnce(*mut Buffer, *mut u32) -> bool) -> Option<(IpAddr, u16)> {
    let (mut address, mut port) = (Buffer::EMPTY, 0u32);
    if !read(&raw mut address, &raw mut port) {
        return None;
    }
    // SAFETY: Envoy's text lives as long as the connection.
    let text = core::str::from_utf8(unsafe { address.bytes() }).ok()?;
    Some((text.parse().ok()?, u16::try_from(port).ok()?))
}

/// Wakes a filter up from its own thread or another.
pub(crate) struct Wakeup(*mut c_void);

// SAFETY: Envoy's scheduler posts to the filter's thread from any thread, and forgets filters that are gone.
unsafe impl Send for Wakeup {}
// SAFETY: as above.
unsafe impl Sync for Wakeup {}

impl Wakeup {
    pub(crate) fn new(envoy: Network) -> Option<Self> {
        // SAFETY: valid during the hook.
        let scheduler = unsafe { callbacks::network_scheduler_new(envoy.0) };
        (!scheduler.is_null()).then_some(Self(scheduler))
    }

    pub(crate) fn wake(&self) {
        // SAFETY: made by `new`, not yet deleted.
        unsafe { callbacks::network_scheduler_commit(self.0, 0) };
    }
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        // SAFETY: made by `new`, deleted once.
        unsafe { callbacks::network_scheduler_delete(self.0) };
    }
}

/// Where a configuration defines its metrics.
#[derive(Clone, Copy)]
pub(crate) struct ConfigScope(EnvoyPtr);

type Define = unsafe extern "C" fn(EnvoyPtr, Buffer, *mut usize) -> u32;

impl ConfigScope {
    pub(crate) fn counter(self, name: &str) -> Metric {
        self.define(callbacks::network_define_counter, name)
    }

    pub(crate) fn gauge(self, name: &str) -> Metric {
        self.define(callbacks::network_define_gauge, name)
    }

    pub(crate) fn histogram(self, name: &str) -> Metric {
        self.define(callbacks::network_define_histogram, name)
    }

    fn define(self, define: Define, name: &str) -> Metric {
        // An id that Envoy does not know is ignored by it.
        let mut id = usize::MAX;
        // SAFETY: valid while the configuration is made; Envoy copies the name.
        unsafe { define(self.0, Buffer::of(name.as_bytes()), &raw mut id) };
        Metric(id)
    }
}

/// What stands behind Envoy's pointer to a filter.
struct Slot {
    filter: Rc<dyn Connection>,
    /// A hook has panicked: the filter is not to be called any more.
    broken: Rc<Cell<bool>>,
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_config_new(
    config: EnvoyPtr,
    name: Buffer,
    json: Buffer,
) -> ModulePtr {
    // SAFETY: Envoy lends both for the call.
    let (name, json) = unsafe { (name.bytes(), json.bytes()) };
    let made = guarded("network_filter_config_new", || crate::host::network(name, json, ConfigScope(config)));
    match made {
        Some(Ok(connections)) => Box::into_raw(Box::new(connections)).cast_const().cast(),
        Some(Err(error)) => {
            log(Level::Error, &format!("meltemi: filter `{}`: {error}", String::from_utf8_lossy(name)));
            core::ptr::null()
        }
        None => core::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_config_destroy(config: ModulePtr) {
    // SAFETY: made by `config_new`, destroyed once.
    drop(unsafe { Box::from_raw(config.cast_mut().cast::<Arc<dyn Connections>>()) });
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_new(config: ModulePtr, _: EnvoyPtr) -> ModulePtr {
    // SAFETY: made by `config_new`, lives longer than its filters.
    let config = unsafe { &*config.cast::<Arc<dyn Connections>>() };
    match guarded("network_filter_new", || config.clone().accept()) {
        Some(filter) => Box::into_raw(Box::new(Slot { filter, broken: Rc::default() })).cast_const().cast(),
        None => core::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_destroy(filter: ModulePtr) {
    if !filter.is_null() {
        // SAFETY: made by `filter_new`, destroyed once.
        drop(unsafe { Box::from_raw(filter.cast_mut().cast::<Slot>()) });
    }
}

/// Calls a hook of a filter. After a panic the connection is closed and the filter left alone.
fn call<T>(envoy: EnvoyPtr, filter: ModulePtr, hook: &str, default: T, body: impl FnOnce(&dyn Connection) -> T) -> T {
    if filter.is_null() {
        return default;
    }
    let (filter, broken) = {
        // SAFETY: made by `filter_new`, not yet destroyed when the hook begins.
        let slot = unsafe { &*filter.cast::<Slot>() };
        (slot.filter.clone(), slot.broken.clone())
    };
    if broken.get() {
        return default;
    }
    match guarded(hook, || body(filter.as_ref())) {
        Some(result) => result,
        None => {
            broken.set(true);
            guarded("on_panic", || filter.on_panic(Network(envoy)));
            Network(envoy).close(false);
            default
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_new_connection(envoy: EnvoyPtr, filter: ModulePtr) -> u32 {
    call(envoy, filter, "new_connection", Status::Stop, |f| f.on_new_connection(Network(envoy))) as u32
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_read(
    envoy: EnvoyPtr,
    filter: ModulePtr,
    _: usize,
    end: bool,
) -> u32 {
    call(envoy, filter, "read", Status::Stop, |f| f.on_read(Network(envoy), end)) as u32
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_write(
    envoy: EnvoyPtr,
    filter: ModulePtr,
    _: usize,
    end: bool,
) -> u32 {
    call(envoy, filter, "write", Status::Stop, |f| f.on_write(Network(envoy), end)) as u32
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_event(envoy: EnvoyPtr, filter: ModulePtr, event: u32) {
    let event = match event {
        0 => ConnectionEvent::ClosedByClient,
        1 => ConnectionEvent::ClosedByEnvoy,
        _ => ConnectionEvent::Other,
    };
    call(envoy, filter, "event", (), |f| f.on_event(Network(envoy), event));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_scheduled(envoy: EnvoyPtr, filter: ModulePtr, _: u64) {
    call(envoy, filter, "scheduled", (), |f| f.on_wakeup(Network(envoy)));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_above_write_buffer_high_watermark(
    envoy: EnvoyPtr,
    filter: ModulePtr,
) {
    call(envoy, filter, "above_watermark", (), |f| f.on_writable(Network(envoy), false));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_network_filter_below_write_buffer_low_watermark(
    envoy: EnvoyPtr,
    filter: ModulePtr,
) {
    call(envoy, filter, "below_watermark", (), |f| f.on_writable(Network(envoy), true));
}
