//! Client, inlet, a stand-in for HCM and router, outlet, server: all in memory, cut into pieces of any size.

use std::{collections::BTreeMap, sync::Arc};

use core::time::Duration;

use meltemi_core::Ordering;

use crate::{
    HeaderSource,
    config::{CodecConfig, InletConfig, OutletConfig},
    cutting::Cutter,
    h2::{self, Event, StreamId},
    inlet::{Inlet, InletShared},
    outlet::{Outlet, OutletShared},
    test_codec::TestCodec,
};

/// What the stand-in for HCM and router does with a request.
pub(crate) type Router = dyn FnMut(&Request) -> Routed;

/// What a server does with a frame that reaches it: bytes to answer, and whether it hangs up then.
pub(crate) type Server = dyn FnMut(&[u8]) -> (Vec<u8>, bool);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub(crate) enum Routed {
    /// On to the server, with these headers put over the request's own (`None` removes).
    Forward(Vec<(&'static str, Option<&'static str>)>),
    /// Answered by Envoy: status and `x-meltemi-details`.
    Local(u16, &'static str),
    /// Reset by Envoy.
    Reset,
    /// Not yet.
    Later,
}

pub(crate) struct Pair {
    pub(crate) inlet: Inlet,
    hcm: h2::Connection,
    /// The protocol can tell a client that we go away.
    pub(crate) signals: bool,
    hcm_began: bool,
    outlet: Arc<OutletShared>,
    open: BTreeMap<u32, (Request, bool)>,
    pub(crate) router: Box<Router>,
    /// What routes and filters add to responses.
    pub(crate) added: Vec<(&'static str, &'static str)>,
    pub(crate) server: Box<Server>,
    /// All that the client got.
    pub(crate) client_got: Vec<u8>,
    pub(crate) requests: Vec<Request>,
    pub(crate) resets: Vec<u32>,
    pub(crate) cutter: Cutter,
    pub(crate) now: Duration,
}

struct Headers<'a>(&'a [(String, String)]);

impl HeaderSource for Headers<'_> {
    fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in self.0 {
            visit(name.as_bytes(), value.as_bytes());
        }
    }
}

pub(crate) fn inlet_config() -> InletConfig {
    InletConfig::new(CodecConfig { name: "test".to_owned(), options: BTreeMap::new() })
}

impl Pair {
    pub(crate) fn new(ordering: Ordering, piece: usize) -> Self {
        Self::with(&inlet_config(), ordering, piece)
    }

    pub(crate) fn with(config: &InletConfig, ordering: Ordering, piece: usize) -> Self {
        let codec = || Box::new(TestCodec(ordering));
        let inlet = InletShared::new(config, codec()).unwrap();
        let outlet = OutletConfig { limits: config.limits.clone(), ..OutletConfig::new(config.codec.clone()) };
        let outlet = OutletShared::new(&outlet, codec()).unwrap();
        Self {
            inlet: Inlet::new(Arc::new(inlet), b"demo:80"),
            hcm: h2::Connection::server(&h2::Settings::default()),
            signals: ordering == Ordering::Multiplexed,
            hcm_began: false,
            outlet: Arc::new(outlet),
            open: BTreeMap::new(),
            router: Box::new(|_| Routed::Forward(Vec::new())),
            added: Vec::new(),
            server: Box::new(|frame| (echo(frame), false)),
            client_got: Vec::new(),
            requests: Vec::new(),
            resets: Vec::new(),
            cutter: Cutter::pieces(piece),
            now: Duration::ZERO,
        }
    }

