//! Tunnel: an outlet for hosts that have no upstream bridge.
//!
//! It stands in a listener of its own, between the router's HTTP/2 connection and an HTTP connection manager that turns a
//! `CONNECT` request into a connection to the server:
//!
//! ```text
//! router ══ HTTP/2, one request at a time ══▶ tunnel ══ HTTP/2, one CONNECT ══▶ HCM ──▶ server
//! ```
//!
//! A plain `tcp_proxy` behind it would be cheaper, but lets a filter write towards the router only when the server does: a
//! one-way call could not be answered. An HCM answers whenever it is [asked to](Tunnel::prompt).

use std::sync::Arc;

use crate::{
    close::Close,
    h2::{self, Event, StreamId},
    outlet::{Outlet, OutletShared, decimal},
};

/// One connection of the router, and the one to the server behind it.
pub struct Tunnel {
    outlet: Outlet,
    router: Front,
    call: Option<Call>,
    behind: Behind,
    /// The manager behind us goes away: so do we, between two calls.
    draining: bool,
    close: Option<Close>,
}

/// The router's connection.
struct Front {
    http: h2::Connection,
    /// The router was told to come here no more: it closes the connection itself. Were we to do it, what we have just written
    /// could be lost, in connections within Envoy.
    retired: bool,
}

impl Front {
    /// Tells the router to take its next requests elsewhere. Before what else there is to say: it may try again as soon as it
    /// has read that.
    fn retire(&mut self) {
        self.http.go_away(h2::ErrorCode::NoError);
        self.retired = true;
    }
}

/// The router's request.
struct Call {
    stream: StreamId,
    /// All of it is there.
    ended: bool,
}

/// The connection to the server, inside of one `CONNECT`.
struct Behind {
    http: h2::Connection,
    /// Opened with the first request.
    stream: Option<StreamId>,
    /// There is a server at the other end.
    reached: bool,
}

impl Behind {
    /// Sends bytes to the server; `end`: no more will follow.
    fn send(&mut self, bytes: &[u8], end: bool) {
        let connect = |to: &mut h2::HeaderWriter<'_>| {
            to.push(b":method", b"CONNECT");
            // The HCM behind us has one route; HTTP wants a name.
            to.push(b":authority", b"meltemi");
        };
        let stream = self.stream.or_else(|| self.http.open(&mut { connect }, false));
        self.stream = stream;
        if let Some(stream) = stream {
            self.http.send_data(stream, bytes, end);
        }
    }
}

impl Tunnel {
    /// An engine for a new connection of the router.
    pub fn new(shared: Arc<OutletShared>) -> Self {
        let settings = shared.windows();
        Self {
            outlet: Outlet::new(shared),
            router: Front { http: h2::Connection::server(&settings), retired: false },
            call: None,
            behind: Behind { http: h2::Connection::client(&settings), stream: None, reached: false },
            draining: false,
            close: None,
        }
    }

    /// Bytes from the router.
    pub fn on_router_data(&mut self, data: &[u8]) {
        let mut input = data;
        while self.close.is_none() {
            let event = match self.router.http.next_event(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => return self.close = Some(Close::Flush),
            };
            let mut refused = None;
            match event {
                // The router is told to send one at a time: replies could not be told apart.
                Event::Headers { stream, .. } if self.call.is_some() => refused = Some(stream),
                Event::Headers { stream, headers, end_stream } => {
                    self.call = Some(Call { stream, ended: end_stream });
                    self.outlet.on_request_headers(&headers);
                    if end_stream {
                        self.outlet.on_request_data(b"", true);
                    }
                }
                Event::Data { stream, data, end_stream } => {
                    if let Some(call) = self.call.as_mut().filter(|call| call.stream == stream) {
                        call.ended = end_stream;
                        self.outlet.on_request_data(data, end_stream);
                    }
                }
                Event::Trailers { stream, .. } => {
                    if let Some(call) = self.call.as_mut().filter(|call| call.stream == stream) {
                        call.ended = true;
                        self.outlet.on_request_data(b"", true);
                    }
                }
                // The server's reply may come yet, and would be taken for that to the next request.
                Event::Reset { stream, .. } => {
                    if self.call.take_if(|call| call.stream == stream).is_some() {
                        self.router.retire();
                    }
                }
                Event::GoAway { .. } => {}
            }
            if let Some(stream) = refused {
                self.router.http.reset(stream, h2::ErrorCode::RefusedStream);
            }
            self.advance();
        }
    }

