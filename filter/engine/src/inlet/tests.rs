use std::collections::HashMap;

use meltemi_core::{FailureKind, Ordering};
use proptest::prelude::*;

use super::reply::describe;
use crate::{
    Close,
    config::InletConfig,
    cutting::in_all_cuttings,
    pair::{Pair, Routed, echo, inlet_config},
    test_codec::{ENDLESS, drain, error, exception, failure, frame, heartbeat, heartbeat_reply, ok, one_way, request},
};

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

/// What a script does next.
#[derive(Debug, Clone)]
enum Step {
    Call {
        id: u8,
        one_way: bool,
        size: usize,
    },
    Heartbeat(u8),
    /// The n-th oldest open request is answered: by the server, or in Envoy.
    Answer {
        which: usize,
        how: u8,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..4, prop::bool::weighted(0.1), 0usize..300)
            .prop_map(|(id, one_way, size)| Step::Call { id, one_way, size }),
        1 => (100u8..104).prop_map(Step::Heartbeat),
        3 => (0usize..8, 0u8..5).prop_map(|(which, how)| Step::Answer { which, how }),
    ];
    prop::collection::vec(step, 1..60)
}

/// The oracle: what each call must get, computed from the script alone, slowly and simply.
#[derive(Default)]
struct Oracle {
    /// Open or unanswered things in order: id, and the reply once known.
    line: Vec<(u32, Option<Vec<u8>>)>,
    got: Vec<u8>,
}

impl Oracle {
    fn flush(&mut self, ordering: Ordering) {
        loop {
            let ready = (0..self.line.len()).find(|index| {
                let (id, reply) = &self.line[*index];
                reply.is_some()
                    && self.line[..*index].iter().all(|(other, _)| ordering == Ordering::Multiplexed && other != id)
            });
            let Some(ready) = ready else { return };
            self.got.extend(self.line.remove(ready).1.unwrap());
        }
    }
}

proptest! {
    /// Any interleaving: every call gets its own reply once, in its turn.
    #[test]
    fn any_interleaving(script in steps(), ordered in any::<bool>(), piece in 1usize..200) {
        let ordering = if ordered { Ordering::Ordered } else { Ordering::Multiplexed };
        let mut pair = Pair::new(ordering, piece);
        let mut oracle = Oracle::default();
        // Requests at the router, in order: number, frame, one-way.
        let mut open: Vec<(u32, Vec<u8>, bool)> = Vec::new();
        let mut serial = 0u32;
        let mut pending: HashMap<u32, u8> = HashMap::new();
        let answer = |pair: &mut Pair, oracle: &mut Oracle, open: &mut Vec<(u32, Vec<u8>, bool)>,
                      pending: &mut HashMap<u32, u8>, which: usize, how: u8| {
            let (number, frame, is_one_way) = open.remove(which % open.len());
            pending.insert(number, how);
            let id = u32::from_be_bytes(frame[5..9].try_into().unwrap());
            let reply = match how {
                0 | 1 => echo(&frame),
                2 => failed(id, "a.b", FailureKind::Timeout),
                3 => failed(id, "a.b", FailureKind::UpstreamReset),
                _ => failed(id, "a.b", FailureKind::NoRoute),
            };
            if !is_one_way {
                let slot = oracle.line.iter_mut().find(|(key, _)| *key == number | 0x8000_0000).unwrap();
                *slot = (id, Some(reply));
                // The id counts from here on; until then the number kept the place.
            }
            let wanted = frame;
            pair.router = Box::new(move |request| {
                if request.body != wanted {
                    return Routed::Later;
                }
                match how {
                    0 | 1 => Routed::Forward(Vec::new()),
                    2 => Routed::Local(504, "response_timeout"),
                    3 => Routed::Reset,
                    _ => Routed::Local(404, "route_not_found"),
                }
            });
            pair.hcm_tick();
            pair.router = Box::new(|_| Routed::Later);
        };
        pair.router = Box::new(|_| Routed::Later);
        for step in script {
            match step {
                Step::Call { id, one_way: is_one_way, size } => {
                    serial += 1;
                    let mut body = vec![0; size];
                    body.extend(serial.to_be_bytes());
                    // In multiplexed protocols each call of this script has its own id: equal ones have a test above.
                    let id = if ordered { u32::from(id) } else { serial };
                    let frame =
                        if is_one_way { one_way(id, "a.b", &body) } else { request(id, "a.b", &[], &body) };
                    open.push((serial, frame.clone(), is_one_way));
                    if !is_one_way {
                        oracle.line.push((serial | 0x8000_0000, None));
                    }
                    pair.send(&frame);
                }
                Step::Heartbeat(id) => {
                    pair.send(&heartbeat(u32::from(id)));
                    match ordering {
                        Ordering::Ordered => oracle.line.push((0, Some(heartbeat_reply(u32::from(id))))),
                        Ordering::Multiplexed => oracle.got.extend(heartbeat_reply(u32::from(id))),
                    }
                }
                Step::Answer { which, how } if !open.is_empty() => {
                    answer(&mut pair, &mut oracle, &mut open, &mut pending, which, how);
                }
                Step::Answer { .. } => {}
            }
            oracle.flush(ordering);
            prop_assert_eq!(&pair.client_got, &oracle.got);
        }
        while !open.is_empty() {
            answer(&mut pair, &mut oracle, &mut open, &mut pending, 0, 0);
            oracle.flush(ordering);
        }
        prop_assert_eq!(&pair.client_got, &oracle.got);
        prop_assert_eq!(pair.inlet.take_stats().in_flight, 0);
        prop_assert!(oracle.line.is_empty());
    }
}
