use std::{collections::BTreeMap, sync::Arc};

use core::time::Duration;

use meltemi_core::{Codec, FailureKind, Ordering};

use super::{Relay, RelayConfig, RelayShared};
use crate::{
    Close,
    config::CodecConfig,
    cutting::{Cutter, in_all_cuttings},
    inlet::describe,
    pair::echo,
    route::config::{BucketConfig, ChangeConfig, ClusterConfig, MatchConfig, RouteConfig, Test},
    test_codec::{TestCodec, drain, error, exception, frame, heartbeat, heartbeat_reply, ok, one_way, request},
};

mod ends;
mod properties;
mod streams;

const ORDERS: [Ordering; 2] = [Ordering::Ordered, Ordering::Multiplexed];

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
    let change = |key: &str, value: &str| vec![ChangeConfig { key: key.into(), value: Some(value.into()) }];
    vec![
        RouteConfig { deny: true, ..route("denied", "none") },
        RouteConfig { abort_millionths: 1_000_000, ..route("aborted", "none") },
        RouteConfig {
            rate_limit: Some(BucketConfig { max_tokens: 1, tokens_per_fill: 1, fill_interval_ms: 1000 }),
            ..route("limited", "one")
        },
        RouteConfig {
            request_mutation: change("env", "blue"),
            response_mutation: change("by", "us"),
            ..route("changed", "one")
        },
        RouteConfig {
            request_mutation: change("no-place", ""),
            response_mutation: change("no-place", ""),
            ..route("unchangeable", "one")
        },
        RouteConfig { request_mutation: change("no-room", ""), ..route("large", "none") },
        RouteConfig { request_mutation: change("no-sense", ""), ..route("bad", "none") },
        RouteConfig { response_mutation: change("no-room", ""), ..route("large-reply", "one") },
        route("other", "two"),
        route("hello", "one"),
    ]
}

/// A relay between a client and a server that are in the test.
struct Bench {
    relay: Relay,
    cutter: Cutter,
    now: Duration,
    server_got: Vec<u8>,
    client_got: Vec<u8>,
}

fn config(routes: Vec<RouteConfig>) -> RelayConfig {
    RelayConfig::new(CodecConfig { name: "test".into(), options: BTreeMap::new() }, routes)
}

impl Bench {
    fn with(config: &RelayConfig, codec: Box<dyn Codec>, cutter: Cutter) -> Self {
        let relay = Relay::new(Arc::new(RelayShared::new(config, codec).unwrap()), 7);
        Self { relay, cutter, now: Duration::from_secs(5), server_got: Vec::new(), client_got: Vec::new() }
    }

    fn send(&mut self, bytes: &[u8]) -> &mut Self {
        for piece in self.cutter.cut(bytes) {
            self.relay.on_client_data(self.now, piece, false);
        }
        self.take()
    }

    fn answer(&mut self, bytes: &[u8]) -> &mut Self {
        for piece in self.cutter.cut(bytes) {
            self.relay.on_server_data(self.now, piece, false);
        }
        self.take()
    }

    fn client_ends(&mut self) -> &mut Self {
        self.relay.on_client_data(self.now, b"", true);
        self.take()
    }

    fn server_ends(&mut self) -> &mut Self {
        self.relay.on_server_data(self.now, b"", true);
        self.take()
    }

    fn reads(&mut self, reads: bool) -> &mut Self {
        self.relay.on_client_writable(self.now, reads);
        self.take()
    }

    fn take(&mut self) -> &mut Self {
        assert!(self.relay.to_server().is_empty() || self.relay.cluster().is_some(), "nothing is sent to nowhere");
        self.server_got.append(self.relay.to_server());
        self.client_got.append(self.relay.to_client());
        self
    }

    /// What the server and the client got since the last time.
    fn got(&mut self) -> (Vec<u8>, Vec<u8>) {
        (core::mem::take(&mut self.server_got), core::mem::take(&mut self.client_got))
    }
}

fn whole(ordering: Ordering) -> Bench {
    Bench::with(&config(routes()), Box::new(TestCodec(ordering)), Cutter::pieces(usize::MAX))
}

