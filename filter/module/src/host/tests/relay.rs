//! Network filter `relay`.

use super::{LINES, envoy};
use crate::abi::fake::{NetworkFilter, close};

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

#[test]
fn service_and_method_of_the_routed_call_are_filter_state() {
    let filter = relay();
    filter.read(b"denied\n");
    envoy(|e| assert!(e.filter_state.is_empty()));
    filter.read(b"one\n");
    filter.write(b"1\n");
    filter.read(b"two\n");
    envoy(|e| {
        assert_eq!((e.filter_state["meltemi.method"].as_str(), e.filter_state["meltemi.service"].as_str()), ("one", ""))
    });
}

#[test]
fn calls_that_the_server_took_with_it_are_counted() {
    let filter = relay();
    filter.read(b"denied\none\n");
    close();
    envoy(|e| {
        let counts = ["requests", "errors.denied", "errors.upstream_reset", "in_flight"]
            .map(|name| e.metric(&format!("meltemi.lines.{name}")));
        assert_eq!(counts, [2, 1, 1, 0]);
    });
}

#[test]
fn calls_that_the_client_gave_up_are_no_failures_of_the_server() {
    let filter = relay();
    filter.read(b"one\n");
    filter.client_closes();
    envoy(|e| {
        assert_eq!((e.metric("meltemi.lines.errors.upstream_reset"), e.metric("meltemi.lines.in_flight")), (0, 0));
    });
}

#[test]
fn a_server_that_closes_with_a_call_in_flight_is_told_to_the_client() {
    let filter = relay();
    filter.read(b"one\n");
    assert_eq!(filter.write_end(b""), b"upstream_reset\n");
    filter.wake();
    envoy(|e| {
        assert_eq!((e.closed, e.metric("meltemi.lines.errors.upstream_reset")), (Some(0), 1));
    });
}

#[test]
fn a_server_may_answer_while_it_is_given_a_request() {
    let filter = relay();
    envoy(|e| e.next_filter = Some(Box::new(|data, _| data.to_ascii_uppercase())));
    filter.above_watermark();
    filter.wake();
    filter.read(b"one\n");
    filter.below_watermark();
    filter.wake();
    envoy(|e| {
        assert_eq!((e.to_client.as_slice(), e.to_next_filter.as_slice()), (&b"ONE\n"[..], &b"one\n"[..]));
        assert_eq!((e.metric("meltemi.lines.replies"), e.metric("meltemi.lines.in_flight")), (1, 0));
    });
}

/// `tcp_proxy` without a server to connect to.
#[test]
fn the_next_filter_may_hang_up_while_it_is_given_a_request() {
    let filter = relay();
    envoy(|e| {
        e.next_filter = Some(Box::new(|_, _| {
            close();
            Vec::new()
        }));
    });
    filter.read_end(b"one\ntwo\n", true);
    filter.wake();
    envoy(|e| {
        assert_eq!((e.metric("meltemi.lines.errors.upstream_reset"), e.metric("meltemi.lines.in_flight")), (1, 0));
    });
}

#[test]
fn a_panic_of_the_relay_costs_one_connection() {
    let filter = relay();
    assert!(!filter.read(b"bug\n"));
    envoy(|e| assert_eq!((e.closed, e.metric("meltemi.lines.panics")), (Some(1), 1)));
}
