//! The plugins under a fake Envoy.

use core::mem::take;

use meltemi_core::testing::lines::LINES;
use meltemi_engine::h2;

use crate::{
    abi::fake::envoy,
    vm::{self, Action},
};

const READ: u32 = 2;
const WRITE: u32 = 3;
const CONFIGURATION: u32 = 7;
const ROOT: u32 = 1;
const CONNECTION: u32 = 2;

const CONFIG: &str = r#"{"version": 1, "codec": {"name": "lines"}}"#;
const ROUTES: &str = r#"{"version": 1, "codec": {"name": "lines"}, "max_in_flight": 1, "routes": [
    {"matches": [{"key": "method", "test": {"exact": "denied"}}], "deny": true},
    {"clusters": [{"name": "one", "weight": 1}]}]}"#;

/// Configures a plugin, as Envoy does.
fn configure(root_id: &str, config: &str) -> bool {
    vm::register(&[LINES]);
    envoy(|e| {
        *e = Default::default();
        e.buffers.insert(CONFIGURATION, config.as_bytes().to_vec());
        e.properties.insert("plugin_root_id".to_owned(), root_id.as_bytes().to_vec());
        e.properties.insert("destination\0address".to_owned(), b"10.0.0.1:80".to_vec());
    });
    vm::on_create(ROOT, 0);
    vm::on_configure(ROOT, config.len())
}

/// A connection of a plugin.
fn connect(root_id: &str, config: &str) -> Action {
    assert!(configure(root_id, config), "{:?}", envoy(|e| take(&mut e.log)));
    vm::on_create(CONNECTION, ROOT);
    vm::with(CONNECTION, |connection| connection.on_new_connection())
}

/// The peer in front sends: what went on to the filters behind.
fn read(bytes: &[u8]) -> Vec<u8> {
    let size = envoy(|e| {
        let buffer = e.buffers.entry(READ).or_default();
        buffer.extend_from_slice(bytes);
        buffer.len()
    });
    let action = vm::with(CONNECTION, |connection| connection.on_read(size, false));
    envoy(|e| {
        let mut passed = take(&mut e.resumed).concat();
        if action == Action::Continue {
            passed.extend(e.buffers.insert(READ, Vec::new()).unwrap_or_default());
        }
        passed
    })
}

/// The filters behind write: what the peer in front gets.
fn write(bytes: &[u8]) -> Vec<u8> {
    envoy(|e| e.buffers.insert(WRITE, bytes.to_vec()));
    let action = vm::with(CONNECTION, |connection| connection.on_write(bytes.len(), false));
    assert_eq!(action, Action::Continue);
    envoy(|e| e.buffers.remove(&WRITE)).unwrap()
}

fn tick() -> Vec<u8> {
    envoy(|e| e.context = ROOT);
    vm::on_tick(ROOT);
    assert_eq!(envoy(|e| e.context), ROOT);
    envoy(|e| take(&mut e.resumed).concat())
}

fn metric(name: &str) -> i64 {
    // What was put by is told before a plugin goes.
    vm::on_done(ROOT);
    envoy(|e| e.metrics[&format!("meltemi.lines.{name}")])
}

/// An HTTP connection manager.
fn manager() -> h2::Connection {
    h2::Connection::server(&h2::Settings::default())
}

/// Streams and paths of the requests in these bytes.
fn requests(manager: &mut h2::Connection, bytes: &[u8]) -> Vec<(h2::StreamId, String)> {
    let (mut input, mut requests) = (bytes, Vec::new());
    while let Some(event) = manager.next_event(&mut input).unwrap() {
        if let h2::Event::Headers { stream, headers, .. } = event {
            requests.push((stream, String::from_utf8_lossy(headers.first(b":path").unwrap()).into_owned()));
        }
    }
    requests
}

fn reply(manager: &mut h2::Connection, stream: h2::StreamId, body: &[u8]) -> Vec<u8> {
    let headers: [(&[u8], &[u8]); 2] = [(b":status", b"200"), (b"x-meltemi-reply", b"ok")];
    manager.send_headers(stream, &mut |to| headers.iter().for_each(|(name, value)| to.push(name, value)), false);
    manager.send_data(stream, body, true);
    take(manager.output())
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    for (root_id, config, reason) in [
        ("inlet", "{}", "missing field `version`"),
        (
            "inlet",
            r#"{"version": 1, "codec": {"name": "none"}}"#,
            "field `codec.name`: this module has no codec `none`",
        ),
        ("relay", CONFIG, "missing field `routes`"),
        ("bridge", CONFIG, "no such filter as `bridge`"),
    ] {
        assert!(!configure(root_id, config));
        let log = envoy(|e| e.log.join("\n"));
        assert!(log.starts_with("meltemi: ") && log.contains(reason), "{log}");
        assert_eq!(vm::with(CONNECTION, |_| Action::Continue), Action::Pause, "no filter, no bytes");
    }
}

