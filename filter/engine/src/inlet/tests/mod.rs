use meltemi_core::{FailureKind, Ordering};

use super::{InletShared, reply::describe};
use crate::{
    Close,
    config::InletConfig,
    cutting::in_all_cuttings,
    pair::{Pair, Routed, echo, inlet_config},
    test_codec::{ENDLESS, drain, error, exception, failure, frame, heartbeat, heartbeat_reply, ok, one_way, request},
};

mod ends;
mod properties;

const ORDERS: [Ordering; 2] = [Ordering::Ordered, Ordering::Multiplexed];

/// Runs a scenario in all cuttings, for both kinds of ordering.
fn in_all_pieces(scenario: impl Fn(&mut Pair)) {
    with_config(&inlet_config(), scenario);
}

fn with_config(config: &InletConfig, scenario: impl Fn(&mut Pair)) {
    for ordering in ORDERS {
        in_all_cuttings(|cutter| {
            let mut pair = Pair::with(config, ordering, usize::MAX);
            pair.cutter = cutter;
            scenario(&mut pair);
            pair.cutter
        });
    }
}

fn failed(id: u32, method: &str, kind: FailureKind) -> Vec<u8> {
    error(id, method, kind, describe(kind))
}

#[test]
fn a_call_passes_through_untouched() {
    in_all_pieces(|pair| {
        let sent = request(7, "demo.Echo.hello", &[("env", "gray"), ("batchId", "1"), ("host", "x")], b"body");
        pair.send(&sent);
        let seen = &pair.requests[0];
        assert_eq!(seen.body, sent);
        assert_eq!(seen.header(":path"), Some("/demo.Echo/hello"));
        assert_eq!(seen.header(":authority"), Some("demo:80"));
        assert_eq!(seen.header("x-meltemi-protocol"), Some("test"));
        assert_eq!(seen.header("x-meltemi-service"), Some("demo.Echo"));
        assert_eq!(seen.header("env"), Some("gray"));
        assert_eq!(seen.header("batchid"), Some("1"));
        assert_eq!(seen.header("x-meltemi-meta-host"), Some("x"));
        assert_eq!(pair.client_got, echo(&sent));
    });
}

#[test]
fn every_cut_of_two_calls_is_the_same() {
    let bytes =
        [request(1, "a.b", &[("k", "v")], b"1"), one_way(2, "a.c", b"2"), request(3, "a.d", &[], b"3")].concat();
    for ordering in ORDERS {
        let mut whole = Pair::new(ordering, usize::MAX);
        whole.send(&bytes);
        assert_eq!(whole.requests.len(), 3);
        for cut in 1..bytes.len() {
            let mut pair = Pair::new(ordering, usize::MAX);
            let (first, second) = bytes.split_at(cut);
            pair.send(first).send(second);
            assert_eq!(pair.client_got, whole.client_got);
            assert_eq!(pair.requests, whole.requests);
        }
    }
}

#[test]
fn what_routes_change_enters_the_frame() {
    in_all_pieces(|pair| {
        pair.router = Box::new(|_| Routed::Forward(vec![("env", Some("blue")), ("drop", None), ("new", Some("1"))]));
        pair.server = Box::new(|frame| {
            assert_eq!(frame, request(9, "s.m", &[("keep", "k"), ("env", "blue"), ("new", "1")], b"body"));
            (ok(9, &[], b"done"), false)
        });
        pair.send(&request(9, "s.m", &[("env", "gray"), ("keep", "k"), ("drop", "d")], b"body"));
        assert_eq!(pair.client_got, ok(9, &[], b"done"));
    });
}

#[test]
fn one_way_calls_are_delivered_and_not_answered() {
    in_all_pieces(|pair| {
        pair.send(&[one_way(1, "a.b", b"x"), request(2, "a.c", &[], b"y")].concat());
        assert_eq!(pair.requests[0].header("x-meltemi-kind"), Some("one-way"));
        assert_eq!(pair.client_got, echo(&request(2, "a.c", &[], b"y")));
        pair.router = Box::new(|_| Routed::Local(503, "no_healthy_upstream"));
        pair.send(&one_way(3, "a.b", b"x"));
        assert_eq!(pair.client_got, echo(&request(2, "a.c", &[], b"y")));
        assert_eq!(pair.inlet.take_stats().in_flight, 0);
    });
}