/// Runs a scenario in all cuttings.
fn in_all_pieces(config: &RelayConfig, ordering: Ordering, scenario: impl Fn(&mut Bench)) {
    in_all_cuttings(|cutter| {
        let mut bench = Bench::with(config, Box::new(TestCodec(ordering)), cutter);
        scenario(&mut bench);
        bench.cutter
    });
}

fn failed(id: u32, method: &str, kind: FailureKind) -> Vec<u8> {
    error(id, method, kind, describe(kind))
}

#[test]
fn the_first_request_picks_the_cluster_and_bytes_pass() {
    for ordering in ORDERS {
        in_all_pieces(&config(routes()), ordering, |bench| {
            let (first, second) = (request(1, "s.hello", &[("k", "v")], b"x"), request(2, "s.other", &[], b"y"));
            let all = [first.clone(), second.clone(), one_way(3, "s.hello", b"z")].concat();
            assert_eq!(bench.relay.cluster(), None);
            assert_eq!(bench.send(&all).got().0, all);
            assert_eq!(bench.relay.cluster(), Some("one"));
            let replies = [echo(&first), exception(2, b"declared")].concat();
            assert_eq!(bench.answer(&replies).got().1, replies);
            let stats = bench.relay.take_stats();
            assert_eq!((stats.requests, stats.one_way, stats.replies, stats.in_flight), (2, 1, 2, 0));
            assert_eq!(stats.exceptions, 1);
        });
    }
}

#[test]
fn refusals_come_in_their_turn() {
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
    in_all_pieces(&config(routes()), Ordering::Ordered, |bench| {
        assert_eq!(bench.send(&calls.concat()).got(), (calls[0].clone(), Vec::new()));
        assert_eq!(bench.answer(&echo(&calls[0])).got().1, [echo(&calls[0]), refusals.clone()].concat());
    });
    in_all_pieces(&config(routes()), Ordering::Multiplexed, |bench| {
        assert_eq!(bench.send(&calls.concat()).got(), (calls[0].clone(), refusals.clone()));
        assert_eq!(bench.relay.take_stats().in_flight, 1);
    });
}

#[test]
fn a_refusal_does_not_overtake_a_call_of_the_same_id() {
    in_all_pieces(&config(routes()), Ordering::Multiplexed, |bench| {
        let call = request(0, "s.hello", &[], b"x");
        assert_eq!(bench.send(&[call.clone(), request(0, "s.denied", &[], b"")].concat()).got().1, b"");
        let in_turn = [echo(&call), failed(0, "denied", FailureKind::Denied)].concat();
        assert_eq!(bench.answer(&echo(&call)).got().1, in_turn);
    });
}

#[test]
fn limits_and_changes() {
    let routes = routes();
    for ordering in ORDERS {
        in_all_pieces(&config(routes.clone()), ordering, |bench| {
            let limited = |id| request(id, "s.limited", &[], b"");
            assert_eq!(bench.send(&limited(1)).got().0, limited(1));
            assert_eq!(bench.answer(&ok(1, &[], b"")).got().1, ok(1, &[], b""));
            let refused = failed(2, "limited", FailureKind::RateLimited);
            assert_eq!(bench.send(&limited(2)).got(), (Vec::new(), refused));
            bench.send(&request(3, "s.changed", &[("env", "gray")], b"b"));
            assert_eq!(bench.got().0, request(3, "s.changed", &[("env", "blue")], b"b"));
            assert_eq!(bench.answer(&ok(3, &[], b"r")).got().1, ok(3, &[("by", "us")], b"r"));
        });
    }
}

#[test]
fn only_a_frame_without_a_place_for_headers_goes_unchanged() {
    for ordering in ORDERS {
        in_all_pieces(&config(routes()), ordering, |bench| {
            let refused = [
                (request(1, "s.large", &[], b""), failed(1, "large", FailureKind::TooLarge)),
                (request(2, "s.bad", &[], b""), failed(2, "bad", FailureKind::Malformed)),
            ];
            for (call, reply) in refused {
                assert_eq!(bench.send(&call).got(), (Vec::new(), reply));
            }
            assert_eq!(bench.relay.cluster(), None, "a request that was not sent chooses nothing");
            let call = request(3, "s.unchangeable", &[], b"b");
            assert_eq!(bench.send(&call).got().0, call);
            assert_eq!(bench.answer(&echo(&call)).got().1, echo(&call));
            let call = request(4, "s.large-reply", &[], b"b");
            assert_eq!(bench.send(&call).got().0, call);
            assert_eq!(bench.answer(&echo(&call)).got().1, failed(4, "large-reply", FailureKind::BadReply));
            assert_eq!(bench.relay.take_stats().in_flight, 0);
        });
    }
}

