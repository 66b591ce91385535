//! Engines at work in memory, allocating nothing themselves: for the test that counts allocations and for the benches.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use meltemi_core::{
    Capabilities, Codec, Connection, DecodeError, Decoded, EncodeError, Failure, Frame, FrameKind, InFlight, Limits,
    Marks, Metadata, MutationSupport, Ordering, Outcome, Peer, Ticket,
};
use meltemi_engine::{
    HeaderStore,
    config::{CodecConfig, InletConfig, OutletConfig},
    h2::{self, Event},
    inlet::{Inlet, InletShared},
    outlet::{Outlet, OutletShared},
    relay::{Relay, RelayConfig, RelayShared},
    route::config::{ClusterConfig, MatchConfig, RouteConfig, Test},
};

/// `u32` length of the rest | `u8` 0 for a request, 1 for a reply | `u32` id | `u8` length, method | `u8` length, value of
/// the header `env` | body.
struct Small(Ordering);

struct SmallConnection;

impl Codec for Small {
    fn name(&self) -> &'static str {
        "small"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(self.0);
        capabilities.request_mutation = MutationSupport::Headers;
        capabilities.reply_mutation = MutationSupport::Headers;
        capabilities
    }

    fn connect(&self, _: Peer, _: &Limits) -> Box<dyn Connection> {
        Box::new(SmallConnection)
    }
}

fn walk<'b>(block: &'b [u8], _: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    visit(b"env", block);
}

impl Connection for SmallConnection {
    fn decode<'a>(&'a mut self, buf: &'a [u8], _: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let Some(length) = buf.first_chunk::<4>() else { return Ok(Decoded::Incomplete { needed: 4 }) };
        let length = u32::from_be_bytes(*length) as usize + 4;
        let Some(bytes) = buf.get(..length) else { return Ok(Decoded::Incomplete { needed: length - buf.len() }) };
        let kind = if bytes[4] == 0 { FrameKind::Request } else { FrameKind::Response(Outcome::Ok) };
        let id = u64::from(u32::from_be_bytes(bytes[5..9].try_into().unwrap()));
        let (method, rest) = bytes[10..].split_at(usize::from(bytes[9]));
        let metadata = Metadata::new(b"demo.Echo", method);
        let metadata = metadata.with_headers(&rest[1..=usize::from(rest[0])], Marks::default(), walk);
        Ok(Decoded::Frame(Frame { bytes, kind, id, metadata, context: method }))
    }

    fn error_reply(&mut self, _: &Ticket, _: &Failure<'_>, _: &mut Vec<u8>) -> Result<(), EncodeError> {
        Err(EncodeError::Unsupported("nothing fails here"))
    }

    fn reset(&mut self) {}
}

fn frame(kind: u8, body: usize) -> Vec<u8> {
    let mut rest = vec![kind, 0, 0, 0, 7, 5];
    rest.extend(b"hello\x05grey%");
    rest.resize(rest.len() + body, b'x');
    [&(rest.len() as u32).to_be_bytes()[..], &rest].concat()
}

fn codec() -> CodecConfig {
    CodecConfig { name: "small".to_owned(), options: BTreeMap::new() }
}

const NOW: Duration = Duration::from_secs(1);

/// Client, inlet, HCM, outlet and server.
pub struct Request {
    inlet: Inlet,
    outlet: Outlet,
    hcm: h2::Connection,
    wire: Vec<u8>,
    headers: HeaderStore,
    body: Vec<u8>,
    call: Vec<u8>,
    reply: Vec<u8>,
}

impl Request {
    pub fn new(ordering: Ordering, body: usize) -> Self {
        let inlet = InletShared::new(&InletConfig::new(codec()), Box::new(Small(ordering))).unwrap();
        let outlet = OutletShared::new(&OutletConfig::new(codec()), Box::new(Small(ordering))).unwrap();
        Self {
            inlet: Inlet::new(Arc::new(inlet), b"demo:80"),
            outlet: Outlet::new(Arc::new(outlet)),
            hcm: h2::Connection::server(&h2::Settings::default()),
            wire: Vec::new(),
            headers: HeaderStore::new(),
            body: Vec::new(),
            call: frame(0, body),
            reply: frame(1, body),
        }
    }

    /// One call; panics if it does not get its reply.
    pub fn call(&mut self) {
        self.inlet.on_client_data(NOW, &self.call, false);
        core::mem::swap(self.inlet.to_hcm(), &mut self.wire);
        let mut input = self.wire.as_slice();
        let mut asked = None;
        while let Some(event) = self.hcm.next_event(&mut input).unwrap() {
            match event {
                Event::Headers { headers, .. } => {
                    headers.iter().for_each(|(name, value)| self.headers.push(name, value))
                }
                Event::Data { stream, data, .. } => {
                    self.body.extend_from_slice(data);
                    asked = Some(stream);
                }
                _ => {}
            }
        }
        self.wire.clear();
        self.outlet.on_request_headers(&self.headers);
        self.outlet.on_request_data(&self.body, true);
        assert!(*self.outlet.to_server() == self.call);
        self.outlet.on_server_data(&self.reply, false);
        let response = self.outlet.response().unwrap();
        let mut head = |to: &mut h2::HeaderWriter<'_>| {
            to.push(b":status", b"200");
            response.headers.iter().for_each(|(name, value)| to.push(name, value));
        };
        self.hcm.send_headers(asked.unwrap(), &mut head, false);
        self.hcm.send_data(asked.unwrap(), response.body, true);
        self.outlet.reset();
        self.headers.clear();
        self.body.clear();
        core::mem::swap(self.hcm.output(), &mut self.wire);
        self.inlet.on_hcm_data(NOW, &self.wire, false);
        self.wire.clear();
        assert!(*self.inlet.to_client() == self.reply);
        self.inlet.to_client().clear();
        while self.inlet.take_duration().is_some() {}
    }
}

/// Client, relay and server.
pub struct Relayed {
    relay: Relay,
    call: Vec<u8>,
    reply: Vec<u8>,
}

impl Relayed {
    pub fn new(ordering: Ordering, body: usize) -> Self {
        let condition =
            MatchConfig { key: "env".into(), test: Some(Test::Exact("grey%".into())), ..MatchConfig::default() };
        let clusters = vec![ClusterConfig { name: "one".into(), weight: 1 }];
        let elsewhere = MatchConfig { invert: true, ..condition.clone() };
        let routes = [elsewhere, condition].map(|condition| RouteConfig {
            matches: vec![condition],
            clusters: clusters.clone(),
            ..RouteConfig::default()
        });
        let shared = RelayShared::new(&RelayConfig::new(codec(), routes.to_vec()), Box::new(Small(ordering))).unwrap();
        Self { relay: Relay::new(Arc::new(shared), 7), call: frame(0, body), reply: frame(1, body) }
    }

    /// One call; panics if it does not get its reply.
    pub fn call(&mut self) {
        self.relay.on_client_data(NOW, &self.call, false);
        assert!(*self.relay.to_server() == self.call);
        self.relay.to_server().clear();
        self.relay.on_server_data(NOW, &self.reply, false);
        assert!(*self.relay.to_client() == self.reply);
        self.relay.to_client().clear();
        while self.relay.take_duration().is_some() {}
    }
}