#[test]
fn envoys_own_answers_become_native_errors() {
    let cases = [
        (404, "route_not_found", FailureKind::NoRoute),
        (503, "cluster_not_found", FailureKind::NoCluster),
        (503, "no_healthy_upstream", FailureKind::NoHealthyUpstream),
        (504, "response_timeout", FailureKind::Timeout),
        (429, "request_rate_limited", FailureKind::RateLimited),
        (403, "rbac_access_denied_matched_policy[none]", FailureKind::Denied),
        (503, "fault_filter_abort", FailureKind::Aborted),
    ];
    for (status, details, kind) in cases {
        in_all_pieces(|pair| {
            pair.router = Box::new(move |_| Routed::Local(status, details));
            pair.send(&request(4, "a.b", &[], b""));
            assert_eq!(pair.client_got, failed(4, "a.b", kind), "{details}");
            let index = FailureKind::ALL.iter().position(|k| *k == kind).unwrap();
            assert_eq!(pair.inlet.take_stats().errors()[index], 1);
            // The connection lives on.
            pair.router = Box::new(|_| Routed::Forward(Vec::new()));
            pair.client_got.clear();
            pair.send(&request(5, "a.b", &[], b"z"));
            assert_eq!(pair.client_got, echo(&request(5, "a.b", &[], b"z")));
        });
    }
}

#[test]
fn replies_of_the_server_keep_their_bytes_whatever_their_outcome() {
    in_all_pieces(|pair| {
        pair.server = Box::new(|frame| match frame[8] {
            1 => (exception(1, b"declared"), false),
            _ => (failure(2, b"broken"), false),
        });
        pair.send(&[request(1, "a.b", &[], b""), request(2, "a.b", &[], b"")].concat());
        assert_eq!(pair.client_got, [exception(1, b"declared"), failure(2, b"broken")].concat());
        let stats = pair.inlet.take_stats();
        assert_eq!((stats.requests, stats.replies, stats.exceptions, stats.failures), (2, 2, 1, 1));
    });
}

#[test]
fn a_server_that_breaks_off_or_answers_nonsense() {
    let reply = ok(1, &[], b"0123456789");
    for cut in 0..reply.len() {
        let part = reply[..cut].to_vec();
        let mut pair = Pair::new(Ordering::Multiplexed, usize::MAX);
        pair.server = Box::new(move |_| (part.clone(), true));
        pair.send(&request(1, "a.b", &[], b""));
        assert_eq!(pair.client_got, failed(1, "a.b", FailureKind::UpstreamReset));
        assert_eq!(pair.resets, [1], "the connection is given up");
    }
    in_all_pieces(|pair| {
        // Somebody else's id; no frame at all; more than was asked for.
        pair.server = Box::new(|frame| match frame[8] {
            1 => (ok(99, &[], b""), false),
            2 => (vec![0, 0, 0, 9, 77, 0, 0, 0, 0, 0, 0, 0, 0], false),
            _ => ([ok(3, &[], b"good"), ok(4, &[], b"surplus")].concat(), false),
        });
        pair.send(&request(1, "a.b", &[], b""));
        pair.send(&request(2, "a.b", &[], b""));
        pair.send(&request(3, "a.b", &[], b""));
        let bad = |id| failed(id, "a.b", FailureKind::BadReply);
        assert_eq!(pair.client_got, [bad(1), bad(2), ok(3, &[], b"good")].concat());
        assert!(pair.resets.starts_with(&[1, 3]), "{:?}", pair.resets);
    });
}

#[test]
fn a_server_may_ask_and_go_away_before_it_answers() {
    in_all_pieces(|pair| {
        pair.server = Box::new(|_| ([heartbeat(5), drain(), ok(1, &[], b"x")].concat(), false));
        pair.send(&request(1, "a.b", &[], b""));
        assert_eq!(pair.client_got, ok(1, &[], b"x"));
        assert_eq!(pair.resets, [1], "a server that goes away is not asked again");
    });
}

