//! How connections end.

use super::*;
use crate::test_codec::{EMPTY, ENDLESS, PUSH};

const NONSENSE: [u8; 9] = [0, 0, 0, 9, 99, 0, 0, 0, 0];

#[test]
fn what_a_server_leaves_open_is_answered() {
    for ordering in ORDERS {
        in_all_pieces(&config(routes()), ordering, |bench| {
            bench.send(&[request(1, "s.hello", &[], b""), request(2, "s.hello", &[], b""), heartbeat(3)].concat());
            bench.answer(&ok(1, &[], b"")[..6]).server_ends();
            let reset = |id| failed(id, "hello", FailureKind::UpstreamReset);
            assert_eq!(bench.take().got().1, [reset(1), reset(2)].concat());
            assert_eq!(bench.relay.close(), Some(Close::Flush));
            assert_eq!(bench.relay.take_stats().in_flight, 0);
        });
    }
}

#[test]
fn requests_that_waited_for_a_lost_server_are_answered_too() {
    let config = RelayConfig { max_in_flight: 1, ..config(routes()) };
    for ordering in ORDERS {
        in_all_pieces(&config, ordering, |bench| {
            let calls: Vec<_> = (0..3).map(|id| request(id, "s.hello", &[], b"")).collect();
            assert_eq!(bench.send(&calls.concat()).got().0, calls[0]);
            bench.reads(false);
            bench.server_ends();
            let reset: Vec<u8> = (0..3).flat_map(|id| failed(id, "hello", FailureKind::UpstreamReset)).collect();
            assert_eq!(bench.take().got(), (Vec::new(), reset));
            assert_eq!(bench.relay.close(), Some(Close::Flush));
        });
    }
}

#[test]
fn nonsense_of_the_client_ends_the_connection_and_does_not_pile_up() {
    for ordering in ORDERS {
        in_all_pieces(&config(routes()), ordering, |bench| {
            let call = request(1, "s.hello", &[], b"");
            bench.send(&[&call[..], &NONSENSE].concat());
            assert_eq!(bench.relay.close(), None, "a reply is awaited");
            for _ in 0..3 {
                bench.send(&call);
                assert!(bench.relay.from_client.is_empty());
            }
            assert_eq!(bench.got().0, call);
            assert_eq!(bench.answer(&echo(&call)).got().1, echo(&call));
            assert_eq!((bench.relay.close(), bench.relay.take_stats().decode_errors), (Some(Close::Flush), 1));
        });
    }
}

#[test]
fn a_request_without_an_end_is_answered_and_ends_the_connection() {
    in_all_pieces(&config(routes()), Ordering::Ordered, |bench| {
        let (call, last) = (request(1, "s.hello", &[], b""), request(3, "s.hello", &[], b""));
        bench.send(&[&call[..], &frame(ENDLESS, 2, "s.hello", b""), &last].concat());
        assert_eq!(bench.relay.close(), None, "a reply is awaited");
        assert_eq!(bench.got().0, call);
        let replies = [echo(&call), failed(2, "", FailureKind::TooLarge)].concat();
        assert_eq!(bench.answer(&echo(&call)).got().1, replies);
        assert_eq!(bench.relay.close(), Some(Close::Flush));
    });
}

#[test]
fn nonsense_of_the_server_ends_the_connection() {
    let surplus = ok(7, &[], b"nobody asked");
    for nonsense in [&NONSENSE[..], &surplus, &frame(EMPTY, 1, "", b"")] {
        in_all_pieces(&config(routes()), Ordering::Multiplexed, |bench| {
            bench.send(&request(1, "s.hello", &[], b""));
            bench.answer(nonsense).answer(&ok(1, &[], b"too late"));
            assert_eq!(bench.got().1, failed(1, "hello", FailureKind::BadReply));
            assert_eq!(bench.relay.close(), Some(Close::Flush));
            assert!(bench.relay.from_server.is_empty());
        });
    }
    in_all_pieces(&config(routes()), Ordering::Ordered, |bench| {
        let call = request(1, "s.hello", &[], b"");
        bench.send(&call).answer(&[echo(&call), surplus.clone()].concat());
        assert_eq!(bench.got().1, echo(&call), "the surplus goes to nobody");
        assert_eq!(bench.relay.close(), Some(Close::Flush));
    });
}

#[test]
fn a_client_frame_of_no_bytes_is_nonsense() {
    let mut bench = whole(Ordering::Ordered);
    bench.send(&frame(EMPTY, 1, "", b""));
    assert_eq!(bench.relay.close(), Some(Close::Flush));
}