    /// The client sends; everything goes as far as it can.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> &mut Self {
        for piece in self.cutter.cut(bytes) {
            self.inlet.on_client_data(self.now, piece, false);
            self.settle();
        }
        self
    }

    pub(crate) fn half_close(&mut self) -> &mut Self {
        self.inlet.on_client_data(self.now, b"", true);
        self.settle();
        self
    }

    pub(crate) fn settle(&mut self) {
        loop {
            self.client_got.append(self.inlet.to_client());
            let up = core::mem::take(self.inlet.to_hcm());
            for mut input in self.cutter.cut(&up) {
                while let Some(event) = self.hcm.next_event(&mut input).unwrap() {
                    match event {
                        Event::Headers { stream, headers, end_stream } => {
                            assert!(!end_stream, "a frame follows as body");
                            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                            let headers = headers.iter().map(|(name, value)| (text(name), text(value))).collect();
                            self.open.insert(stream.0, (Request { headers, body: Vec::new() }, false));
                        }
                        Event::Data { stream, data, end_stream } => {
                            let (request, whole) = self.open.get_mut(&stream.0).unwrap();
                            request.body.extend_from_slice(data);
                            *whole = end_stream;
                        }
                        Event::Reset { stream, .. } => {
                            self.open.remove(&stream.0);
                            self.resets.push(stream.0);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            self.route_what_is_whole();
            self.hcm_began |= !up.is_empty();
            // HCM says nothing before it has heard of HTTP.
            let down = if self.hcm_began { core::mem::take(self.hcm.output()) } else { Vec::new() };
            if up.is_empty() && down.is_empty() {
                return;
            }
            for piece in self.cutter.cut(&down) {
                self.inlet.on_hcm_data(self.now, piece, false);
            }
        }
    }

    fn route_what_is_whole(&mut self) {
        let whole: Vec<u32> = self.open.iter().filter(|(_, (_, whole))| *whole).map(|(id, _)| *id).collect();
        for id in whole {
            let (request, _) = &self.open[&id];
            let routed = (self.router)(request);
            if matches!(routed, Routed::Later) {
                continue;
            }
            let (request, _) = self.open.remove(&id).unwrap();
            self.requests.push(request.clone());
            match routed {
                Routed::Forward(changes) => self.forward(StreamId(id), request, &changes),
                Routed::Local(status, details) => {
                    let status = status.to_string();
                    let headers = |to: &mut h2::HeaderWriter<'_>| {
                        to.push(b":status", status.as_bytes());
                        to.push(b"x-meltemi-details", details.as_bytes());
                    };
                    self.hcm.send_headers(StreamId(id), &mut { headers }, true);
                }
                Routed::Reset => self.hcm.reset(StreamId(id), h2::ErrorCode::Internal),
                Routed::Later => {}
            }
        }
    }

    fn forward(&mut self, stream: StreamId, mut request: Request, changes: &[(&str, Option<&str>)]) {
        for (name, value) in changes {
            request.headers.retain(|(key, _)| key != name);
            request.headers.extend(value.map(|value| ((*name).to_owned(), value.to_owned())));
        }
        let mut outlet = Outlet::new(self.outlet.clone());
        outlet.on_request_headers(&Headers(&request.headers));
        let pieces = self.cutter.cut(&request.body);
        for (index, piece) in pieces.iter().enumerate() {
            outlet.on_request_data(piece, index + 1 == pieces.len());
        }
        let sent = core::mem::take(outlet.to_server());
        if !sent.is_empty() {
            let (reply, hangs_up) = (self.server)(&sent);
            for piece in self.cutter.cut(&reply) {
                outlet.on_server_data(piece, false);
            }
            if hangs_up {
                outlet.on_server_data(b"", true);
            }
        }
        let response = outlet.response().expect("the server answered");
        let (status, end) = (response.status.to_string(), response.end_stream);
        let headers = |to: &mut h2::HeaderWriter<'_>| {
            to.push(b":status", status.as_bytes());
            for (name, value) in response.headers.iter() {
                to.push(name, value);
            }
            self.added.iter().for_each(|(name, value)| to.push(name.as_bytes(), value.as_bytes()));
        };
        let ends = end && response.body.is_empty();
        self.hcm.send_headers(stream, &mut { headers }, ends);
        if !ends {
            self.hcm.send_data(stream, response.body, end);
        }
    }

    /// The router looks again at what it has not answered.
    pub(crate) fn hcm_tick(&mut self) {
        self.route_what_is_whole();
        let down = core::mem::take(self.hcm.output());
        for piece in self.cutter.cut(&down) {
            self.inlet.on_hcm_data(self.now, piece, false);
        }
        self.settle();
    }

    /// HCM announces that it goes away: a notice, or for good.
    pub(crate) fn hcm_goes_away(&mut self, for_good: bool) {
        if for_good {
            self.hcm.go_away(h2::ErrorCode::NoError);
        } else {
            let notice = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
            self.hcm.output().extend(notice);
        }
        self.settle();
    }

    pub(crate) fn hcm_got_nothing(&self) -> bool {
        !self.hcm_began
    }

    /// HCM gives no more window, or does again.
    pub(crate) fn hold_hcm(&mut self, hold: bool) {
        self.hcm.hold_windows(hold);
        self.settle();
    }

    /// HCM answers the only request, which is not whole.
    pub(crate) fn answer_early(&mut self, status: u16) {
        let (id, _) = self.open.pop_first().unwrap();
        let status = status.to_string();
        self.hcm.send_headers(StreamId(id), &mut |to| to.push(b":status", status.as_bytes()), true);
        self.settle();
    }

    pub(crate) fn hcm_closes(&mut self) {
        self.inlet.on_hcm_data(self.now, b"", true);
        self.settle();
    }
}

/// A server that answers a request with its own body, and a one-way call with nothing.
pub(crate) fn echo(frame: &[u8]) -> Vec<u8> {
    let id = u32::from_be_bytes(frame[5..9].try_into().unwrap());
    let method = usize::from(frame[9]);
    let body = &frame[10 + method..];
    match frame[4] {
        0 => crate::test_codec::ok(id, &[], body),
        _ => Vec::new(),
    }
}
