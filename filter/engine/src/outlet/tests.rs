use std::{collections::BTreeMap, sync::Arc};

use meltemi_core::{FailureKind, Ordering};

use super::{Outlet, OutletShared};
use crate::{
    HeaderSource,
    config::{CodecConfig, OutletConfig},
    test_codec::{TestCodec, ok, one_way, request},
};

struct NoHeaders;

impl HeaderSource for NoHeaders {
    fn for_each(&self, _: &mut dyn FnMut(&[u8], &[u8])) {}
}

fn outlet() -> Outlet {
    let config = OutletConfig::new(CodecConfig { name: "test".to_owned(), options: BTreeMap::new() });
    Outlet::new(Arc::new(OutletShared::new(&config, Box::new(TestCodec(Ordering::Multiplexed))).unwrap()))
}

/// The details of a failure, and whether its connection lives on.
fn failure(outlet: &mut Outlet) -> (FailureKind, bool) {
    let response = outlet.response().unwrap();
    let details = response.headers.iter().find(|(name, _)| *name == b"x-meltemi-details").map(|(_, value)| value);
    (details.and_then(FailureKind::from_name).unwrap(), response.end_stream)
}

#[test]
fn what_a_server_says_before_it_is_asked_answers_nobody() {
    for (early, end) in [(&ok(1, &[], b"early")[..], false), (b"x", false), (b"", true)] {
        let mut outlet = outlet();
        let call = request(1, "a.b", &[], b"body");
        outlet.on_request_headers(&NoHeaders);
        outlet.on_request_data(&call[..5], false);
        outlet.on_server_data(early, end);
        assert!(outlet.response().is_none(), "the request has not ended");
        outlet.on_request_data(&call[5..], true);
        assert!(outlet.to_server().is_empty(), "it can be tried elsewhere");
        assert_eq!(failure(&mut outlet), (FailureKind::UpstreamReset, false));
        outlet.reset();
        outlet.on_request_headers(&NoHeaders);
        outlet.on_request_data(&call, true);
        assert_eq!(*outlet.to_server(), call);
    }
}

#[test]
fn metadata_that_http_cannot_carry_is_left_out() {
    let mut outlet = outlet();
    outlet.on_request_headers(&NoHeaders);
    outlet.on_request_data(&request(1, "a.b", &[], b""), true);
    let value = "\u{1}".repeat(255);
    let headers: Vec<_> = (0..80).map(|_| ("name", value.as_str())).collect();
    let reply = ok(1, &headers, b"done");
    outlet.on_server_data(&reply, false);
    let response = outlet.response().unwrap();
    assert!(response.body == reply && response.status == 200 && response.end_stream);
    let names: Vec<_> = response.headers.iter().map(|(name, _)| str::from_utf8(name).unwrap()).collect();
    assert_eq!(names, ["x-meltemi-unshown", "x-meltemi-reply", "content-length"]);
}

#[test]
fn a_reply_that_needs_its_request_is_understood() {
    use crate::test_bare::{BareCodec, call};

    let config = OutletConfig::new(CodecConfig { name: "bare".to_owned(), options: BTreeMap::new() });
    let shared = Arc::new(OutletShared::new(&config, Box::new(BareCodec)).unwrap());
    for (length, reply, rest, mark) in
        [(3, &[0, 1, 2][..], true, "ok"), (2, &[7, 1], true, "exception"), (1, &[0, 0], false, "ok")]
    {
        let mut outlet = Outlet::new(shared.clone());
        outlet.on_request_headers(&NoHeaders);
        outlet.on_request_data(&call(length, "get"), true);
        for piece in reply.chunks(1).take(usize::from(length)) {
            assert!(outlet.response().is_none());
            outlet.on_server_data(piece, false);
        }
        let response = outlet.response().unwrap();
        assert_eq!((response.body.len(), response.end_stream), (usize::from(length), true));
        assert!(response.headers.iter().any(|(_, value)| value == mark.as_bytes()));
        if !rest {
            let mut outlet = Outlet::new(shared.clone());
            outlet.on_request_headers(&NoHeaders);
            outlet.on_request_data(&call(length, "get"), true);
            outlet.on_server_data(reply, false);
            assert!(!outlet.response().unwrap().end_stream, "more than was asked for");
        }
    }
}

#[test]
fn one_outlet_serves_many_requests() {
    let mut outlet = outlet();
    for id in 0..3 {
        let call = request(id, "a.b", &[], b"body");
        outlet.on_request_headers(&NoHeaders);
        outlet.on_request_data(&call[..5], false);
        outlet.on_request_data(&call[5..], true);
        assert_eq!(*outlet.to_server(), call);
        assert!(outlet.response().is_none());
        let reply = ok(id, &[], b"done");
        outlet.on_server_data(&reply, false);
        let response = outlet.response().unwrap();
        assert_eq!((response.status, response.body, response.end_stream), (200, reply.as_slice(), true));
        assert!(outlet.response().is_none(), "given once");
        outlet.reset();
    }
}

#[test]
fn a_body_that_is_not_one_frame_is_refused() {
    let call = request(1, "a.b", &[], b"body");
    for body in [&call[..9], &[&call[..], b"x"].concat(), b"", &[0xff; 40]] {
        let mut outlet = outlet();
        outlet.on_request_headers(&NoHeaders);
        outlet.on_request_data(body, true);
        assert!(outlet.to_server().is_empty());
        let response = outlet.response().unwrap();
        assert!(response.status >= 400 && response.body.is_empty());
        let details = response.headers.iter().find(|(name, _)| *name == b"x-meltemi-details").map(|(_, value)| value);
        let kind = details.and_then(FailureKind::from_name);
        assert!(matches!(kind, Some(FailureKind::Malformed | FailureKind::TooLarge)), "{kind:?}");
    }
}

#[test]
fn a_one_way_call_is_answered_at_once() {
    let mut outlet = outlet();
    let call = one_way(1, "a.b", b"body");
    outlet.on_request_headers(&NoHeaders);
    outlet.on_request_data(&call, true);
    assert_eq!(*outlet.to_server(), call);
    let response = outlet.response().unwrap();
    assert_eq!((response.status, response.body.len()), (200, 0));
}

#[test]
fn a_large_one_way_call_is_answered_when_the_server_has_read_it() {
    let mut outlet = outlet();
    let call = one_way(1, "a.b", &[7; 100_000]);
    outlet.on_request_headers(&NoHeaders);
    outlet.on_request_data(&call, true);
    assert_eq!(*outlet.to_server(), call);
    assert!(outlet.ends_sending() && outlet.response().is_none());
    outlet.on_server_data(b"", true);
    assert!(!outlet.ends_sending());
    assert_eq!(outlet.response().unwrap().status, 200);
}

#[test]
fn a_large_request_is_not_kept_until_its_reply() {
    let mut outlet = outlet();
    let call = request(1, "a.b", &[], &[7; 1 << 20]);
    outlet.on_request_headers(&NoHeaders);
    outlet.on_request_data(&call[..9], false);
    outlet.on_request_data(&call[9..], true);
    assert_eq!(*outlet.to_server(), call);
    outlet.sent();
    assert!(outlet.to_server().is_empty());
    assert!(outlet.to_server.capacity() + outlet.request.capacity() <= 1 << 17);
    outlet.on_server_data(&ok(1, &[], b"done"), false);
    assert_eq!(outlet.response().unwrap().status, 200);
}
