//! How connections end, and how much a client may have waiting.

use super::*;
use crate::test_codec::EMPTY;

#[test]
fn bytes_that_are_no_frame_end_the_connection_after_the_answers() {
    for piece in [usize::MAX, 1] {
        let mut pair = Pair::new(Ordering::Ordered, piece);
        pair.router = Box::new(|_| Routed::Later);
        pair.send(&[request(1, "a.b", &[], b"1"), vec![0, 0, 0, 9, 99, 0, 0, 0, 0]].concat());
        assert_eq!(pair.inlet.close(), None);
        pair.router = Box::new(|_| Routed::Forward(Vec::new()));
        pair.hcm_tick();
        assert_eq!(pair.client_got, echo(&request(1, "a.b", &[], b"1")));
        assert_eq!(pair.inlet.close(), Some(Close::Flush));
        assert_eq!(pair.inlet.take_stats().decode_errors, 1);
    }
}

#[test]
fn half_close_waits_for_the_answers() {
    in_all_pieces(|pair| {
        pair.router = Box::new(|_| Routed::Later);
        pair.send(&request(1, "a.b", &[], b"1")).half_close();
        assert_eq!(pair.inlet.close(), None);
        pair.router = Box::new(|_| Routed::Forward(Vec::new()));
        pair.hcm_tick();
        assert_eq!(pair.client_got, echo(&request(1, "a.b", &[], b"1")));
        assert_eq!(pair.inlet.close(), Some(Close::Flush));
    });
}

#[test]
fn half_close_within_a_frame() {
    let mut pair = Pair::new(Ordering::Ordered, 1);
    pair.send(&request(1, "a.b", &[], b"1")[..8]).half_close();
    assert_eq!(pair.inlet.close(), Some(Close::Flush));
    assert_eq!(pair.inlet.take_stats().decode_errors, 1);
}

#[test]
fn a_draining_hcm_is_said_where_the_protocol_can_say_it() {
    let call = request(1, "a.b", &[], b"1");
    let mut pair = Pair::new(Ordering::Multiplexed, usize::MAX);
    pair.send(&call);
    pair.hcm_goes_away(false);
    assert_eq!(pair.client_got, [echo(&call), drain()].concat());
    pair.client_got.clear();
    pair.send(&call);
    assert_eq!(pair.client_got, echo(&call), "until the client has turned away it is served");
    pair.hcm_goes_away(true);
    assert_eq!(pair.inlet.close(), Some(Close::Flush));

    let mut pair = Pair::new(Ordering::Ordered, usize::MAX);
    pair.router = Box::new(|_| Routed::Later);
    pair.send(&call);
    pair.hcm_goes_away(false);
    assert_eq!(pair.inlet.close(), None);
    pair.router = Box::new(|_| Routed::Forward(Vec::new()));
    pair.hcm_tick();
    assert_eq!(pair.client_got, echo(&call));
    assert_eq!(pair.inlet.close(), Some(Close::Flush));
}

#[test]
fn a_closing_hcm_leaves_no_call_unanswered() {
    in_all_pieces(|pair| {
        pair.router = Box::new(|_| Routed::Later);
        pair.send(&[request(1, "a.b", &[], b""), request(2, "a.b", &[], b"")].concat());
        pair.hcm_closes();
        let gone = |id| failed(id, "a.b", FailureKind::Draining);
        assert_eq!(pair.client_got, [gone(1), gone(2)].concat());
        assert_eq!(pair.inlet.close(), Some(Close::Flush));
        assert_eq!(pair.inlet.take_stats().in_flight, 0);
    });
}

#[test]
fn a_flood_is_held_back_and_let_through_later() {
    let mut config = inlet_config();
    config.max_in_flight = 3;
    for ordering in ORDERS {
        let mut pair = Pair::with(&config, ordering, usize::MAX);
        pair.router = Box::new(|_| Routed::Later);
        let calls: Vec<_> = (0..50).map(|n| request(n, "a.b", &[], &n.to_be_bytes())).collect();
        pair.send(&calls.concat());
        assert!(!pair.inlet.wants_client_data());
        assert_eq!(pair.inlet.take_stats().in_flight, 3);
        pair.router = Box::new(|_| Routed::Forward(Vec::new()));
        pair.hcm_tick();
        assert_eq!(pair.client_got, calls.iter().flat_map(|call| echo(call)).collect::<Vec<_>>());
        assert!(pair.inlet.wants_client_data());
    }
}

