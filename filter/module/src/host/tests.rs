//! The hosts under a fake Envoy.

use meltemi_core::testing::lines::LINES;
use meltemi_engine::h2;

use crate::abi::fake::{Bridge, NetworkFilter, accept, close, envoy, version};

mod outlet;
mod relay;

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
fn the_second_inlet_of_a_chain_lets_everything_pass() {
    let (first, second) = (inlet(CONFIG).unwrap(), inlet(CONFIG).unwrap());
    assert!(!first.read(b"hello\n"), "taken");
    assert!(second.read(b"PRI * HTTP/2.0\r\n"), "passed on");
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

/// As real ones do: HCM answers, says that it takes more, and acknowledges, all within its read.
#[test]
fn a_manager_may_answer_while_it_is_given_a_request() {
    let filter = inlet(CONFIG).unwrap();
    let mut manager = Manager::new();
    envoy(|e| {
        e.next_filter = Some(Box::new(move |_, _| {
            let mut answer = Vec::new();
            for (stream, path) in manager.requests() {
                answer.extend(manager.reply(stream, format!("{}\n", &path[1..]).as_bytes()));
            }
            answer.extend(core::mem::take(manager.0.output()));
            answer
        }));
    });
    for method in ["one", "two", "three"] {
        filter.read(format!("{method}\n").as_bytes());
        filter.wake();
        assert_eq!(envoy(|e| core::mem::take(&mut e.to_client)), format!("{method}\n").as_bytes());
    }
    envoy(|e| assert_eq!((e.metric("meltemi.lines.replies"), e.metric("meltemi.lines.in_flight")), (3, 0)));
}

/// The end of the connection comes while the request is being given to it.
#[test]
fn a_manager_may_hang_up_while_it_is_given_a_request() {
    let filter = inlet(CONFIG).unwrap();
    envoy(|e| {
        e.next_filter = Some(Box::new(|_, _| {
            close();
            Vec::new()
        }));
    });
    filter.read(b"one\n");
    filter.wake();
    envoy(|e| assert_eq!((e.metric("meltemi.lines.requests"), e.metric("meltemi.lines.in_flight")), (1, 0)));
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
        (r#"{"version": 2, "codec": {"name": "lines"}, "colour": 1}"#, "version"),
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
fn an_envoy_without_newer_callbacks_is_told_the_older_version() {
    assert_eq!(version(), c"v0.1.0");
}
