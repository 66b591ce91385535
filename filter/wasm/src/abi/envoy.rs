//! Envoy's functions, made safe. What fails there is no reason to end a VM: callers get `None`, `false` or nothing.

use core::ptr;

use super::sys;

/// A buffer of Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// What was read from the client, and the filters behind us have not got yet.
    Read = 2,
    /// What the filters behind us write to the client.
    Write = 3,
    /// The plugin's configuration.
    Configuration = 7,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

/// Number of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric(u32);

const OK: u32 = 0;

/// The stream between client and filters.
const DOWNSTREAM: u32 = 2;

/// Bytes that one call asks Envoy for: more comes in pieces, so that no single piece of memory is too large to be had.
const PIECE: usize = 1 << 20;

/// Takes over what Envoy put into memory that `proxy_on_memory_allocate` gave it.
fn taken(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() || size == 0 {
        return Vec::new();
    }
    // SAFETY: Envoy asks for exactly the bytes that it then says it has written.
    unsafe { Vec::from_raw_parts(data, size, size) }
}

/// Writes an error into Envoy's log.
pub(crate) fn log_error(message: &str) {
    const ERROR: u32 = 4;
    // SAFETY: Envoy copies the text.
    unsafe { sys::proxy_log(ERROR, message.as_ptr(), message.len()) };
}

/// Lends `size` bytes of a buffer, piece by piece, and leaves them there: how many there were.
pub(crate) fn read(buffer: Buffer, size: usize, visit: &mut dyn FnMut(&[u8])) -> usize {
    let mut start = 0usize;
    while start < size {
        let (mut data, mut got) = (ptr::null_mut(), 0);
        let most = size.saturating_sub(start).min(PIECE);
        // SAFETY: both point to memory of ours.
        let status = unsafe { sys::proxy_get_buffer_bytes(buffer as u32, start, most, &raw mut data, &raw mut got) };
        if status != OK {
            break;
        }
        let piece = taken(data, got);
        if piece.is_empty() {
            break;
        }
        visit(&piece);
        start = start.saturating_add(piece.len());
    }
    start
}

/// Puts these bytes in the place of all that is in the buffer; `false` if there is no such buffer now.
pub(crate) fn write(buffer: Buffer, bytes: &[u8]) -> bool {
    // Above any buffer's length, and a number that Envoy, which adds it to others, can still count with.
    const ALL: usize = 0x7fff_ffff;
    // SAFETY: Envoy copies the bytes.
    unsafe { sys::proxy_set_buffer_bytes(buffer as u32, 0, ALL, bytes.as_ptr(), bytes.len()) == OK }
}

/// The plugin's configuration, of which Envoy said that it has so many bytes.
pub(crate) fn configuration(size: usize) -> Vec<u8> {
    let mut all = Vec::new();
    read(Buffer::Configuration, size, &mut |piece| all.extend_from_slice(piece));
    all
}

/// A property; the parts of its name are separated by zero bytes.
pub(crate) fn property(path: &str) -> Option<Vec<u8>> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    // SAFETY: all point to memory of ours.
    let status = unsafe { sys::proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size) };
    (status == OK).then(|| taken(data, size))
}

/// Sets filter state `wasm.<name>` of the connection.
pub(crate) fn set_property(name: &str, value: &[u8]) {
    // SAFETY: Envoy copies both.
    unsafe { sys::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Which of the filters a root context is.
pub(crate) fn root_id() -> Vec<u8> {
    property("plugin_root_id").unwrap_or_default()
}

/// Tells `tcp_proxy` its cluster; `false` if Envoy does not take it.
pub(crate) fn set_cluster(name: &str) -> bool {
    const FUNCTION: &str = "set_envoy_filter_state";
    let arguments = filter_state("envoy.tcp_proxy.cluster", name);
    let (mut data, mut size) = (ptr::null_mut(), 0);
    // SAFETY: Envoy copies what it is given; the rest points to memory of ours.
    let status = unsafe {
        sys::proxy_call_foreign_function(
            FUNCTION.as_ptr(),
            FUNCTION.len(),
            arguments.as_ptr(),
            arguments.len(),
            &raw mut data,
            &raw mut size,
        )
    };
    drop(taken(data, size));
    status == OK
}

/// `envoy.source.extensions.common.wasm.SetEnvoyFilterStateArguments`: path = 1, value = 2; the span that is not there is that
/// of the filter chain.
fn filter_state(path: &str, value: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(path.len().saturating_add(value.len()).saturating_add(16));
    for (tag, text) in [(0x0a, path), (0x12, value)] {
        message.push(tag);
        let mut length = text.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(text.as_bytes());
    }
    message
}

/// Makes a metric, or finds the one of this name; `None` if Envoy has none.
pub(crate) fn define_metric(kind: MetricKind, name: &str) -> Option<Metric> {
    let mut number = 0;
    // SAFETY: Envoy copies the name.
    let status = unsafe { sys::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut number) };
    (status == OK).then_some(Metric(number))
}

pub(crate) fn count(counter: Option<Metric>, by: u64) {
    move_gauge(counter, i64::try_from(by).unwrap_or(i64::MAX));
}

/// By how much, not to what: every worker has a VM of its own.
pub(crate) fn move_gauge(gauge: Option<Metric>, by: i64) {
    if let Some(Metric(number)) = gauge.filter(|_| by != 0) {
        // SAFETY: no memory is shared.
        unsafe { sys::proxy_increment_metric(number, by) };
    }
}

pub(crate) fn record(histogram: Option<Metric>, value: u64) {
    if let Some(Metric(number)) = histogram {
        // SAFETY: no memory is shared.
        unsafe { sys::proxy_record_metric(number, value) };
    }
}

/// Has the root context ticked so often; 0: never.
pub(crate) fn set_tick(milliseconds: u32) {
    // SAFETY: no memory is shared.
    unsafe { sys::proxy_set_tick_period_milliseconds(milliseconds) };
}

/// What follows concerns this context; `false` if it is gone.
pub(crate) fn set_context(context: u32) -> bool {
    // SAFETY: no memory is shared.
    unsafe { sys::proxy_set_effective_context(context) == OK }
}

/// Gives what is in the read buffer to the filters behind us, now: they may write meanwhile.
pub(crate) fn resume() {
    // SAFETY: no memory is shared; hooks may be entered again.
    unsafe { sys::proxy_continue_stream(DOWNSTREAM) };
}

/// Closes the connection when everything written has gone out.
pub(crate) fn close() {
    // SAFETY: no memory is shared; hooks may be entered again.
    unsafe { sys::proxy_close_stream(DOWNSTREAM) };
}