#[test]
fn large_requests_are_held_back_by_their_bytes() {
    let mut config = inlet_config();
    config.limits.max_frame_bytes = 64 * 1024 * 1024;
    for ordering in ORDERS {
        // One that is above the bound by itself; as many as fit, and one more.
        for (sizes, let_through) in [(&[40, 1][..], 1), (&[12; 5], 3), (&[1; 40], 32)] {
            let mut pair = Pair::with(&config, ordering, usize::MAX);
            pair.router = Box::new(|_| Routed::Later);
            let calls = || (0..).zip(sizes).map(|(id, size)| request(id, "a.b", &[], &vec![1; size * 1024 * 1024]));
            calls().for_each(|call| _ = pair.send(&call));
            assert!(!pair.inlet.wants_client_data());
            assert_eq!(pair.inlet.take_stats().in_flight, let_through);
            pair.router = Box::new(|_| Routed::Forward(Vec::new()));
            pair.server = Box::new(|frame| (echo(&frame[..frame.len().min(10 + 3)]), false));
            pair.hcm_tick();
            assert_eq!(pair.client_got, calls().flat_map(|call| echo(&call[..13])).collect::<Vec<_>>());
            assert!(pair.inlet.wants_client_data());
            assert_eq!(pair.inlet.take_stats().in_flight, -let_through);
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read() {
    let mut pair = Pair::new(Ordering::Ordered, usize::MAX);
    pair.inlet.on_client_writable(pair.now, false);
    assert!(!pair.inlet.wants_client_data());
    pair.send(&request(1, "a.b", &[], b""));
    assert!(pair.requests.is_empty());
    pair.inlet.on_client_writable(pair.now, true);
    pair.settle();
    assert_eq!(pair.requests.len(), 1);
}

#[test]
fn a_frame_of_no_bytes_ends_the_connection() {
    let mut pair = Pair::new(Ordering::Ordered, usize::MAX);
    pair.send(&frame(EMPTY, 1, "", b""));
    assert_eq!(pair.inlet.close(), Some(Close::Flush));
    assert_eq!(pair.inlet.take_stats().decode_errors, 1);
}

#[test]
fn requests_behind_the_last_one_that_hcm_takes_are_answered() {
    let mut config = inlet_config();
    config.max_in_flight = 2;
    with_config(&config, |pair| {
        pair.router = Box::new(|_| Routed::Later);
        let calls: Vec<_> = (0..5).map(|id| request(id, "a.b", &[], b"x")).collect();
        pair.send(&calls.concat());
        pair.hcm_goes_away(true);
        assert_eq!(pair.inlet.close(), None, "two calls are out");
        pair.router = Box::new(|_| Routed::Forward(Vec::new()));
        pair.hcm_tick();
        let mut replies: Vec<Vec<u8>> = calls[..2].iter().map(|call| echo(call)).collect();
        replies.extend((2..5).map(|id| failed(id, "a.b", FailureKind::Draining)));
        let signal = if pair.signals { drain() } else { Vec::new() };
        let expected = [signal, replies.concat()].concat();
        if pair.signals {
            // With ids, refusals need not wait.
            assert_eq!(pair.client_got.len(), expected.len());
            let got = |reply: &Vec<u8>| pair.client_got.windows(reply.len()).filter(|part| part == reply).count();
            assert!(replies.iter().all(|reply| got(reply) == 1));
        } else {
            assert_eq!(pair.client_got, expected);
        }
        assert_eq!(pair.inlet.close(), Some(Close::Flush));
    });
}

#[test]
fn requests_that_waited_for_a_lost_hcm_are_answered() {
    let mut config = inlet_config();
    config.max_in_flight = 1;
    with_config(&config, |pair| {
        pair.router = Box::new(|_| Routed::Later);
        let calls: Vec<_> = (0..3).map(|id| request(id, "a.b", &[], b"x")).collect();
        pair.send(&calls.concat());
        pair.hcm_closes();
        let gone: Vec<_> = (0..3).flat_map(|id| failed(id, "a.b", FailureKind::Draining)).collect();
        assert_eq!(pair.client_got, gone);
        assert_eq!(pair.inlet.close(), Some(Close::Flush));
    });
}

#[test]
fn a_client_that_cannot_be_told_is_served_until_it_waits_for_nothing() {
    in_all_cuttings(|cutter| {
        let mut pair = Pair::new(Ordering::Ordered, usize::MAX);
        pair.cutter = cutter;
        let calls: Vec<_> = (0..2).map(|id| request(id, "a.b", &[], b"x")).collect();
        pair.router = Box::new(|_| Routed::Later);
        pair.send(&calls[0]);
        pair.hcm_goes_away(false);
        pair.send(&calls[1]);
        pair.router = Box::new(|_| Routed::Forward(Vec::new()));
        pair.hcm_tick();
        assert_eq!(pair.client_got, calls.iter().flat_map(|call| echo(call)).collect::<Vec<_>>());
        assert_eq!(pair.inlet.close(), Some(Close::Flush));
        pair.cutter
    });
}

#[test]
fn the_last_number_of_a_stream_is_a_drain() {
    in_all_pieces(|pair| {
        let calls: Vec<_> = (0..4).map(|id| request(id, "a.b", &[], b"x")).collect();
        pair.send(&calls[0]);
        // All but one of the numbers that are left.
        pair.inlet.flow.h2.as_mut().unwrap().use_up((1 << 30) - 2);
        pair.router = Box::new(|_| Routed::Later);
        pair.send(&calls[1..].concat());
        pair.router = Box::new(|_| Routed::Forward(Vec::new()));
        pair.hcm_tick();
        let signal = if pair.signals { drain() } else { Vec::new() };
        let refused: Vec<u8> = (2..4).flat_map(|id| failed(id, "a.b", FailureKind::Draining)).collect();
        let served = echo(&calls[1]);
        let rest = if pair.signals { [signal, refused, served].concat() } else { [served, refused].concat() };
        assert_eq!(pair.client_got, [echo(&calls[0]), rest].concat());
        assert_eq!(pair.inlet.close(), Some(Close::Flush));
    });
}