    /// Bytes from the HTTP connection manager behind us; `end` if it closes.
    pub fn on_server_data(&mut self, data: &[u8], end: bool) {
        let mut input = data;
        let mut ended = end;
        while !self.router.retired {
            let event = match self.behind.http.next_event(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => {
                    ended = true;
                    break;
                }
            };
            match event {
                Event::Headers { headers, end_stream, .. } => {
                    self.behind.reached = headers.first(b":status") == Some(b"200");
                    ended |= end_stream || !self.behind.reached;
                }
                Event::Data { data, end_stream, .. } => {
                    if self.call.is_some() {
                        self.outlet.on_server_data(data, false);
                    }
                    // Nobody asked: whatever it is, the next reply could not be told from it.
                    ended |= end_stream || (self.call.is_none() && !data.is_empty());
                }
                Event::Trailers { .. } | Event::Reset { .. } => ended = true,
                Event::GoAway { .. } => self.draining = true,
            }
            self.advance();
        }
        if self.draining && self.call.is_none() && !self.router.retired {
            self.router.retire();
        }
        if ended && !self.router.retired {
            self.on_server_end();
        }
    }

    /// No more comes from the server, or there is none.
    fn on_server_end(&mut self) {
        self.router.retire();
        // Where nobody has seen the request, the router may ask another server.
        let unseen = !self.behind.reached;
        let code = if unseen { h2::ErrorCode::RefusedStream } else { h2::ErrorCode::Internal };
        if let Some(call) = self.call.take() {
            self.router.http.reset(call.stream, code);
        }
    }

    /// Carries on what the outlet made of it.
    fn advance(&mut self) {
        if self.router.retired {
            return;
        }
        let ends = self.outlet.ends_sending();
        if !self.outlet.to_server().is_empty() {
            self.behind.send(self.outlet.to_server(), ends);
            self.outlet.sent();
        }
        let Some(call) = self.call.as_ref().filter(|call| call.ended) else { return };
        let Some(response) = self.outlet.response() else { return };
        if !response.end_stream || self.draining {
            self.router.retire();
        }
        let mut digits = [0; 20];
        let status = decimal(usize::from(response.status), &mut digits);
        let headers = |to: &mut h2::HeaderWriter<'_>| {
            to.push(b":status", status);
            for (name, value) in response.headers.iter() {
                to.push(name, value);
            }
        };
        self.router.http.send_headers(call.stream, &mut { headers }, response.body.is_empty());
        if !response.body.is_empty() {
            self.router.http.send_data(call.stream, response.body, true);
        }
        self.call = None;
        self.outlet.reset();
    }

    /// Has the HTTP connection manager behind us write something, for hosts that can give the router bytes only when it
    /// does.
    pub fn prompt(&mut self) {
        self.behind.http.ping();
    }

    /// Bytes for the router; the host takes and clears them after each call.
    pub fn to_router(&mut self) -> &mut Vec<u8> {
        self.router.http.output()
    }

    /// Bytes for the HTTP connection manager behind us; the host takes and clears them after each call.
    pub fn to_hcm(&mut self) -> &mut Vec<u8> {
        self.behind.http.output()
    }

    /// Set when the connection is to be closed, after everything written.
    pub fn close(&self) -> Option<Close> {
        self.close
    }
}

#[cfg(test)]
mod tests;
