use std::{collections::BTreeMap, sync::Arc};

use core::time::Duration;

use meltemi_core::{FailureKind, Ordering};
use proptest::prelude::*;

use super::{Relay, RelayConfig, RelayShared};
use crate::{
    Close,
    config::CodecConfig,
    inlet::describe,
    pair::echo,
    route::config::{BucketConfig, ChangeConfig, ClusterConfig, MatchConfig, RouteConfig, Test},
    test_codec::{TestCodec, error, heartbeat, heartbeat_reply, ok, one_way, request},
};

fn route(method: &str, cluster: &str) -> RouteConfig {
    RouteConfig {
        matches: vec![MatchConfig {
            key: "method".into(),
            test: Some(Test::Exact(method.into())),
            ..MatchConfig::default()
        }],
        clusters: vec![ClusterConfig { name: cluster.into(), weight: 1 }],
        ..RouteConfig::default()
    }
}

fn routes() -> Vec<RouteConfig> {
    let change = |key: &str, value: &str| ChangeConfig { key: key.into(), value: Some(value.into()) };
    vec![
        RouteConfig { deny: true, ..route("denied", "none") },
        RouteConfig { abort_millionths: 1_000_000, ..route("aborted", "none") },
        RouteConfig {
            rate_limit: Some(BucketConfig { max_tokens: 1, tokens_per_fill: 1, fill_interval_ms: 1000 }),
            ..route("limited", "one")
        },
        RouteConfig {
            request_mutation: vec![change("env", "blue")],
            response_mutation: vec![change("by", "us")],
            ..route("changed", "one")
        },
        route("other", "two"),
        route("hello", "one"),
    ]
}

fn relay(ordering: Ordering) -> Relay {
    let config = RelayConfig::new(CodecConfig { name: "test".into(), options: BTreeMap::new() }, routes());
    Relay::new(Arc::new(RelayShared::new(&config, Box::new(TestCodec(ordering))).unwrap()), 7)
}

const NOW: Duration = Duration::from_secs(5);

/// Feeds the client's bytes in pieces; gives what went to the server and to the client.
fn feed(relay: &mut Relay, bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<u8>) {
    for piece in bytes.chunks(piece) {
        relay.on_client_data(NOW, piece, false);
    }
    (core::mem::take(relay.to_server()), core::mem::take(relay.to_client()))
}

fn answer(relay: &mut Relay, bytes: &[u8], piece: usize) -> Vec<u8> {
    for piece in bytes.chunks(piece) {
        relay.on_server_data(NOW, piece, false);
    }
    core::mem::take(relay.to_client())
}

fn failed(id: u32, method: &str, kind: FailureKind) -> Vec<u8> {
    error(id, method, kind, describe(kind))
}

const PIECES: [usize; 5] = [usize::MAX, 1, 2, 5, 17];

#[test]
fn the_first_request_picks_the_cluster_and_bytes_pass() {
    for ordering in [Ordering::Ordered, Ordering::Multiplexed] {
        for piece in PIECES {
            let mut relay = relay(ordering);
            let (first, second) = (request(1, "s.hello", &[("k", "v")], b"x"), request(2, "s.other", &[], b"y"));
            assert_eq!(relay.cluster(), None);
            let sent = feed(&mut relay, &[first.clone(), second.clone(), one_way(3, "s.hello", b"z")].concat(), piece);
            assert_eq!(sent.0, [first.clone(), second.clone(), one_way(3, "s.hello", b"z")].concat());
            assert_eq!(relay.cluster(), Some("one"));
            let replies = [echo(&first), echo(&second)].concat();
            assert_eq!(answer(&mut relay, &replies, piece), replies);
            let stats = relay.take_stats();
            assert_eq!((stats.requests, stats.one_way, stats.replies, stats.in_flight), (2, 1, 2, 0));
        }
    }
}

#[test]
fn every_cut_is_the_same() {
    let calls = [request(1, "s.changed", &[("env", "gray")], b"x"), request(2, "s.none", &[], b"y")].concat();
    let mut whole = relay(Ordering::Ordered);
    let expected = feed(&mut whole, &calls, usize::MAX);
    assert_eq!(expected.0, request(1, "s.changed", &[("env", "blue")], b"x"));
    for cut in 1..calls.len() {
        let mut relay = relay(Ordering::Ordered);
        let (first, second) = calls.split_at(cut);
        let mut got = feed(&mut relay, first, usize::MAX);
        let more = feed(&mut relay, second, usize::MAX);
        got.0.extend(more.0);
        got.1.extend(more.1);
        assert_eq!(got, expected);
    }
}

#[test]
fn refusals_come_in_their_turn() {
    for piece in PIECES {
        let calls = [
            request(1, "s.hello", &[], b"x"),
            request(2, "s.denied", &[], b""),
            request(3, "s.aborted", &[], b""),
            request(4, "s.nowhere", &[], b""),
        ];
        let refusals = [
            failed(2, "denied", FailureKind::Denied),
            failed(3, "aborted", FailureKind::Aborted),
            failed(4, "nowhere", FailureKind::NoRoute),
        ]
        .concat();
        let mut ordered = relay(Ordering::Ordered);
        assert_eq!(feed(&mut ordered, &calls.concat(), piece), (calls[0].clone(), Vec::new()));
        assert_eq!(answer(&mut ordered, &echo(&calls[0]), piece), [echo(&calls[0]), refusals.clone()].concat());
        let mut multiplexed = relay(Ordering::Multiplexed);
        assert_eq!(feed(&mut multiplexed, &calls.concat(), piece), (calls[0].clone(), refusals));
        assert_eq!(multiplexed.take_stats().in_flight, 1);
    }
}

