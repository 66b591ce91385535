use core::cell::{Cell, RefCell};
use std::{
    rc::Rc,
    sync::{Arc, Mutex},
};

use meltemi_core::FailureKind;
use meltemi_engine::{
    HeaderStore,
    config::{ConfigError, OutletConfig},
    names,
    outlet::{Outlet, OutletShared},
};

use super::congestion;
use crate::{
    abi::{Bridge, Request, RequestConfig},
    registry,
};

/// Upstream bridge `outlet`. Envoy makes one for each worker.
pub(super) struct OutletRequests {
    shared: Arc<OutletShared>,
    spare: Mutex<Vec<Outlet>>,
}

impl OutletRequests {
    pub(super) fn new(config: &OutletConfig) -> Result<Self, ConfigError> {
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
    /// Whom the reply is for.
    client: Cell<Option<u64>>,
}

impl OutletRequest {
    /// Lets the outlet work, then does what it wants. It is not borrowed while Envoy is called.
    fn work(&self, envoy: Bridge, work: impl FnOnce(&mut Outlet)) {
        let Some(mut outlet) = self.outlet.borrow_mut().take() else { return };
        work(&mut outlet);
        let to_server = outlet.to_server();
        if !to_server.is_empty() {
            envoy.send_upstream(to_server);
            to_server.clear();
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
        self.answered.set(true);
        if response.end_stream {
            envoy.send_response(response.status, response.headers, response.body);
        } else {
            envoy.send_open_response(response.status, response.headers, response.body);
        }
        self.config.give_back(outlet);
    }
}

impl Request for OutletRequest {
    fn on_headers(&self, envoy: Bridge, end: bool) {
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

    fn on_data(&self, envoy: Bridge, end: bool) {
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

    fn on_trailers(&self, envoy: Bridge) {
        self.request_ended.set(true);
        self.work(envoy, |outlet| outlet.on_request_data(b"", true));
    }

    fn on_upstream_data(&self, envoy: Bridge, end: bool) {
        self.work(envoy, |outlet| {
            envoy.response_buffer(&mut |piece| outlet.on_server_data(piece, false));
            if end {
                outlet.on_server_data(b"", true);
            }
        });
    }

    /// Answers, and has the connection closed: what was sent on it is not known.
    fn on_panic(&self, envoy: Bridge) {
        if !self.answered.replace(true) {
            let kind = FailureKind::Internal;
            let mut headers = HeaderStore::new();
            headers.push(names::DETAILS.as_bytes(), kind.as_str().as_bytes());
            headers.push(b"content-length", b"0");
            headers.push(names::RETIRE.as_bytes(), b"1");
            envoy.send_open_response(kind.http_status(), &headers, b"");
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
