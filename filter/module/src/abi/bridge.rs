//! Upstream HTTP → TCP bridges.

use core::cell::{Cell, RefCell};
use std::{
    rc::Rc,
    sync::{Arc, LazyLock},
};

use meltemi_engine::{HeaderSource, HeaderStore};
use smallvec::SmallVec;

use super::{
    Level,
    callbacks::{self, ChunksSize},
    guard::guarded,
    is_before_1_40, log,
    types::{Buffer, EnvoyPtr, HttpHeader, ModulePtr},
};

/// Makes the bridges of one configuration.
pub(crate) trait RequestConfig: Send + Sync {
    /// A bridge for one request.
    fn begin(self: Arc<Self>) -> Rc<dyn Request>;
}

/// A bridge: one request over one upstream connection.
pub(crate) trait Request {
    fn on_headers(&self, envoy: Bridge<'_>, end: bool);
    fn on_data(&self, envoy: Bridge<'_>, end: bool);
    fn on_trailers(&self, envoy: Bridge<'_>);
    fn on_upstream_data(&self, envoy: Bridge<'_>, end: bool);
    /// A hook has panicked, and been logged.
    fn on_panic(&self, envoy: Bridge<'_>);
}

/// Envoy's side of a bridge, for the time of a hook. Envoy may destroy the bridge while we send a response, as it does when
/// it tries the request again: from then on every call does nothing.
#[derive(Clone, Copy)]
pub(crate) struct Bridge<'a> {
    envoy: EnvoyPtr,
    destroyed: &'a Cell<bool>,
}

/// Pieces of a buffer that Envoy 1.38, which cannot count them, may fill. Envoy joins a piece of up to 512 bytes to the one
/// before, if that has room, so these are 128 MiB in the worst cutting, and 4 GiB in the one that our inlet makes. Memory is
/// used for those that come.
const MOST_PIECES: usize = 1 << 18;

/// This Envoy can say how many pieces a body is in. If not, [`MOST_PIECES`] must be enough.
pub(crate) fn counts_pieces() -> bool {
    REQUEST_PIECES.is_some() && RESPONSE_PIECES.is_some()
}

/// A reply with this header is not tried again for its status, unless a policy asks for `envoy-ratelimited`. Up to Envoy
/// 1.39 such a retry destroys the bridge that is sending the reply, and Envoy goes on using it.
const NO_RETRY: (&[u8], &[u8]) = (b"x-envoy-ratelimited", b"true");

static REQUEST_PIECES: LazyLock<Option<ChunksSize>> = LazyLock::new(|| {
    callbacks::find_chunks_size(
        c"envoy_dynamic_module_callback_upstream_http_tcp_bridge_get_request_buffer_chunks_size",
    )
});
static RESPONSE_PIECES: LazyLock<Option<ChunksSize>> = LazyLock::new(|| {
    callbacks::find_chunks_size(
        c"envoy_dynamic_module_callback_upstream_http_tcp_bridge_get_response_buffer_chunks_size",
    )
});

thread_local! {
    /// Room for the pieces of a buffer.
    static PIECES: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

type Fill = unsafe extern "C" fn(EnvoyPtr, *mut Buffer, *mut usize);

impl Bridge<'_> {
    /// Lends what came of the request's body, piece by piece, and says which is the last of them. `visit` must not call
    /// Envoy.
    pub(crate) fn request_buffer(self, visit: &mut dyn FnMut(&[u8], bool)) {
        self.lend(*REQUEST_PIECES, callbacks::bridge_request, visit);
    }

    /// Lends what the server sent. `visit` must not call Envoy.
    pub(crate) fn response_buffer(self, visit: &mut dyn FnMut(&[u8])) {
        self.lend(*RESPONSE_PIECES, callbacks::bridge_response, &mut |piece, _| visit(piece));
    }

    fn lend(self, count: Option<ChunksSize>, fill: Fill, visit: &mut dyn FnMut(&[u8], bool)) {
        let Some(envoy) = self.alive() else { return };
        // SAFETY: valid as long as the bridge lives.
        let room = count.map_or(MOST_PIECES, |count| unsafe { count(envoy) });
        PIECES.with_borrow_mut(|pieces| {
            pieces.clear();
            pieces.reserve(room);
            let mut filled = 0;
            // SAFETY: there is room for all pieces.
            unsafe { fill(envoy, pieces.as_mut_ptr(), &raw mut filled) };
            if filled > pieces.capacity() {
                // Other memory is overwritten: nothing can be trusted any more.
                std::process::abort();
            }
            // SAFETY: Envoy has written these.
            unsafe { pieces.set_len(filled) };
            for (index, piece) in pieces.iter().enumerate() {
                // SAFETY: Envoy's pieces stay until the hook returns.
                visit(unsafe { piece.bytes() }, index.saturating_add(1) == filled);
            }
        });
    }

    /// Envoy's bridge, if it still has it.
    fn alive(self) -> Option<EnvoyPtr> {
        (!self.destroyed.get()).then_some(self.envoy)
    }

    /// Lends the first request header of this name.
    pub(crate) fn request_header<T>(self, name: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let envoy = self.alive()?;
        let (mut value, mut count) = (Buffer::EMPTY, 0);
        // SAFETY: both point to memory of ours; Envoy's header stays during the hook.
        unsafe {
            callbacks::bridge_header(envoy, Buffer::of(name), &raw mut value, 0, &raw mut count)
                .then(|| read(value.bytes()))
        }
    }

    pub(crate) fn send_upstream(self, data: &[u8]) {
        self.write_upstream(data, false);
    }

    /// Closes our side of the upstream connection, behind what was sent.
    pub(crate) fn end_upstream(self) {
        self.write_upstream(b"", true);
    }

    fn write_upstream(self, data: &[u8], end: bool) {
        if let Some(envoy) = self.alive() {
            // SAFETY: the bridge lives; Envoy copies the bytes.
            unsafe { callbacks::bridge_send_upstream(envoy, Buffer::of(data), end) };
        }
    }

    /// Sends a response. `end`: that is the end of the stream too; else [`end_response`](Self::end_response) is, or the
    /// reset by whoever gets it, which closes the upstream connection.
    pub(crate) fn send_response(self, status: u16, headers: &HeaderStore, body: &[u8], end: bool) {
        let Some(envoy) = self.alive() else { return };
        let mut list: SmallVec<[HttpHeader; 16]> = headers.iter().map(HttpHeader::of).collect();
        if status != 200 && is_before_1_40() {
            list.push(HttpHeader::of(NO_RETRY));
        }
        let only_headers = end && body.is_empty();
        // SAFETY: the bridge lives when this is called; Envoy copies the headers.
        unsafe {
            callbacks::bridge_send_response_headers(envoy, status.into(), list.as_ptr(), list.len(), only_headers);
        }
        if !body.is_empty() {
            self.send_response_data(body, end);
        }
    }

    /// Ends a response that was left open.
    pub(crate) fn end_response(self) {
        self.send_response_data(b"", true);
    }

    fn send_response_data(self, data: &[u8], end: bool) {
        if let Some(envoy) = self.alive() {
            // SAFETY: the bridge lives when this is called; Envoy copies the bytes.
            unsafe { callbacks::bridge_send_response_data(envoy, Buffer::of(data), end) };
        }
    }
}

impl HeaderSource for Bridge<'_> {
    fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let Some(envoy) = self.alive() else { return };
        // SAFETY: valid as long as the bridge lives.
        let count = unsafe { callbacks::bridge_headers_size(envoy) };
        let mut headers: SmallVec<[HttpHeader; 32]> = SmallVec::from_elem(HttpHeader::EMPTY, count);
        // SAFETY: `headers` has room for all.
        if count == 0 || !unsafe { callbacks::bridge_headers(envoy, headers.as_mut_ptr()) } {
            return;
        }
        for header in &headers {
            // SAFETY: Envoy's headers stay during the hook.
            let (name, value) = unsafe { (header.name.bytes(), header.value.bytes()) };
            visit(name, value);
        }
    }
}

/// What stands behind Envoy's pointer to a bridge.
struct Slot {
    request: Rc<dyn Request>,
    destroyed: Rc<Cell<bool>>,
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_config_new(
    _: EnvoyPtr,
    name: Buffer,
    json: Buffer,
) -> ModulePtr {
    // SAFETY: Envoy lends both for the call.
    let (name, json) = unsafe { (name.bytes(), json.bytes()) };
    match guarded("bridge_config_new", || crate::host::bridge(name, json)) {
        Some(Ok(config)) => Box::into_raw(Box::new(config)).cast_const().cast(),
        Some(Err(error)) => {
            log(Level::Error, &format!("meltemi: bridge `{}`: {error}", String::from_utf8_lossy(name)));
            core::ptr::null()
        }
        None => core::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_config_destroy(config: ModulePtr) {
    // SAFETY: made by `config_new`, destroyed once.
    drop(unsafe { Box::from_raw(config.cast_mut().cast::<Arc<dyn RequestConfig>>()) });
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_new(config: ModulePtr, _: EnvoyPtr) -> ModulePtr {
    // SAFETY: made by `config_new`, lives longer than its bridges.
    let config = unsafe { &*config.cast::<Arc<dyn RequestConfig>>() };
    match guarded("bridge_new", || config.clone().begin()) {
        Some(request) => Box::into_raw(Box::new(Slot { request, destroyed: Rc::default() })).cast_const().cast(),
        None => core::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_destroy(bridge: ModulePtr) {
    if !bridge.is_null() {
        // SAFETY: made by `bridge_new`, destroyed once.
        let slot = unsafe { Box::from_raw(bridge.cast_mut().cast::<Slot>()) };
        slot.destroyed.set(true);
    }
}

fn call(envoy: EnvoyPtr, bridge: ModulePtr, hook: &str, body: impl FnOnce(&dyn Request, Bridge<'_>)) {
    if bridge.is_null() {
        return;
    }
    let (request, destroyed) = {
        // SAFETY: made by `bridge_new`, not yet destroyed when the hook begins.
        let slot = unsafe { &*bridge.cast::<Slot>() };
        (slot.request.clone(), slot.destroyed.clone())
    };
    let bridge = Bridge { envoy, destroyed: &destroyed };
    if guarded(hook, || body(request.as_ref(), bridge)).is_none() {
        guarded("on_panic", || request.on_panic(bridge));
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_encode_headers(
    envoy: EnvoyPtr,
    bridge: ModulePtr,
    end: bool,
) {
    call(envoy, bridge, "encode_headers", |bridge, envoy| bridge.on_headers(envoy, end));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_encode_data(
    envoy: EnvoyPtr,
    bridge: ModulePtr,
    end: bool,
) {
    call(envoy, bridge, "encode_data", |bridge, envoy| bridge.on_data(envoy, end));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_encode_trailers(envoy: EnvoyPtr, bridge: ModulePtr) {
    call(envoy, bridge, "encode_trailers", |bridge, envoy| bridge.on_trailers(envoy));
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_on_upstream_data(
    envoy: EnvoyPtr,
    bridge: ModulePtr,
    end: bool,
) {
    call(envoy, bridge, "on_upstream_data", |bridge, envoy| bridge.on_upstream_data(envoy, end));
}