#[test]
fn heartbeats_before_and_after_the_choice() {
    in_all_pieces(&config(routes()), Ordering::Multiplexed, |bench| {
        assert_eq!(bench.send(&heartbeat(9)).got(), (Vec::new(), heartbeat_reply(9)));
        bench.send(&request(1, "s.hello", &[], b"")).got();
        assert_eq!(bench.send(&heartbeat(10)).got(), (heartbeat(10), Vec::new()));
        assert_eq!(bench.answer(&heartbeat_reply(10)).got().1, heartbeat_reply(10));
    });
}

#[test]
fn a_forwarded_heartbeat_has_its_turn_where_replies_are_ordered() {
    in_all_pieces(&config(routes()), Ordering::Ordered, |bench| {
        let calls = [request(1, "s.hello", &[], b""), heartbeat(2), request(3, "s.denied", &[], b"")];
        bench.send(&calls.concat());
        assert_eq!(bench.answer(&ok(1, &[], b"")).got().1, ok(1, &[], b""));
        let rest = [heartbeat_reply(2), failed(3, "denied", FailureKind::Denied)].concat();
        assert_eq!(bench.answer(&heartbeat_reply(2)).got().1, rest);
    });
}

#[test]
fn a_server_that_is_sent_nothing_gets_a_heartbeat() {
    for ordering in ORDERS {
        in_all_pieces(&config(routes()), ordering, |bench| {
            bench.now += Duration::from_secs(100);
            bench.relay.on_time(bench.now);
            assert!(bench.relay.to_server().is_empty(), "no server yet");
            bench.send(&request(1, "s.hello", &[], b"")).answer(&ok(1, &[], b"")).got();
            bench.now += Duration::from_secs(59);
            bench.relay.on_time(bench.now);
            assert!(bench.relay.to_server().is_empty());
            bench.now += Duration::from_secs(1);
            bench.relay.on_time(bench.now);
            bench.relay.on_time(bench.now);
            assert_eq!(bench.take().got().0, heartbeat(0xbeef), "once");
            let call = request(2, "s.hello", &[], b"");
            bench.send(&call);
            let answers = [heartbeat_reply(0xbeef), echo(&call)].concat();
            assert_eq!(bench.answer(&answers).got().1, echo(&call), "the answer is not the client's");
            assert_eq!(bench.relay.take_stats().in_flight, 0);
        });
    }
}

#[test]
fn a_flood_waits() {
    let config = RelayConfig { max_in_flight: 2, ..config(routes()) };
    for ordering in ORDERS {
        in_all_pieces(&config, ordering, |bench| {
            let calls: Vec<_> = (0..5).map(|id| request(id, "s.hello", &[], b"")).collect();
            assert_eq!(bench.send(&calls.concat()).got().0, calls[..2].concat());
            assert!(!bench.relay.wants_client_data());
            assert_eq!(bench.answer(&echo(&calls[0])).got().0, calls[2]);
        });
    }
}

#[test]
fn a_client_that_does_not_read_is_answered_no_more() {
    for ordering in ORDERS {
        in_all_pieces(&config(routes()), ordering, |bench| {
            bench.reads(false);
            assert!(!bench.relay.wants_client_data());
            let (denied, beat) = (request(1, "s.denied", &[], b""), heartbeat(2));
            assert_eq!(bench.send(&[denied, beat, request(3, "s.hello", &[], b"")].concat()).got().1, b"");
            bench.reads(true);
            let answers = [failed(1, "denied", FailureKind::Denied), heartbeat_reply(2)].concat();
            assert_eq!(bench.take().got(), (request(3, "s.hello", &[], b""), answers));
            assert!(bench.relay.wants_client_data());
        });
    }
}
