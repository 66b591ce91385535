//! The hosts under a fake Envoy.

use meltemi_core::{
    Capabilities, Codec, CodecEntry, Connection, DecodeError, Decoded, EncodeError, Failure, Frame, FrameKind,
    InFlight, Limits, Metadata, Ordering, Outcome, Peer, Ticket,
};
use meltemi_engine::h2;

use crate::abi::fake::{Bridge, NetworkFilter, accept, envoy, version};

/// Lines: what a client sends is a method, what a server sends a result. The line `bug` is one.
struct Lines;

const LINES: CodecEntry = CodecEntry {
    name: "lines",
    summary: "",
    options: &[],
    service_aliases: &[],
    build: |options| options.check_names(&[]).map(|()| Box::new(Lines) as Box<dyn Codec>),
};

impl Codec for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Ordering::Ordered)
    }

    fn connect(&self, peer: Peer, _: &Limits) -> Box<dyn Connection> {
        Box::new(LineConnection(peer))
    }
}

struct LineConnection(Peer);

impl Connection for LineConnection {
    fn decode<'a>(&'a mut self, buf: &'a [u8], _: &dyn InFlight) -> Result<Decoded<'a>, DecodeError> {
        let Some(end) = buf.iter().position(|byte| *byte == b'\n') else {
            return Ok(Decoded::Incomplete { needed: 1 });
        };
        assert_ne!(&buf[..end], b"bug", "a bug of the codec");
        let kind = match self.0 {
            Peer::Client => FrameKind::Request,
            Peer::Server => FrameKind::Response(Outcome::Ok),
        };
        let metadata = Metadata::new(b"", &buf[..end]);
        Ok(Decoded::Frame(Frame { bytes: &buf[..=end], kind, id: 0, metadata, context: b"" }))
    }

    fn error_reply(&mut self, _: &Ticket, failure: &Failure<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend(format!("{}\n", failure.kind).as_bytes());
        Ok(())
    }

    fn reset(&mut self) {}
}

const CONFIG: &str = r#"{"version": 1, "codec": {"name": "lines"}}"#;

fn inlet(config: &str) -> Option<NetworkFilter> {
    crate::register(&[LINES]);
    NetworkFilter::new("inlet", config)
}

fn outlet(config: &[u8]) -> Option<Bridge> {
    crate::register(&[LINES]);
    Bridge::new(config)
}

/// The HTTP connection manager behind the inlet.
struct Manager(h2::Connection);

impl Manager {
    fn new() -> Self {
        let settings = h2::Settings { initial_window: 1 << 20, connection_window: 1 << 20, max_header_list: 64 * 1024 };
        Self(h2::Connection::server(&settings))
    }

    /// The requests that came in: stream and path.
    fn requests(&mut self) -> Vec<(h2::StreamId, String)> {
        let data = envoy(|e| core::mem::take(&mut e.to_next_filter));
        let (mut input, mut requests) = (data.as_slice(), Vec::new());
        while let Some(event) = self.0.next_event(&mut input).unwrap() {
            if let h2::Event::Headers { stream, headers, .. } = event {
                requests.push((stream, String::from_utf8_lossy(headers.first(b":path").unwrap()).into_owned()));
            }
        }
        requests
    }

    /// The bytes of a reply of the outlet.
    fn reply(&mut self, stream: h2::StreamId, body: &[u8]) -> Vec<u8> {
        let length = body.len().to_string();
        let headers: [(&[u8], &[u8]); 3] =
            [(b":status", b"200"), (b"content-length", length.as_bytes()), (b"x-meltemi-reply", b"ok")];
        self.0.send_headers(stream, &mut |to| headers.iter().for_each(|(name, value)| to.push(name, value)), false);
        self.0.send_data(stream, body, true);
        core::mem::take(self.0.output())
    }
}

#[test]
fn a_call_goes_through_the_inlet_and_is_counted() {
    let filter = inlet(CONFIG).unwrap();
    let mut manager = Manager::new();
    assert!(!filter.read(b"hel"));
    assert!(!filter.read(b"lo\n"));
    let requests = manager.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].1, "/hello");
    envoy(|e| {
        assert_eq!(e.filter_state["meltemi.method"], "hello");
        assert_eq!(e.metric("meltemi.lines.in_flight"), 1);
    });
    assert_eq!(filter.write(&manager.reply(requests[0].0, b"world\n")), b"world\n");
    filter.wake();
    envoy(|e| {
        let counts = ["requests", "replies", "duration_us", "bytes_in", "bytes_out", "in_flight", "panics"]
            .map(|name| e.metric(&format!("meltemi.lines.{name}")));
        assert_eq!(counts, [1, 1, 1, 6, 6, 0, 0]);
        assert_eq!(e.closed, None);
    });
}

#[test]
fn calls_of_a_client_that_is_gone_are_no_longer_in_flight() {
    let filter = inlet(CONFIG).unwrap();
    filter.read(b"one\ntwo\n");
    envoy(|e| assert_eq!(e.metric("meltemi.lines.in_flight"), 2));
    filter.client_closes();
    envoy(|e| assert_eq!(e.metric("meltemi.lines.in_flight"), 0));
}

