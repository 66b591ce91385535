//! Envoy's functions, played by a few variables, for tests.

use core::{ptr, slice};
use std::{cell::RefCell, collections::BTreeMap};

/// What Envoy knows.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    /// By the number of the buffer.
    pub(crate) buffers: BTreeMap<u32, Vec<u8>>,
    pub(crate) properties: BTreeMap<String, Vec<u8>>,
    /// By name.
    pub(crate) metrics: BTreeMap<String, i64>,
    names: Vec<String>,
    pub(crate) log: Vec<String>,
    /// Milliseconds; 0: none.
    pub(crate) tick: u32,
    pub(crate) context: u32,
    /// What went on to the filters behind us.
    pub(crate) resumed: Vec<Vec<u8>>,
    pub(crate) closed: bool,
    /// How often a buffer was written.
    pub(crate) writes: usize,
    /// The cluster that `tcp_proxy` was told.
    pub(crate) cluster: Option<Vec<u8>>,
    pub(crate) refuses_cluster: bool,
    /// Every call fails.
    pub(crate) broken: bool,
}

thread_local! {
    static ENVOY: RefCell<Fake> = RefCell::default();
}

/// Looks at what Envoy knows, or changes it.
pub(crate) fn envoy<T>(work: impl FnOnce(&mut Fake) -> T) -> T {
    ENVOY.with_borrow_mut(work)
}

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const INTERNAL_FAILURE: u32 = 10;

fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    // SAFETY: the caller's bytes, for the time of its call.
    unsafe { slice::from_raw_parts(data, size) }
}

fn text(data: *const u8, size: usize) -> String {
    String::from_utf8_lossy(bytes(data, size)).into_owned()
}

/// Gives bytes as Envoy does: in memory of the plugin, which it is then to free.
unsafe fn give(value: &[u8], data: *mut *mut u8, size: *mut usize) {
    let memory = Box::into_raw(value.to_vec().into_boxed_slice());
    // SAFETY: both point to memory of the caller.
    unsafe {
        *size = value.len();
        *data = if value.is_empty() { ptr::null_mut() } else { memory.cast() };
    }
}

fn status(work: impl FnOnce(&mut Fake) -> u32) -> u32 {
    envoy(|fake| if fake.broken { INTERNAL_FAILURE } else { work(fake) })
}

pub(super) unsafe fn proxy_log(_: u32, message: *const u8, size: usize) -> u32 {
    status(|fake| {
        fake.log.push(text(message, size));
        OK
    })
}

pub(super) unsafe fn proxy_get_buffer_bytes(
    buffer: u32,
    start: usize,
    most: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    status(|fake| {
        let Some(all) = fake.buffers.get(&buffer) else { return NOT_FOUND };
        let end = start.saturating_add(most).min(all.len());
        let Some(piece) = all.get(start..end) else { return BAD_ARGUMENT };
        // SAFETY: the caller's pointers.
        unsafe { give(piece, data, size) };
        OK
    })
}

pub(super) unsafe fn proxy_set_buffer_bytes(
    buffer: u32,
    start: usize,
    length: usize,
    data: *const u8,
    size: usize,
) -> u32 {
    status(|fake| {
        let Some(all) = fake.buffers.get_mut(&buffer).filter(|all| start == 0 && length >= all.len()) else {
            return BAD_ARGUMENT;
        };
        *all = bytes(data, size).to_vec();
        fake.writes = fake.writes.saturating_add(1);
        OK
    })
}

pub(super) unsafe fn proxy_get_property(
    path: *const u8,
    path_size: usize,
    value: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    status(|fake| match fake.properties.get(&text(path, path_size)) {
        Some(found) => {
            // SAFETY: the caller's pointers.
            unsafe { give(found, value, size) };
            OK
        }
        None => NOT_FOUND,
    })
}

pub(super) unsafe fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, size: usize) -> u32 {
    status(|fake| {
        fake.properties.insert(text(path, path_size), bytes(value, size).to_vec());
        OK
    })
}

pub(super) unsafe fn proxy_call_foreign_function(
    name: *const u8,
    name_size: usize,
    arguments: *const u8,
    arguments_size: usize,
    _: *mut *mut u8,
    _: *mut usize,
) -> u32 {
    status(|fake| {
        assert_eq!(text(name, name_size), "set_envoy_filter_state");
        if fake.refuses_cluster {
            return NOT_FOUND;
        }
        fake.cluster = Some(bytes(arguments, arguments_size).to_vec());
        OK
    })
}

pub(super) unsafe fn proxy_define_metric(_: u32, name: *const u8, size: usize, metric: *mut u32) -> u32 {
    status(|fake| {
        let name = text(name, size);
        fake.metrics.entry(name.clone()).or_default();
        fake.names.push(name);
        // SAFETY: the caller's pointer.
        unsafe { *metric = u32::try_from(fake.names.len()).unwrap_or(0) };
        OK
    })
}

pub(super) unsafe fn proxy_increment_metric(metric: u32, by: i64) -> u32 {
    status(|fake| {
        let name = usize::try_from(metric).ok().and_then(|number| fake.names.get(number.wrapping_sub(1)));
        let Some(value) = name.and_then(|name| fake.metrics.get_mut(name)) else { return NOT_FOUND };
        *value = value.saturating_add(by);
        OK
    })
}

pub(super) unsafe fn proxy_record_metric(metric: u32, _: u64) -> u32 {
    // SAFETY: no memory is shared.
    unsafe { proxy_increment_metric(metric, 1) }
}

pub(super) unsafe fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
    status(|fake| {
        fake.tick = period;
        OK
    })
}

pub(super) unsafe fn proxy_set_effective_context(context: u32) -> u32 {
    status(|fake| {
        fake.context = context;
        OK
    })
}

pub(super) unsafe fn proxy_continue_stream(_: u32) -> u32 {
    status(|fake| {
        let bytes = fake.buffers.get_mut(&2).map(core::mem::take).unwrap_or_default();
        fake.resumed.push(bytes);
        OK
    })
}

pub(super) unsafe fn proxy_close_stream(_: u32) -> u32 {
    status(|fake| {
        fake.closed = true;
        OK
    })
}