#[test]
fn heartbeats_are_answered_here() {
    for piece in [usize::MAX, 1] {
        let mut pair = Pair::new(Ordering::Multiplexed, piece);
        pair.router = Box::new(|_| Routed::Later);
        pair.send(&[request(1, "a.b", &[], b""), heartbeat(2)].concat());
        assert_eq!(pair.client_got, heartbeat_reply(2));

        let mut pair = Pair::new(Ordering::Ordered, piece);
        pair.router = Box::new(|_| Routed::Later);
        pair.send(&[request(1, "a.b", &[], b""), heartbeat(2)].concat());
        assert_eq!(pair.client_got, b"");
        pair.router = Box::new(|_| Routed::Reset);
        pair.settle();
        assert_eq!(pair.client_got, [failed(1, "a.b", FailureKind::UpstreamReset), heartbeat_reply(2)].concat());
    }
}

#[test]
fn equal_ids_are_kept_apart() {
    for ordering in ORDERS {
        let mut pair = Pair::new(ordering, usize::MAX);
        pair.router = Box::new(|_| Routed::Later);
        let calls: Vec<_> = (0..5).map(|n| request(0, "a.b", &[], &[n])).collect();
        pair.send(&calls.concat());
        // The last is answered first.
        let mut left = 5u8;
        pair.router = Box::new(move |request| {
            if request.body.ends_with(&[left - 1]) {
                left -= 1;
                return Routed::Forward(Vec::new());
            }
            Routed::Later
        });
        for _ in 0..5 {
            pair.hcm_tick();
        }
        let expected: Vec<u8> = calls.iter().flat_map(|call| echo(call)).collect();
        assert_eq!(pair.client_got, expected);
    }
}

#[test]
fn frames_that_cannot_be_taken_are_answered_in_their_turn() {
    let mut config = inlet_config();
    config.limits.max_frame_bytes = 100;
    for ordering in ORDERS {
        for piece in [usize::MAX, 1, 9, 50] {
            let mut pair = Pair::with(&config, ordering, piece);
            let large = request(2, "a.b", &[], &[b'x'; 500]);
            let (first, last) = (request(1, "a.b", &[], b"1"), request(3, "a.b", &[], b"3"));
            pair.send(&[first.clone(), large, last.clone()].concat());
            let refused = error(2, "", FailureKind::TooLarge, describe(FailureKind::TooLarge));
            let in_turn = [echo(&first), refused.clone(), echo(&last)].concat();
            // With ids, the refusal need not wait for the server.
            let at_once = [refused, echo(&first), echo(&last)].concat();
            assert!(pair.client_got == in_turn || (ordering == Ordering::Multiplexed && pair.client_got == at_once));
            assert_eq!(pair.requests.len(), 2);
        }
    }
}

#[test]
fn a_request_without_an_end_is_answered_and_ends_the_connection() {
    in_all_pieces(|pair| {
        let (first, last) = (request(1, "a.b", &[], b"1"), request(3, "a.b", &[], b"3"));
        pair.send(&[first.clone(), frame(ENDLESS, 2, "a.b", b"2"), last].concat());
        let refused = error(2, "", FailureKind::TooLarge, describe(FailureKind::TooLarge));
        let (in_turn, at_once) = ([echo(&first), refused.clone()].concat(), [refused, echo(&first)].concat());
        assert!(pair.client_got == in_turn || pair.client_got == at_once);
        assert_eq!((pair.requests.len(), pair.inlet.close()), (1, Some(Close::Flush)));
    });
}

#[test]
fn frames_that_are_no_requests_are_not_answered() {
    let mut config = inlet_config();
    config.limits.max_frame_bytes = 100;
    with_config(&config, |pair| {
        let push = frame(crate::test_codec::PUSH, 1, "", &[7; 200]);
        let call = request(3, "a.b", &[], b"3");
        pair.send(&[push, one_way(2, "a.b", &[7; 200]), heartbeat(9), call.clone()].concat());
        assert_eq!(pair.client_got, [heartbeat_reply(9), echo(&call)].concat());
        let stats = pair.inlet.take_stats();
        assert_eq!((stats.decode_errors, stats.over_limit), (2, 2));
    });
}

