use core::cell::{Cell, RefCell};
use std::{
    rc::Rc,
    sync::{Arc, Mutex},
};

use meltemi_core::FailureKind;
use meltemi_engine::{
    HeaderStore,
    config::{ConfigError, MOST_FRAME_BYTES, OutletConfig},
    names,
    outlet::{Outlet, OutletShared},
};

use super::congestion;
use crate::{
    abi::{Bridge, Request, RequestConfig, counts_pieces},
    registry,
};

/// Upstream bridge `outlet`. Envoy makes one for each worker.
pub(super) struct OutletRequests {
    shared: Arc<OutletShared>,
    spare: Mutex<Vec<Outlet>>,
}

impl OutletRequests {
    pub(super) fn new(config: &OutletConfig) -> Result<Self, ConfigError> {
        let bytes = config.limits.max_frame_bytes;
        if bytes > MOST_FRAME_BYTES && !counts_pieces() {
            return Err(ConfigError(format!(
                "field `limits.max_frame_bytes`: Envoy before 1.39 cannot say in how many pieces a frame comes; there it is safe up to {MOST_FRAME_BYTES}, not {bytes}"
            )));
        }
        let shared = Arc::new(OutletShared::new(config, registry::build(&config.codec)?)?);
        Ok(Self { shared, spare: Mutex::new(Vec::new()) })
    }

    fn take_spare(&self) -> Option<Outlet> {
        self.spare.lock().ok()?.pop()
    }

    fn give_back(&self, mut outlet: Outlet) {
        outlet.reset();
        if let Ok(mut spare) = self.spare.lock()
            && spare.len() < SPARE
        {
            spare.push(outlet);
        }
    }
}

impl RequestConfig for OutletRequests {
    fn begin(self: Arc<Self>) -> Rc<dyn Request> {
        let outlet = self.take_spare().unwrap_or_else(|| Outlet::new(self.shared.clone()));
        let outlet = RefCell::new(Some(outlet));
        Rc::new(OutletRequest {
            config: self,
            outlet,
            request_ended: Cell::new(false),
            answered: Cell::new(false),
            open: Cell::new(false),
            client: Cell::new(None),
        })
    }
}

struct OutletRequest {
    config: Arc<OutletRequests>,
    /// Gone once the response was sent.
    outlet: RefCell<Option<Outlet>>,
    request_ended: Cell<bool>,
    answered: Cell<bool>,
    /// The response has no end yet, for the sake of its connection.
    open: Cell<bool>,
    /// Whom the reply is for.
    client: Cell<Option<u64>>,
}

impl OutletRequest {
    /// Lets the outlet work, then does what it wants. It is not borrowed while Envoy is called.
    fn work(&self, envoy: Bridge<'_>, work: impl FnOnce(&mut Outlet)) {
        let Some(mut outlet) = self.outlet.borrow_mut().take() else { return };
        work(&mut outlet);
        let to_server = outlet.to_server();
        if !to_server.is_empty() {
            envoy.send_upstream(to_server);
            outlet.sent();
            if outlet.ends_sending() {
                envoy.end_upstream();
            }
        }
        // A response before the request's end makes Envoy up to 1.39 use a bridge that it has destroyed
        // (envoyproxy/envoy#47548).
        if self.request_ended.get() && congestion::is_congested(self.client.get()) {
            outlet.retire();
        }
        let response = if self.request_ended.get() { outlet.response() } else { None };
        let Some(response) = response else {
            *self.outlet.borrow_mut() = Some(outlet);
            return;
        };
        self.answer(envoy, response.status, response.headers, response.body, response.end_stream);
        self.config.give_back(outlet);
    }

    /// Sends the response. `end`: its connection may be used again.
    ///
    /// If not, the inlet resets the stream, and Envoy closes the connection. Behind a mirrored request there is no inlet: so
    /// our side of the connection is closed too, and when the server has closed the other, the stream ends.
    fn answer(&self, envoy: Bridge<'_>, status: u16, headers: &HeaderStore, body: &[u8], end: bool) {
        self.answered.set(true);
        if !end {
            self.open.set(true);
            envoy.end_upstream();
        }
        envoy.send_response(status, headers, body, end);
    }
}

impl Request for OutletRequest {
    fn on_headers(&self, envoy: Bridge<'_>, end: bool) {
        self.request_ended.set(end);
        let client = envoy.request_header(names::CONNECTION.as_bytes(), |name| str::from_utf8(name).ok()?.parse().ok());
        self.client.set(client.flatten());
        self.work(envoy, |outlet| {
            outlet.on_request_headers(&envoy);
            if end {
                outlet.on_request_data(b"", true);
            }
        });
    }

    fn on_data(&self, envoy: Bridge<'_>, end: bool) {
        self.request_ended.set(end);
        self.work(envoy, |outlet| {
            let mut ended = false;
            envoy.request_buffer(&mut |piece, last| {
                ended = end && last;
                outlet.on_request_data(piece, ended);
            });
            if end && !ended {
                outlet.on_request_data(b"", true);
            }
        });
    }

    fn on_trailers(&self, envoy: Bridge<'_>) {
        self.request_ended.set(true);
        self.work(envoy, |outlet| outlet.on_request_data(b"", true));
    }

    fn on_upstream_data(&self, envoy: Bridge<'_>, end: bool) {
        if end && self.open.replace(false) {
            return envoy.end_response();
        }
        self.work(envoy, |outlet| {
            envoy.response_buffer(&mut |piece| outlet.on_server_data(piece, false));
            if end {
                outlet.on_server_data(b"", true);
            }
        });
    }

    /// Answers, and has the connection closed: what was sent on it is not known.
    fn on_panic(&self, envoy: Bridge<'_>) {
        if !self.answered.get() {
            let kind = FailureKind::Internal;
            let mut headers = HeaderStore::new();
            headers.push(names::DETAILS.as_bytes(), kind.as_str().as_bytes());
            headers.push(b"content-length", b"0");
            headers.push(names::RETIRE.as_bytes(), b"1");
            self.answer(envoy, kind.http_status(), &headers, b"", false);
        }
    }
}

impl Drop for OutletRequest {
    fn drop(&mut self) {
        if let Some(outlet) = self.outlet.borrow_mut().take() {
            self.config.give_back(outlet);
        }
    }
}

/// Outlets that are kept for later requests.
const SPARE: usize = 64;
