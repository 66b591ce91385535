use std::collections::BTreeMap;

use super::{NOBODY, bytes, envoy, text};
use crate::abi::types::{Buffer, EnvoyPtr, HttpHeader, ModulePtr};

/// A response that the bridge sent.
#[derive(Default)]
pub(crate) struct Response {
    pub(crate) status: u32,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: bool,
}

/// A bridge for one request.
pub(crate) struct Bridge {
    config: ModulePtr,
    bridge: ModulePtr,
}

impl Bridge {
    /// `None` if the module refuses the configuration.
    pub(crate) fn new(config: &[u8]) -> Option<Self> {
        let config = upstream_http_tcp_bridge_config_new(NOBODY, Buffer::of(b"outlet"), Buffer::of(config));
        if config.is_null() {
            return None;
        }
        let bridge = upstream_http_tcp_bridge_new(config, NOBODY);
        envoy(|e| e.bridge = Some(bridge));
        Some(Self { config, bridge })
    }

    pub(crate) fn headers(&self, headers: &[(&'static str, &str)]) {
        envoy(|e| e.request_headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect());
        upstream_http_tcp_bridge_encode_headers(NOBODY, self.bridge, false);
    }

    pub(crate) fn data(&self, pieces: &[&[u8]], end: bool) {
        envoy(|e| e.bridge_data = pieces.iter().map(|piece| piece.to_vec()).collect());
        upstream_http_tcp_bridge_encode_data(NOBODY, self.bridge, end);
    }

    pub(crate) fn server_data(&self, pieces: &[&[u8]]) {
        envoy(|e| e.bridge_data = pieces.iter().map(|piece| piece.to_vec()).collect());
        upstream_http_tcp_bridge_on_upstream_data(NOBODY, self.bridge, false);
    }

    pub(crate) fn server_closes(&self) {
        envoy(|e| e.bridge_data.clear());
        upstream_http_tcp_bridge_on_upstream_data(NOBODY, self.bridge, true);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(bridge) = envoy(|e| e.bridge.take()) {
            upstream_http_tcp_bridge_destroy(bridge);
        }
        upstream_http_tcp_bridge_config_destroy(self.config);
        envoy(super::Envoy::check);
    }
}

callbacks! {
    upstream_http_tcp_bridge_get_request_header(
        _b: EnvoyPtr, name: Buffer, value: *mut Buffer, _index: usize, _count: *mut usize) -> bool {
        envoy(|e| {
            e.needs_bridge("get_request_header");
            let name = text(name);
            let Some((_, found)) = e.request_headers.iter().find(|(header, _)| *header == name) else { return false };
            // SAFETY: the module's own memory.
            unsafe { value.write(Buffer::of(found.as_bytes())) };
            true
        })
    }
    upstream_http_tcp_bridge_get_request_headers_size(_b: EnvoyPtr) -> usize { envoy(|e| e.request_headers.len()) }
    upstream_http_tcp_bridge_get_request_headers(_b: EnvoyPtr, out: *mut HttpHeader) -> bool {
        envoy(|e| e.needs_bridge("get_request_headers"));
        envoy(|e| for (index, (name, value)) in e.request_headers.iter().enumerate() {
            let header = HttpHeader { name: Buffer::of(name.as_bytes()), value: Buffer::of(value.as_bytes()) };
            // SAFETY: the module has asked how many there are.
            unsafe { out.add(index).write(header) };
        });
        true
    }
    upstream_http_tcp_bridge_get_request_buffer(_b: EnvoyPtr, out: *mut Buffer, count: *mut usize) {
        show_all(out, count);
    }
    upstream_http_tcp_bridge_get_response_buffer(_b: EnvoyPtr, out: *mut Buffer, count: *mut usize) {
        show_all(out, count);
    }
    upstream_http_tcp_bridge_send_upstream_data(_b: EnvoyPtr, data: Buffer, end: bool) {
        envoy(|e| {
            e.needs_bridge("send_upstream_data");
            e.to_server.extend(bytes(data));
            e.to_server_ended |= end;
        });
    }
    upstream_http_tcp_bridge_send_response_headers(
        _b: EnvoyPtr, status: u32, headers: *const HttpHeader, count: usize, end: bool) {
        respond(status, headers, count, end);
    }
    upstream_http_tcp_bridge_send_response_data(_b: EnvoyPtr, data: Buffer, end: bool) {
        envoy(|e| {
            e.needs_bridge("send_response_data");
            let Some(response) = &mut e.response else { return };
            response.body.extend(bytes(data));
            response.end = end;
        });
    }
}

fn show_all(out: *mut Buffer, count: *mut usize) {
    envoy(|e| {
        for (index, piece) in e.bridge_data.iter().enumerate() {
            // SAFETY: the module has room for more pieces than any test has.
            unsafe { out.add(index).write(Buffer::of(piece)) };
        }
        // SAFETY: the module's own memory.
        unsafe { count.write(e.bridge_data.len()) };
    });
}

fn respond(status: u32, headers: *const HttpHeader, count: usize, end: bool) {
    // SAFETY: the module lends a list of this length.
    let headers = unsafe { core::slice::from_raw_parts(headers, count) };
    let headers: BTreeMap<_, _> = headers.iter().map(|header| (text(header.name), text(header.value))).collect();
    let gone = envoy(|e| {
        e.needs_bridge("send_response_headers");
        let retried = e.retries && status >= 500 && !headers.contains_key("x-envoy-ratelimited");
        let before = e.response.replace(Response { status, headers, body: Vec::new(), end });
        assert!(before.is_none(), "one response a request");
        if e.resets || retried { e.bridge.take() } else { None }
    });
    if let Some(bridge) = gone {
        upstream_http_tcp_bridge_destroy(bridge);
    }
}

hooks! {
    upstream_http_tcp_bridge_config_new(EnvoyPtr, Buffer, Buffer) -> ModulePtr;
    upstream_http_tcp_bridge_config_destroy(ModulePtr);
    upstream_http_tcp_bridge_new(ModulePtr, EnvoyPtr) -> ModulePtr;
    upstream_http_tcp_bridge_destroy(ModulePtr);
    upstream_http_tcp_bridge_encode_headers(EnvoyPtr, ModulePtr, bool);
    upstream_http_tcp_bridge_encode_data(EnvoyPtr, ModulePtr, bool);
    upstream_http_tcp_bridge_on_upstream_data(EnvoyPtr, ModulePtr, bool);
}