#[test]
fn a_call_goes_through_the_inlet_and_is_counted() {
    assert_eq!(connect("inlet", CONFIG), Action::Continue);
    let mut manager = manager();
    assert_eq!(read(b"hel"), b"");
    let asked = read(b"lo\n");
    let (stream, path) = requests(&mut manager, &asked).remove(0);
    assert_eq!(path, "/hello");
    assert_eq!((metric("requests"), metric("in_flight")), (1, 1));
    assert_eq!(envoy(|e| e.properties["meltemi.method"].clone()), b"hello");
    assert_eq!(write(&reply(&mut manager, stream, b"world\n")), b"world\n");
    assert_eq!((metric("replies"), metric("in_flight")), (1, 0));
    // The acknowledgement of the manager's settings, which it must not be given while it writes.
    assert_eq!(envoy(|e| e.tick), 1);
    assert!(!tick().is_empty());
    assert_eq!(envoy(|e| e.tick), 0);
}

#[test]
fn what_only_we_answer_is_written_when_the_manager_is_asked_to_write() {
    connect("inlet", CONFIG);
    let mut manager = manager();
    assert_eq!(requests(&mut manager, &read(b"bad\n")), []);
    let pong = take(manager.output());
    assert!(!pong.is_empty(), "it was sent a PING");
    assert_eq!(write(&pong), b"malformed\n");
    assert_eq!(metric("errors.malformed"), 1);
    assert!(!envoy(|e| e.closed));
}

#[test]
fn a_client_that_leaves_is_taken_off_the_gauge() {
    connect("inlet", CONFIG);
    read(b"hello\n");
    assert_eq!(metric("in_flight"), 1);
    vm::on_closed(CONNECTION, false);
    assert_eq!(metric("in_flight"), 0);
    vm::on_delete(CONNECTION);
    assert_eq!(vm::with(CONNECTION, |_| Action::Continue), Action::Pause);
}

#[test]
fn the_second_inlet_of_a_chain_lets_everything_pass() {
    connect("inlet", CONFIG);
    vm::on_create(9, ROOT);
    assert_eq!(vm::with(9, |connection| connection.on_new_connection()), Action::Continue);
    assert_eq!(vm::with(9, |connection| connection.on_read(4, false)), Action::Continue);
}

#[test]
fn other_destinations_pass_untouched() {
    let config = r#"{"version": 1, "codec": {"name": "lines"}, "destinations": [{"port": 81}]}"#;
    connect("inlet", config);
    assert_eq!(vm::with(CONNECTION, |connection| connection.on_read(4, false)), Action::Continue);
    assert_eq!(vm::with(CONNECTION, |connection| connection.on_write(4, false)), Action::Continue);
}