#[test]
fn a_panic_costs_one_connection() {
    let filter = inlet(CONFIG).unwrap();
    filter.read(b"fine\n");
    assert!(!filter.read(b"bug\n"));
    envoy(|e| {
        assert_eq!(e.closed, Some(1), "at once");
        assert!(e.log.iter().any(|line| line.contains("a bug of the codec")), "{:?}", e.log);
        assert_eq!(e.metric("meltemi.lines.panics"), 1);
        assert_eq!(e.metric("meltemi.lines.in_flight"), 0);
        e.to_next_filter.clear();
    });
    filter.read(b"more\n");
    filter.client_closes();
    envoy(|e| assert!(e.to_next_filter.is_empty(), "the filter is left alone"));
}

#[test]
fn a_wrong_configuration_is_refused_and_named() {
    for (config, place) in [
        (r#"{"version": 1, "codec": {"name": "lines"}, "colour": 1}"#, "colour"),
        (r#"{"version": 2, "codec": {"name": "lines"}}"#, "version"),
        (r#"{"version": 1, "codec": {"name": "thrift"}}"#, "lines"),
        (r#"{"version": 1, "codec": {"name": "lines", "options": {"mode": "x"}}}"#, "mode"),
        ("", "configuration"),
    ] {
        assert!(inlet(config).is_none(), "{config}");
        assert!(outlet(config.as_bytes()).is_none(), "{config}");
        let log = envoy(|e| core::mem::take(&mut e.log));
        assert_eq!(log.len(), 2);
        assert!(log.iter().all(|line| line.contains(place)), "{log:?}");
    }
    assert!(NetworkFilter::new("outlet", CONFIG).is_none());
}

#[test]
fn other_destinations_pass_untouched() {
    let config = r#"{"version": 1, "codec": {"name": "lines"}, "destinations": [{"address": "10.0.0.1", "port": 99}]}"#;
    envoy(|e| e.local_address = Some(("10.0.0.2", 99)));
    let filter = inlet(config).unwrap();
    assert!(filter.read(b"GET / HTTP/1.1\n"));
    assert_eq!(envoy(|e| e.read.len()), 15, "left for the next filter");
    assert_eq!(filter.write(b"HTTP/1.1 200\n"), b"HTTP/1.1 200\n");

    envoy(|e| {
        e.read.clear();
        e.local_address = Some(("10.0.0.1", 99));
    });
    assert!(!inlet(config).unwrap().read(b"hello\n"));
    assert_eq!(Manager::new().requests().len(), 1);
}

#[test]
fn only_declared_destinations_get_another_protocol() {
    let config =
        r#"{"version": 1, "destinations": [{"port": 99}], "application_protocols": ["istio-http/1.1", "h2c"]}"#;
    envoy(|e| e.local_address = Some(("10.0.0.1", 98)));
    accept(config);
    assert!(envoy(|e| e.protocols.is_empty()));
    envoy(|e| e.local_address = Some(("10.0.0.1", 99)));
    accept(config);
    assert_eq!(envoy(|e| e.protocols.clone()), ["istio-http/1.1", "h2c"]);
}

#[test]
fn a_slow_client_is_not_read_and_its_replies_retire_their_connection() {
    let filter = inlet(CONFIG).unwrap();
    let name = "0";
    filter.above_watermark();
    filter.wake();
    assert!(envoy(|e| e.reading_disabled));
    let bridge = outlet(CONFIG.as_bytes()).unwrap();
    bridge.headers(&[("x-meltemi-connection", name)]);
    bridge.data(&[b"hello\n"], true);
    bridge.server_data(&[b"world\n"]);
    let response = envoy(|e| e.response.take()).unwrap();
    assert!(!response.end && response.headers.contains_key("x-meltemi-retire"));
    assert_eq!(response.body, b"world\n");

    filter.below_watermark();
    filter.wake();
    assert!(!envoy(|e| e.reading_disabled));
    let bridge = outlet(CONFIG.as_bytes()).unwrap();
    bridge.headers(&[("x-meltemi-connection", name)]);
    bridge.data(&[b"hello\n"], true);
    bridge.server_data(&[b"world\n"]);
    let response = envoy(|e| e.response.take()).unwrap();
    assert!(response.end && !response.headers.contains_key("x-meltemi-retire"));
}

#[test]
fn a_call_goes_through_the_outlet_in_any_pieces() {
    let bridge = outlet(CONFIG.as_bytes()).unwrap();
    bridge.headers(&[(":path", "/hello")]);
    bridge.data(&[b"h", b"el"], false);
    assert!(envoy(|e| e.to_server.is_empty()), "only whole frames");
    bridge.data(&[b"lo", b"\n"], true);
    assert_eq!(envoy(|e| e.to_server.clone()), b"hello\n");
    bridge.server_data(&[b"wor"]);
    bridge.server_data(&[b"l", b"d\n"]);
    let response = envoy(|e| e.response.take()).unwrap();
    assert_eq!((response.status, response.body.as_slice(), response.end), (200, &b"world\n"[..], true));
    assert_eq!(response.headers["content-length"], "6");
    assert_eq!(response.headers["x-meltemi-reply"], "ok");
}

#[test]
fn nothing_is_answered_before_the_request_has_ended() {
    let config = r#"{"version": 1, "codec": {"name": "lines"}, "limits": {"max_frame_bytes": 8}}"#;
    let bridge = outlet(config.as_bytes()).unwrap();
    bridge.headers(&[]);
    bridge.data(&[&[b'x'; 100]], false);
    assert!(envoy(|e| e.response.is_none()));
    bridge.data(&[], true);
    assert_eq!(envoy(|e| e.response.take()).unwrap().status, 413);
}

#[test]
fn a_panic_answers_the_request_and_retires_the_connection() {
    let bridge = outlet(CONFIG.as_bytes()).unwrap();
    bridge.headers(&[]);
    bridge.data(&[b"hello\n"], true);
    bridge.server_data(&[b"bug\n"]);
    let response = envoy(|e| e.response.take()).unwrap();
    assert_eq!((response.status, response.end), (500, false));
    assert!(response.headers.contains_key("x-meltemi-retire"));
    bridge.server_data(&[b"more\n"]);
    assert!(envoy(|e| e.response.is_none()));
}

const ROUTES: &str = r#"{"version": 1, "codec": {"name": "lines"}, "max_in_flight": 1, "routes": [
    {"matches": [{"key": "method", "test": {"exact": "denied"}}], "deny": true},
    {"clusters": [{"name": "one", "weight": 1}]}]}"#;

fn relay() -> NetworkFilter {
    crate::register(&[LINES]);
    NetworkFilter::new("relay", ROUTES).unwrap()
}

#[test]
fn the_relay_sends_nothing_on_before_it_has_a_cluster() {
    let filter = relay();
    assert!(!filter.read(b"denied\nhel"));
    envoy(|e| {
        assert_eq!((e.to_client.as_slice(), e.read.as_slice()), (&b"denied\n"[..], &b""[..]));
        assert!(e.filter_state.is_empty());
    });
    assert!(filter.read(b"lo\n"));
    envoy(|e| {
        assert_eq!(e.read, b"hello\n");
        assert_eq!(e.filter_state["envoy.tcp_proxy.cluster"], "one");
    });
    assert_eq!(filter.write(b"world\n"), b"world\n");
}

#[test]
fn bytes_without_a_way_to_say_their_cluster_are_not_sent() {
    let filter = relay();
    envoy(|e| e.refuses_state = true);
    assert!(!filter.read(b"hello\n"));
    envoy(|e| {
        assert!(e.read.is_empty() && e.to_next_filter.is_empty());
        assert_eq!(e.closed, Some(1));
    });
}

#[test]
fn the_end_of_the_client_goes_on_behind_requests_that_waited() {
    let filter = relay();
    assert!(!filter.read_end(b"one\ntwo\n", true), "not the end yet");
    envoy(|e| {
        assert_eq!((e.to_next_filter.as_slice(), e.next_filter_ended), (&b"one\n"[..], false));
        assert!(e.reading_disabled);
    });
    assert_eq!(filter.write(b"1\n"), b"1\n");
    envoy(|e| assert_eq!((e.to_next_filter.as_slice(), e.next_filter_ended), (&b"one\ntwo\n"[..], false)));
    assert_eq!(filter.write(b"2\n"), b"2\n");
    envoy(|e| assert!(e.next_filter_ended && e.closed.is_none()));
}

#[test]
fn the_end_of_the_client_goes_on_with_its_last_request() {
    let filter = relay();
    filter.read(b"one\n");
    filter.write(b"1\n");
    envoy(|e| e.read.clear());
    filter.read(b"two\n");
    envoy(|e| e.read.clear());
    filter.write(b"2\n");
    assert!(filter.read_end(b"", true), "nothing waits");
    envoy(|e| assert!(!e.next_filter_ended, "Envoy itself tells the next filter"));
}

#[test]
fn a_client_that_reads_nothing_is_not_refused_for_ever() {
    let filter = relay();
    filter.above_watermark();
    filter.wake();
    assert!(envoy(|e| e.reading_disabled));
    filter.read(b"denied\ndenied\nhello\n");
    assert!(envoy(|e| e.to_client.is_empty()));
    filter.below_watermark();
    filter.wake();
    envoy(|e| {
        assert_eq!(e.to_client, b"denied\ndenied\n");
        assert_eq!(e.to_next_filter, b"hello\n");
    });
}

/// Envoy 1.38 gives bridges their configuration so.
#[test]
fn the_outlet_takes_a_binary_struct() {
    let config = b"\x0a\x14\x0a\x07version\x12\x09\x11\0\0\0\0\0\0\xf0\x3f\
        \x0a\x1c\x0a\x05codec\x12\x13\x2a\x11\x0a\x0f\x0a\x04name\x12\x07\x1a\x05lines";
    assert!(outlet(config).is_some(), "{:?}", envoy(|e| e.log.clone()));
}

#[test]
fn an_envoy_without_newer_callbacks_is_told_the_older_version() {
    assert_eq!(version(), c"v0.1.0");
}
