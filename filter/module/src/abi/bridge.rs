//! Upstream HTTP → TCP bridges.

use core::cell::RefCell;
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
    log,
    types::{Buffer, EnvoyPtr, HttpHeader, ModulePtr},
};

/// Makes the bridges of one configuration.
pub(crate) trait RequestConfig: Send + Sync {
    /// A bridge for one request.
    fn begin(self: Arc<Self>) -> Rc<dyn Request>;
}

/// A bridge: one request over one upstream connection.
pub(crate) trait Request {
    fn on_headers(&self, envoy: Bridge, end: bool);
    fn on_data(&self, envoy: Bridge, end: bool);
    fn on_trailers(&self, envoy: Bridge);
    fn on_upstream_data(&self, envoy: Bridge, end: bool);
    /// A hook has panicked, and been logged.
    fn on_panic(&self, envoy: Bridge);
}

/// Envoy's side of a bridge, for the time of a hook. After a response that ends the stream it must not be used again:
/// Envoy may have destroyed the bridge.
#[derive(Clone, Copy)]
pub(crate) struct Bridge(EnvoyPtr);

/// Pieces of a buffer that Envoy 1.38, which cannot count them, may fill: 64 MiB in its usual pieces of 16 KiB.
const MOST_PIECES: usize = 4096;

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

impl Bridge {
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
        // SAFETY: valid during the hook.
        let room = count.map_or(MOST_PIECES, |count| unsafe { count(self.0) });
        PIECES.with_borrow_mut(|pieces| {
            if pieces.len() < room {
                pieces.resize(room, Buffer::EMPTY);
            }
            let mut filled = 0;
            // SAFETY: there is room for all pieces.
            unsafe { fill(self.0, pieces.as_mut_ptr(), &raw mut filled) };
            for (index, piece) in pieces.iter().take(filled).enumerate() {
                // SAFETY: Envoy's pieces stay until the hook returns.
                visit(unsafe { piece.bytes() }, index.saturating_add(1) == filled);
            }
        });
    }

    /// Lends the first request header of this name.
    pub(crate) fn request_header<T>(self, name: &[u8], read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let (mut value, mut count) = (Buffer::EMPTY, 0);
        // SAFETY: both point to memory of ours; Envoy's header stays during the hook.
        unsafe {
            callbacks::bridge_header(self.0, Buffer::of(name), &raw mut value, 0, &raw mut count)
                .then(|| read(value.bytes()))
        }
    }

    pub(crate) fn send_upstream(self, data: &[u8]) {
        // SAFETY: Envoy copies the bytes.
        unsafe { callbacks::bridge_send_upstream(self.0, Buffer::of(data), false) };
    }

    /// Closes our side of the upstream connection, behind what was sent.
    pub(crate) fn end_upstream(self) {
        // SAFETY: valid during the hook.
        unsafe { callbacks::bridge_send_upstream(self.0, Buffer::of(b""), true) };
    }

    /// Sends the whole response and ends the stream.
    pub(crate) fn send_response(self, status: u16, headers: &HeaderStore, body: &[u8]) {
        let headers = list(headers);
        // SAFETY: Envoy copies headers and body.
        unsafe {
            callbacks::bridge_send_response(
                self.0,
                u32::from(status),
                headers.as_ptr(),
                headers.len(),
                Buffer::of(body),
            );
        }
    }

    /// Sends the response and leaves the stream open, so that whoever resets it closes the upstream connection.
    pub(crate) fn send_open_response(self, status: u16, headers: &HeaderStore, body: &[u8]) {
        let headers = list(headers);
        // SAFETY: Envoy copies headers and body; the stream stays open, so the bridge lives.
        unsafe {
            callbacks::bridge_send_response_headers(self.0, u32::from(status), headers.as_ptr(), headers.len(), false);
            if !body.is_empty() {
                callbacks::bridge_send_response_data(self.0, Buffer::of(body), false);
            }
        }
    }
}

fn list(headers: &HeaderStore) -> SmallVec<[HttpHeader; 16]> {
    headers.iter().map(|(name, value)| HttpHeader { name: Buffer::of(name), value: Buffer::of(value) }).collect()
}

impl HeaderSource for Bridge {
    fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        // SAFETY: valid during the hook.
        let count = unsafe { callbacks::bridge_headers_size(self.0) };
        let mut headers: SmallVec<[HttpHeader; 32]> = SmallVec::from_elem(HttpHeader::EMPTY, count);
        // SAFETY: `headers` has room for all.
        if count == 0 || !unsafe { callbacks::bridge_headers(self.0, headers.as_mut_ptr()) } {
            return;
        }
        for header in &headers {
            // SAFETY: Envoy's headers stay during the hook.
            let (name, value) = unsafe { (header.name.bytes(), header.value.bytes()) };
            visit(name, value);
        }
    }
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
        Some(bridge) => Box::into_raw(Box::new(bridge)).cast_const().cast(),
        None => core::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_upstream_http_tcp_bridge_destroy(bridge: ModulePtr) {
    if !bridge.is_null() {
        // SAFETY: made by `bridge_new`, destroyed once.
        drop(unsafe { Box::from_raw(bridge.cast_mut().cast::<Rc<dyn Request>>()) });
    }
}

fn call(envoy: EnvoyPtr, bridge: ModulePtr, hook: &str, body: impl FnOnce(&dyn Request, Bridge)) {
    if bridge.is_null() {
        return;
    }
    // SAFETY: made by `bridge_new`, not yet destroyed when the hook begins.
    let bridge = unsafe { &*bridge.cast::<Rc<dyn Request>>() }.clone();
    if guarded(hook, || body(bridge.as_ref(), Bridge(envoy))).is_none() {
        guarded("on_panic", || bridge.on_panic(Bridge(envoy)));
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
