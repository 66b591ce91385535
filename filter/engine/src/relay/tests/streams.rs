//! Frames that are neither requests nor replies.

use super::*;
use crate::test_codec::{HANDSHAKE, STREAM_CLOSE, STREAM_DATA, STREAM_OPEN, StreamCodec};

fn in_all_stream_pieces(routes: Vec<RouteConfig>, scenario: impl Fn(&mut Bench)) {
    in_all_cuttings(|cutter| {
        let codec = Box::new(StreamCodec(Ordering::Multiplexed));
        let mut bench = Bench::with(&config(routes.clone()), codec, cutter);
        scenario(&mut bench);
        bench.cutter
    });
}

#[test]
fn a_stream_is_routed_like_a_request() {
    in_all_stream_pieces(routes(), |bench| {
        let refused = [
            frame(STREAM_OPEN, 1, "s.denied", b""),
            frame(STREAM_DATA, 1, "", b"for nobody"),
            frame(STREAM_CLOSE, 1, "", b""),
        ];
        assert_eq!(bench.send(&refused.concat()).got(), (Vec::new(), failed(1, "denied", FailureKind::Denied)));
        assert_eq!(bench.relay.cluster(), None);
        let stream =
            [frame(STREAM_OPEN, 2, "s.other", b""), frame(STREAM_DATA, 2, "", b"up"), frame(STREAM_CLOSE, 2, "", b"")];
        assert_eq!(bench.send(&stream.concat()).got().0, stream.concat());
        assert_eq!(bench.relay.cluster(), Some("two"));
        let down = [frame(STREAM_DATA, 2, "", b"down"), frame(STREAM_CLOSE, 2, "", b"")].concat();
        assert_eq!(bench.answer(&down).got().1, down);
        assert_eq!(bench.relay.take_stats().in_flight, 0);
    });
}

#[test]
fn an_open_stream_is_answered_when_its_server_is_lost() {
    in_all_stream_pieces(routes(), |bench| {
        bench.send(&frame(STREAM_OPEN, 2, "s.hello", b"")).server_ends();
        assert_eq!(bench.take().got().1, failed(2, "hello", FailureKind::UpstreamReset));
    });
}

#[test]
fn a_handshake_takes_the_route_that_asks_for_nothing() {
    let catch_all = RouteConfig { matches: Vec::new(), ..route("", "rest") };
    let routes: Vec<_> = routes().into_iter().chain([catch_all.clone()]).collect();
    let opening = [frame(HANDSHAKE, 0, "s.hello", b"hi"), request(1, "s.hello", &[], b"")].concat();
    in_all_pieces(&config(routes), Ordering::Multiplexed, |bench| {
        assert_eq!(bench.send(&opening).got().0, opening);
        assert_eq!(bench.relay.cluster(), Some("rest"));
    });
}

#[test]
fn a_handshake_that_may_go_nowhere_ends_the_connection() {
    let denied = RouteConfig { matches: Vec::new(), deny: true, ..RouteConfig::default() };
    for routes in [routes(), vec![denied]] {
        in_all_pieces(&config(routes), Ordering::Multiplexed, |bench| {
            let opening = [frame(HANDSHAKE, 0, "s.hello", b"hi"), request(1, "s.hello", &[], b"")].concat();
            assert_eq!(bench.send(&opening).got(), (Vec::new(), Vec::new()));
            assert_eq!(bench.relay.close(), Some(Close::Flush));
            assert_eq!(bench.relay.take_stats().errors().iter().sum::<u64>(), 1);
        });
    }
}

#[test]
fn replies_that_need_their_request_are_understood() {
    use crate::test_bare::{BareCodec, call};

    let change = vec![ChangeConfig { key: "note".into(), value: Some("!".into()) }];
    let routes = vec![
        RouteConfig { deny: true, ..route("denied", "none") },
        RouteConfig { response_mutation: change, ..RouteConfig { matches: Vec::new(), ..route("", "one") } },
    ];
    in_all_cuttings(|cutter| {
        let mut bench = Bench::with(&config(routes.clone()), Box::new(BareCodec), cutter);
        let sent = [call(3, "open"), call(1, "shut")].concat();
        bench.send(&[&sent[..], &call(7, "denied"), &call(2, "shut")].concat());
        assert_eq!(bench.got().0, [&sent[..], &call(2, "shut")].concat());
        bench.answer(&[0, 7, 8, 0]);
        assert_eq!(bench.got().1, [&[0, 7, b'!', 0][..], b"\x01denied"].concat());
        assert_eq!(bench.answer(&[0, 9]).got().1, [0, 9]);
        assert_eq!(bench.relay.take_stats().in_flight, 0);
        bench.answer(&[0]);
        assert_eq!(bench.relay.close(), Some(Close::Flush), "nobody asked");
        bench.cutter
    });
}