#[test]
fn a_reply_with_more_metadata_than_http_carries_arrives() {
    for ordering in ORDERS {
        let mut pair = Pair::new(ordering, usize::MAX);
        let value = "\u{1}".repeat(250);
        let headers: Vec<_> = (0..100).map(|n| (format!("h{n}"), value.clone())).collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let reply = ok(1, &headers, b"much was said");
        let sent = reply.clone();
        pair.server = Box::new(move |_| (sent.clone(), false));
        pair.send(&request(1, "a.b", &[], b""));
        assert!(pair.client_got == reply && pair.resets.is_empty());
    }
}

#[test]
fn an_odd_value_stands_where_policies_look() {
    in_all_pieces(|pair| {
        let call = request(1, "a.50%", &[("env", "grün")], b"");
        pair.send(&call);
        assert_eq!(pair.requests[0].header("env"), Some("gr%c3%bcn"));
        assert_eq!(pair.requests[0].header("x-meltemi-method"), Some("50%25"));
        assert_eq!(pair.client_got, echo(&call));
    });
}

#[test]
fn a_service_that_is_too_long_is_refused_before_it_is_copied() {
    let mut config = inlet_config();
    config.limits.max_header_bytes = 20;
    with_config(&config, |pair| {
        let call = request(1, &"s".repeat(30), &[], b"");
        pair.send(&call);
        assert!(pair.requests.is_empty() && pair.inlet.current().0.is_empty());
        assert_eq!(pair.inlet.take_stats().errors().iter().sum::<u64>(), 1);
    });
}

#[test]
fn an_answer_before_the_end_of_the_request_ends_its_stream() {
    // Larger than HCM's window: the rest waits in us.
    let mut pair = Pair::new(Ordering::Ordered, usize::MAX);
    let early = |pair: &mut Pair| pair.answer_early(413);
    pair.hold_hcm(true);
    pair.send(&request(1, "a.b", &[], &vec![7; 2 << 20]));
    assert!(pair.requests.is_empty());
    early(&mut pair);
    assert_eq!(pair.client_got, failed(1, "a.b", FailureKind::TooLarge));
    assert_eq!(pair.resets, [1]);
    pair.hold_hcm(false);
    let call = request(2, "a.b", &[], b"2");
    pair.client_got.clear();
    pair.send(&call);
    assert_eq!(pair.client_got, echo(&call));
}

#[test]
fn replies_that_wait_for_their_turn_are_bounded() {
    let mut pair = Pair::new(Ordering::Ordered, usize::MAX);
    pair.router = Box::new(|request| if request.body[8] == 0 { Routed::Later } else { Routed::Forward(Vec::new()) });
    let calls: Vec<_> = (0..100).map(|id| request(id, "a.b", &[], &vec![id as u8; 100_000])).collect();
    for call in &calls {
        pair.send(call);
    }
    assert!(pair.client_got.is_empty() && !pair.inlet.wants_client_data());
    let asked = pair.requests.len();
    assert!((20..=23).contains(&asked), "2 MiB of replies, not {asked}");
    pair.router = Box::new(|_| Routed::Forward(Vec::new()));
    pair.hcm_tick();
    assert!(pair.inlet.wants_client_data());
    assert!(pair.client_got == calls.iter().flat_map(|call| echo(call)).collect::<Vec<_>>());
}

#[test]
fn protocols_that_need_connection_mode_are_refused() {
    let codec = Box::new(crate::test_codec::StreamCodec(Ordering::Multiplexed));
    let error = InletShared::new(&inlet_config(), codec).err().unwrap();
    assert!(error.0.contains("connection mode"), "{error}");
}

#[test]
fn what_routes_change_enters_the_reply_or_fails_it() {
    let call = request(1, "a.b", &[], b"x");
    for (name, expected) in [
        ("by", ok(1, &[("by", "1")], b"\0x")),
        ("no-place", echo(&call)),
        ("no-room", failed(1, "a.b", FailureKind::BadReply)),
        ("no-sense", failed(1, "a.b", FailureKind::BadReply)),
    ] {
        in_all_pieces(|pair| {
            pair.added = vec![(name, "1")];
            pair.send(&call);
            assert_eq!(pair.client_got, expected, "{name}");
        });
    }
}
