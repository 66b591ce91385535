//! Upstream bridge `outlet`.

use meltemi_core::FailureKind;

use super::{CONFIG, envoy, outlet};
use crate::abi::fake::{Bridge, Response};

/// A bridge that has sent its request.
fn asked() -> Bridge {
    let bridge = outlet(CONFIG.as_bytes()).unwrap();
    bridge.headers(&[(":path", "/hello")]);
    bridge.data(&[b"hello\n"], true);
    bridge
}

fn response() -> Response {
    envoy(|e| e.response.take()).unwrap()
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

/// Envoy 1.38 gives bridges their configuration so.
#[test]
fn the_outlet_takes_a_binary_struct() {
    let config = b"\x0a\x14\x0a\x07version\x12\x09\x11\0\0\0\0\0\0\xf0\x3f\
        \x0a\x1c\x0a\x05codec\x12\x13\x2a\x11\x0a\x0f\x0a\x04name\x12\x07\x1a\x05lines";
    assert!(outlet(config).is_some(), "{:?}", envoy(|e| e.log.clone()));
}

/// Up to Envoy 1.39, which has none of the newer callbacks, as here.
#[test]
fn an_old_envoy_does_not_retry_what_would_destroy_the_bridge() {
    envoy(|e| e.retries = true);
    let bridge = asked();
    bridge.server_data(&[b"busy\n"]);
    let failed = response();
    assert_eq!((failed.status, failed.body.as_slice(), failed.end), (503, &b"busy\n"[..], true));
    assert_eq!(failed.headers["x-envoy-ratelimited"], "true");
    drop(bridge);
    let bridge = asked();
    bridge.server_data(&[b"fine\n"]);
    assert!(!response().headers.contains_key("x-envoy-ratelimited"));
    drop(bridge);
}

#[test]
fn a_bridge_that_its_own_response_destroyed_is_left_alone() {
    envoy(|e| e.resets = true);
    // A reply with its end; one whose connection is not to be used again; a panic; no body at all.
    for pieces in [&[&b"busy\n"[..]][..], &[b"fine\nmore"], &[b"bug\n"]] {
        let bridge = asked();
        bridge.server_data(pieces);
        let cut = response();
        assert!(cut.body.is_empty() && !cut.end, "only headers");
        drop(bridge);
    }
    let bridge = outlet(CONFIG.as_bytes()).unwrap();
    bridge.headers(&[]);
    bridge.data(&[b"no frame"], true);
    assert_eq!(response().status, u32::from(FailureKind::Malformed.http_status()));
}

/// Nobody resets the stream of a mirrored request.
#[test]
fn a_connection_that_is_given_up_is_closed_from_our_side_and_then_from_the_other() {
    let bridge = asked();
    bridge.server_data(&[b"fine\nmore"]);
    envoy(|e| {
        assert!(e.to_server_ended);
        let response = e.response.as_ref().unwrap();
        assert_eq!((response.body.as_slice(), response.end), (&b"fine\n"[..], false));
    });
    bridge.server_data(&[b"still more"]);
    bridge.server_closes();
    let ended = response();
    assert_eq!((ended.body.as_slice(), ended.end), (&b"fine\n"[..], true));
}

#[test]
fn frames_too_large_for_an_envoy_that_cannot_count_pieces_are_refused() {
    let config = |bytes: u32| {
        format!(r#"{{"version": 1, "codec": {{"name": "lines"}}, "limits": {{"max_frame_bytes": {bytes}}}}}"#)
    };
    assert!(outlet(config(32 << 20).as_bytes()).is_some());
    assert!(outlet(config((32 << 20) + 1).as_bytes()).is_none());
    assert!(envoy(|e| e.log.concat().contains("`limits.max_frame_bytes`")));
}

#[test]
fn a_body_in_many_pieces_arrives() {
    let bridge = outlet(CONFIG.as_bytes()).unwrap();
    bridge.headers(&[]);
    let pieces = vec![&b"x"[..]; 10_000];
    bridge.data(&pieces, false);
    bridge.data(&[b"\n"], true);
    assert_eq!(envoy(|e| e.to_server.len()), 10_001);
}