#[test]
fn limits_and_changes() {
    let mut relay = relay(Ordering::Ordered);
    let limited = |id| request(id, "s.limited", &[], b"");
    assert_eq!(feed(&mut relay, &limited(1), 3).0, limited(1));
    assert_eq!(answer(&mut relay, &ok(1, &[], b""), 3), ok(1, &[], b""));
    let refused = failed(2, "limited", FailureKind::RateLimited);
    assert_eq!(feed(&mut relay, &limited(2), 3), (Vec::new(), refused));
    let (sent, _) = feed(&mut relay, &request(3, "s.changed", &[("env", "gray")], b"b"), 3);
    assert_eq!(sent, request(3, "s.changed", &[("env", "blue")], b"b"));
    assert_eq!(answer(&mut relay, &ok(3, &[], b"r"), 3), ok(3, &[("by", "us")], b"r"));
}

#[test]
fn heartbeats_before_and_after_the_choice() {
    let mut relay = relay(Ordering::Multiplexed);
    assert_eq!(feed(&mut relay, &heartbeat(9), 2), (Vec::new(), heartbeat_reply(9)));
    feed(&mut relay, &request(1, "s.hello", &[], b""), 2);
    assert_eq!(feed(&mut relay, &heartbeat(10), 2), (heartbeat(10), Vec::new()));
    assert_eq!(answer(&mut relay, &heartbeat_reply(10), 2), heartbeat_reply(10));
}

#[test]
fn what_a_server_leaves_open_is_answered() {
    let mut relay = relay(Ordering::Ordered);
    feed(&mut relay, &[request(1, "s.hello", &[], b""), request(2, "s.hello", &[], b"")].concat(), usize::MAX);
    relay.on_server_data(NOW, &ok(1, &[], b"")[..6], true);
    let reset = |id| failed(id, "hello", FailureKind::UpstreamReset);
    assert_eq!(*relay.to_client(), [reset(1), reset(2)].concat());
    assert_eq!(relay.close(), Some(Close::Flush));
}

#[test]
fn nonsense_of_either_side_ends_the_connection() {
    let nonsense = [0, 0, 0, 9, 99, 0, 0, 0, 0];
    let mut one = relay(Ordering::Ordered);
    one.on_client_data(NOW, &nonsense, false);
    assert_eq!((one.close(), one.take_stats().decode_errors), (Some(Close::Flush), 1));
    let mut two = relay(Ordering::Ordered);
    feed(&mut two, &request(1, "s.hello", &[], b""), 5);
    two.on_server_data(NOW, &nonsense, false);
    assert_eq!(*two.to_client(), failed(1, "hello", FailureKind::BadReply));
    assert_eq!(two.close(), Some(Close::Flush));
}

#[test]
fn a_flood_waits() {
    let mut config = RelayConfig::new(CodecConfig { name: "test".into(), options: BTreeMap::new() }, routes());
    config.max_in_flight = 2;
    let shared = RelayShared::new(&config, Box::new(TestCodec(Ordering::Ordered))).unwrap();
    let mut relay = Relay::new(Arc::new(shared), 7);
    let calls: Vec<_> = (0..5).map(|id| request(id, "s.hello", &[], b"")).collect();
    assert_eq!(feed(&mut relay, &calls.concat(), usize::MAX).0, calls[..2].concat());
    assert!(!relay.wants_client_data());
    answer(&mut relay, &echo(&calls[0]), usize::MAX);
    assert_eq!(*relay.to_server(), calls[2]);
}

proptest! {
    /// Any mix of served and refused requests, in any cutting: each gets its own reply once, in its turn.
    #[test]
    fn any_mix(kinds in prop::collection::vec(0usize..3, 1..40), piece in 1usize..60, ordered in any::<bool>()) {
        let ordering = if ordered { Ordering::Ordered } else { Ordering::Multiplexed };
        let mut relay = relay(ordering);
        let (mut sent, mut refused, mut in_turn) = (Vec::new(), Vec::new(), Vec::new());
        let mut all = Vec::new();
        for (id, kind) in kinds.iter().enumerate() {
            let id = id as u32;
            match kind {
                0 => {
                    let call = request(id, "s.hello", &[], &id.to_be_bytes());
                    in_turn.extend(echo(&call));
                    sent.push(call.clone());
                    all.extend(call);
                }
                1 => {
                    refused.extend(failed(id, "denied", FailureKind::Denied));
                    in_turn.extend(failed(id, "denied", FailureKind::Denied));
                    all.extend(request(id, "s.denied", &[], b""));
                }
                _ => all.extend(one_way(id, "s.denied", b"")),
            }
        }
        let mut got = feed(&mut relay, &all, piece).1;
        let replies: Vec<u8> = sent.iter().flat_map(|call| echo(call)).collect();
        got.extend(answer(&mut relay, &replies, piece));
        let expected = if ordered { in_turn } else { [refused, replies].concat() };
        prop_assert_eq!(got, expected);
        prop_assert_eq!(relay.take_stats().in_flight, 0);
    }
}