#[test]
fn pushes_and_drains_of_the_server_pass() {
    for ordering in ORDERS {
        in_all_pieces(&config(routes()), ordering, |bench| {
            let call = request(1, "s.hello", &[], b"");
            bench.send(&call);
            let all = [frame(PUSH, 0, "news", b"!"), heartbeat(3), drain(), echo(&call)].concat();
            assert_eq!(bench.answer(&all).got().1, all);
            assert_eq!(bench.relay.close(), None, "the client leaves when it likes");
        });
    }
}

#[test]
fn half_close_goes_on_when_all_was_sent() {
    let config = RelayConfig { max_in_flight: 1, ..config(routes()) };
    for ordering in ORDERS {
        in_all_pieces(&config, ordering, |bench| {
            let calls: Vec<_> = (0..3).map(|id| request(id, "s.hello", &[], &[7])).collect();
            bench.send(&calls.concat()).client_ends();
            for call in &calls {
                assert_eq!(bench.take().got().0, *call);
                let last = call == &calls[2];
                assert!(!bench.relay.ends_sending(), "there may be more");
                bench.answer(&echo(call));
                assert_eq!(bench.relay.ends_sending(), last);
                assert_eq!(core::mem::take(&mut bench.client_got), echo(call));
            }
            assert_eq!(bench.relay.close(), None, "the server may have more to say");
            bench.server_ends();
            assert_eq!((bench.relay.close(), bench.relay.take_stats().decode_errors), (Some(Close::Flush), 0));
        });
    }
}

#[test]
fn half_close_within_a_frame_or_before_any() {
    in_all_pieces(&config(routes()), Ordering::Ordered, |bench| {
        let call = request(1, "s.hello", &[], b"");
        bench.send(&[&call[..], &call[..7]].concat()).client_ends();
        assert!(bench.relay.ends_sending());
        assert_eq!(bench.relay.close(), None);
        assert_eq!(bench.relay.take_stats().decode_errors, 1);
        assert_eq!(bench.answer(&echo(&call)).got(), (call.clone(), echo(&call)));
    });
    in_all_pieces(&config(routes()), Ordering::Ordered, |bench| {
        bench.send(&request(1, "s.denied", &[], b"")).client_ends();
        assert_eq!(bench.got().1, failed(1, "denied", FailureKind::Denied));
        assert!(!bench.relay.ends_sending(), "there is no server");
        assert_eq!(bench.relay.close(), Some(Close::Flush));
    });
}

#[test]
fn frames_that_cannot_be_taken_are_answered_if_they_are_requests() {
    let mut config = config(routes());
    config.limits.max_frame_bytes = 100;
    in_all_pieces(&config, Ordering::Ordered, |bench| {
        let (first, last) = (request(1, "s.hello", &[], b""), request(4, "s.hello", &[], b""));
        let large = [request(2, "s.hello", &[], &[7; 200]), one_way(3, "s.hello", &[7; 200])].concat();
        let push = frame(PUSH, 9, "", &[7; 200]);
        bench.send(&[first.clone(), large, push, last.clone()].concat());
        bench.answer(&[echo(&first), echo(&last)].concat());
        let refused = failed(2, "", FailureKind::TooLarge);
        assert_eq!(bench.got(), ([&first[..], &last].concat(), [echo(&first), refused, echo(&last)].concat()));
        assert_eq!(bench.relay.take_stats().decode_errors, 3);
    });
}

#[test]
fn calls_that_nobody_can_answer_any_more_are_counted() {
    let calls = [request(1, "s.hello", &[], b""), request(2, "s.hello", &[], b""), request(3, "s.hello", &[], b"")];
    in_all_pieces(&config(routes()), Ordering::Multiplexed, |bench| {
        bench.send(&request(9, "s.denied", &[], b""));
        assert_eq!(bench.relay.routed(), (&b""[..], &b""[..]));
        bench.send(&[&calls.concat()[..], &one_way(4, "s.hello", b"")].concat()).answer(&echo(&calls[1]));
        assert_eq!(bench.relay.routed(), (&b"s"[..], &b"hello"[..]));
        bench.relay.on_lost();
        let stats = bench.relay.take_stats();
        let of = |kind| stats.errors()[FailureKind::ALL.iter().position(|other| *other == kind).unwrap()];
        assert_eq!((of(FailureKind::UpstreamReset), of(FailureKind::Denied)), (2, 1));
    });
}