#[test]
fn clients_without_room_wait_in_envoys_buffer() {
    connect("inlet", r#"{"version": 1, "codec": {"name": "lines"}, "max_in_flight": 1}"#);
    let mut manager = manager();
    let (stream, _) = requests(&mut manager, &read(b"one\n")).remove(0);
    assert_eq!(read(b"two\n"), b"");
    assert_eq!(envoy(|e| e.buffers[&READ].clone()), b"two\n");
    assert_eq!(write(&reply(&mut manager, stream, b"1\n")), b"1\n");
    assert_eq!(requests(&mut manager, &tick())[0].1, "/two");
    assert_eq!(envoy(|e| e.buffers[&READ].clone()), b"");
}

#[test]
fn an_outlet_carries_a_call_and_answers_one_way_calls() {
    connect("outlet", CONFIG);
    let (mut router, mut manager) = (h2::Connection::client(&h2::Settings::default()), manager());
    let mut ask = |router: &mut h2::Connection, line: &[u8]| {
        let head: [(&[u8], &[u8]); 2] = [(b":method", b"POST"), (b":path", b"/x")];
        let stream = router.open(&mut |to| head.iter().for_each(|(name, value)| to.push(name, value)), false).unwrap();
        router.send_data(stream, line, true);
        let bytes = read(take(router.output()).as_slice());
        let (mut input, mut sent) = (bytes.as_slice(), Vec::new());
        while let Some(event) = manager.next_event(&mut input).unwrap() {
            match event {
                h2::Event::Headers { stream, .. } => {
                    manager.send_headers(stream, &mut |to| to.push(b":status", b"200"), false);
                }
                h2::Event::Data { data, .. } => sent.extend_from_slice(data),
                _ => {}
            }
        }
        assert_eq!(sent, line);
        let got = write(&take(manager.output()));
        let mut input = got.as_slice();
        let mut ended = false;
        while let Some(event) = router.next_event(&mut input).unwrap() {
            ended |= matches!(event, h2::Event::Headers { end_stream: true, .. });
        }
        ended
    };
    assert!(ask(&mut router, b"fire\n"), "answered by the manager's PONG");
    assert!(!ask(&mut router, b"call\n"), "the server is to answer");
}

#[test]
fn the_relay_sends_nothing_on_before_it_has_a_cluster() {
    assert_eq!(connect("relay", ROUTES), Action::Pause);
    assert_eq!(read(b"hel"), b"");
    assert_eq!(envoy(|e| e.cluster.clone()), None);
    assert_eq!(read(b"lo\n"), b"hello\n");
    assert_eq!(envoy(|e| e.cluster.clone()).unwrap(), b"\x0a\x17envoy.tcp_proxy.cluster\x12\x03one");
    assert_eq!(write(b"world\n"), b"world\n");
    assert_eq!((metric("replies"), metric("in_flight")), (1, 0));
}

#[test]
fn what_is_not_changed_is_not_written_again() {
    connect("relay", ROUTES);
    assert_eq!((read(b"one\n"), write(b"1\n")), (b"one\n".to_vec(), b"1\n".to_vec()));
    envoy(|e| e.writes = 0);
    assert_eq!((read(b"two\n"), write(b"2\n")), (b"two\n".to_vec(), b"2\n".to_vec()));
    assert_eq!(envoy(|e| e.writes), 0);
    assert_eq!((read(b"thr"), read(b"ee\n")), (b"".to_vec(), b"three\n".to_vec()));
    assert_eq!((write(b"3"), write(b"\n")), (b"".to_vec(), b"3\n".to_vec()), "whole");
    assert_eq!((metric("requests"), metric("replies"), metric("in_flight")), (3, 3, 0));
}

#[test]
fn statistics_are_told_every_few_milliseconds() {
    connect("relay", ROUTES);
    read(b"one\n");
    assert_eq!(envoy(|e| (e.metrics["meltemi.lines.requests"], e.tick)), (0, 10));
    tick();
    assert_eq!(envoy(|e| (e.metrics["meltemi.lines.requests"], e.tick)), (1, 10), "there may be more soon");
    tick();
    assert_eq!(envoy(|e| e.tick), 0);
}

#[test]
fn a_relay_that_cannot_answer_closes_and_counts() {
    connect("relay", ROUTES);
    assert_eq!(read(b"denied\n"), b"");
    assert!(envoy(|e| e.closed));
    assert_eq!((metric("errors.denied"), metric("unanswered")), (1, 1));
}

#[test]
fn an_answer_of_the_relay_waits_for_the_servers() {
    connect("relay", &ROUTES.replace(r#""max_in_flight": 1, "#, ""));
    assert_eq!(read(b"hello\ndenied\n"), b"hello\n");
    assert!(!envoy(|e| e.closed));
    assert_eq!(write(b"world\n"), b"world\ndenied\n");
    assert_eq!(metric("unanswered"), 0);
}

#[test]
fn what_waits_for_room_makes_way_for_what_goes_on() {
    connect("relay", ROUTES);
    assert_eq!(read(b"one\ntwo\n"), b"one\n");
    assert_eq!(read(b"three\n"), b"");
    for (reply, next) in [(b"1\n", &b"two\n"[..]), (b"2\n", b"three\n"), (b"3\n", b"")] {
        assert_eq!(write(reply), reply);
        assert_eq!(tick(), next);
    }
}

#[test]
fn the_end_of_the_client_goes_on_with_all_that_it_sent() {
    connect("relay", ROUTES);
    envoy(|e| e.buffers.insert(READ, b"one\ntwo\n".to_vec()));
    vm::with(CONNECTION, |connection| connection.on_read(8, true));
    // Envoy says that it is the end with the first that goes on.
    assert_eq!(envoy(|e| take(&mut e.resumed)), [b"one\ntwo\n".to_vec()]);
    assert_eq!(write(b"1\n2\n"), b"1\n2\n");
    assert_eq!(metric("in_flight"), 0);
}

#[test]
fn an_accepted_call_goes_before_the_connection_ends() {
    connect("relay", ROUTES);
    assert_eq!(read(b"fire\ndenied\n"), b"fire\n");
    assert!(envoy(|e| e.closed));
    assert_eq!((metric("one_way"), metric("unanswered")), (1, 1));
}

#[test]
fn bytes_without_a_way_to_say_their_cluster_are_not_sent() {
    connect("relay", ROUTES);
    let size = envoy(|e| {
        e.buffers.insert(READ, b"hello\n".to_vec());
        e.refuses_cluster = true;
        6
    });
    vm::with(CONNECTION, |connection| connection.on_read(size, false));
    assert!(envoy(|e| e.closed && e.resumed.is_empty()));
}

#[test]
fn an_envoy_that_answers_nothing_ends_no_vm() {
    assert!(configure("inlet", CONFIG));
    assert_eq!(vm::on_new_connection(99), Action::Pause, "of another plugin");
    assert!(envoy(|e| e.closed));
    for root_id in ["inlet", "outlet", "relay"] {
        connect(root_id, if root_id == "relay" { ROUTES } else { CONFIG });
        envoy(|e| e.broken = true);
        vm::with(CONNECTION, |connection| connection.on_read(100, false));
        vm::with(CONNECTION, |connection| connection.on_write(100, true));
        vm::on_tick(ROOT);
        vm::on_delete(CONNECTION);
    }
}
