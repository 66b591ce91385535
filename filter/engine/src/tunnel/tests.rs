use std::{collections::BTreeMap, sync::Arc};

use meltemi_core::Ordering;

use super::Tunnel;
use crate::{
    Close,
    config::{CodecConfig, OutletConfig},
    cutting::{Cutter, in_all_cuttings},
    h2::{self, Event, StreamId},
    outlet::OutletShared,
    test_codec::{TestCodec, drain, heartbeat, ok, one_way, request},
};

/// A reply as the router sees it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Reply {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ended: bool,
    reset: Option<u32>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Router, tunnel, a stand-in for the HCM behind it, server.
struct Bench {
    tunnel: Tunnel,
    router: h2::Connection,
    replies: BTreeMap<StreamId, Reply>,
    went_away: bool,
    hcm: h2::Connection,
    connect: Option<StreamId>,
    /// The status with which `CONNECT` is answered.
    status: &'static [u8],
    server_got: Vec<u8>,
    server_ended: bool,
    cutter: Cutter,
}

impl Bench {
    fn new(cutter: Cutter) -> Self {
        let config = OutletConfig::new(CodecConfig { name: "test".to_owned(), options: BTreeMap::new() });
        let shared = OutletShared::new(&config, Box::new(TestCodec(Ordering::Multiplexed))).unwrap();
        Self {
            tunnel: Tunnel::new(Arc::new(shared)),
            router: h2::Connection::client(&h2::Settings::default()),
            replies: BTreeMap::new(),
            went_away: false,
            hcm: h2::Connection::server(&h2::Settings::default()),
            connect: None,
            status: b"200",
            server_got: Vec::new(),
            server_ended: false,
            cutter,
        }
    }

    fn ask(&mut self, frame: &[u8], headers: &[(&str, &str)]) -> StreamId {
        let head = |to: &mut h2::HeaderWriter<'_>| {
            to.push(b":method", b"POST");
            to.push(b":path", b"/a/b");
            for (name, value) in headers {
                to.push(name.as_bytes(), value.as_bytes());
            }
        };
        let stream = self.router.open(&mut { head }, false).unwrap();
        self.router.send_data(stream, frame, true);
        self.settle();
        stream
    }

    fn serve(&mut self, bytes: &[u8], end: bool) {
        self.hcm.send_data(self.connect.unwrap(), bytes, end);
        self.settle();
    }

    fn reply(&self, stream: StreamId) -> &Reply {
        &self.replies[&stream]
    }

    fn settle(&mut self) {
        loop {
            let up = core::mem::take(self.router.output());
            let down = core::mem::take(self.hcm.output());
            for piece in self.cutter.cut(&up) {
                self.tunnel.on_router_data(piece);
            }
            // An HCM says nothing before it has heard of HTTP.
            if self.connect.is_some() || !down.is_empty() {
                for piece in self.cutter.cut(&down) {
                    self.tunnel.on_server_data(piece, false);
                }
            }
            let to_hcm = core::mem::take(self.tunnel.to_hcm());
            // As the host does: what is for the router waits until the HCM has something for it.
            let to_router = core::mem::take(self.tunnel.to_router());
            self.read_hcm(&to_hcm);
            self.read_router(&to_router);
            if up.is_empty() && down.is_empty() && to_hcm.is_empty() && to_router.is_empty() {
                return;
            }
        }
    }

    fn read_hcm(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        if bytes.is_empty() {
            return;
        }
        let mut connected = None;
        while let Some(event) = self.hcm.next_event(&mut input).unwrap() {
            match event {
                Event::Headers { stream, headers, end_stream: false } => {
                    assert_eq!(headers.first(b":method"), Some(&b"CONNECT"[..]));
                    assert_eq!(headers.first(b":path"), None);
                    connected = Some(stream);
                }
                Event::Data { data, end_stream, .. } => {
                    self.server_got.extend_from_slice(data);
                    self.server_ended |= end_stream;
                }
                other => panic!("{other:?}"),
            }
        }
        if let Some(stream) = connected {
            self.connect = Some(stream);
            let status = self.status;
            self.hcm.send_headers(stream, &mut |to| to.push(b":status", status), status != b"200");
        }
    }

    fn read_router(&mut self, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(event) = self.router.next_event(&mut input).unwrap() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            match event {
                Event::Headers { stream, headers, end_stream } => {
                    let reply = self.replies.entry(stream).or_default();
                    reply.headers = headers.iter().map(|(name, value)| (text(name), text(value))).collect();
                    reply.ended = end_stream;
                }
                Event::Data { stream, data, end_stream } => {
                    let reply = self.replies.entry(stream).or_default();
                    reply.body.extend_from_slice(data);
                    reply.ended = end_stream;
                }
                Event::Reset { stream, code } => self.replies.entry(stream).or_default().reset = Some(code),
                Event::GoAway { .. } => self.went_away = true,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn in_all(scenario: impl Fn(&mut Bench)) {
    in_all_cuttings(|cutter| {
        let mut bench = Bench::new(cutter);
        scenario(&mut bench);
        bench.cutter
    });
}

#[test]
fn calls_go_one_after_the_other_over_one_connection() {
    in_all(|bench| {
        for id in [1, 2] {
            let frame = request(id, "a.b", &[("env", "x")], b"body");
            let stream = bench.ask(&frame, &[("env", "x")]);
            assert_eq!(bench.server_got, frame);
            bench.server_got.clear();
            assert!(bench.replies.is_empty());
            let reply = ok(id, &[("k", "v")], b"done");
            bench.serve(&reply, false);
            let seen = bench.reply(stream);
            assert_eq!((seen.header(":status"), seen.header("k")), (Some("200"), Some("v")));
            assert_eq!((&seen.body, seen.ended), (&reply, true));
            bench.replies.clear();
        }
        assert!(!bench.went_away && bench.tunnel.close().is_none());
    });
}

#[test]
fn what_routes_changed_enters_the_frame() {
    in_all(|bench| {
        bench.ask(&request(1, "a.b", &[("env", "x")], b""), &[("env", "blue")]);
        assert_eq!(bench.server_got, request(1, "a.b", &[("env", "blue")], b""));
    });
}

#[test]
fn a_one_way_call_is_answered_without_a_word_of_the_server() {
    in_all(|bench| {
        let stream = bench.ask(&one_way(1, "a.b", b"body"), &[]);
        assert_eq!(bench.server_got, one_way(1, "a.b", b"body"));
        let seen = bench.reply(stream);
        assert_eq!((seen.header(":status"), seen.ended), (Some("200"), true));
        let stream = bench.ask(&request(2, "a.b", &[], b""), &[]);
        bench.serve(&ok(2, &[], b""), false);
        assert_eq!(bench.reply(stream).body, ok(2, &[], b""));
    });
}

#[test]
fn a_prompt_makes_the_hcm_write() {
    let mut bench = Bench::new(Cutter::pieces(usize::MAX));
    bench.ask(&one_way(1, "a.b", b""), &[]);
    bench.tunnel.prompt();
    let ping = core::mem::take(bench.tunnel.to_hcm());
    bench.read_hcm(&ping);
    assert!(!bench.hcm.output().is_empty());
}

#[test]
fn without_a_server_the_request_can_go_to_another() {
    in_all(|bench| {
        bench.status = b"503";
        let stream = bench.ask(&request(1, "a.b", &[], b""), &[]);
        assert_eq!(bench.reply(stream).reset, Some(h2::ErrorCode::RefusedStream as u32));
        assert!(bench.went_away && bench.tunnel.close().is_none());
    });
}

#[test]
fn a_server_that_closes_leaves_no_call_open() {
    in_all(|bench| {
        let stream = bench.ask(&request(1, "a.b", &[], b""), &[]);
        bench.serve(&ok(1, &[], b"")[..5], true);
        assert_eq!(bench.reply(stream).reset, Some(h2::ErrorCode::Internal as u32));
        assert!(bench.went_away && bench.tunnel.close().is_none());
    });
}

#[test]
fn a_server_that_closes_or_speaks_between_calls_is_not_asked_again() {
    for (bytes, end) in [(&b""[..], true), (b"hello", false)] {
        in_all(|bench| {
            let stream = bench.ask(&request(1, "a.b", &[], b""), &[]);
            bench.serve(&ok(1, &[], b""), false);
            assert!(bench.reply(stream).ended && !bench.went_away);
            bench.serve(bytes, end);
            assert!(bench.went_away && bench.tunnel.close().is_none());
        });
    }
}

#[test]
fn a_reply_behind_which_the_server_leaves_is_given_and_the_connection_is_not_used_again() {
    in_all(|bench| {
        let stream = bench.ask(&request(1, "a.b", &[], b""), &[]);
        bench.serve(&[drain(), ok(1, &[], b"last")].concat(), false);
        assert_eq!(bench.reply(stream).body, ok(1, &[], b"last"));
        assert!(bench.reply(stream).ended && bench.went_away && bench.tunnel.close().is_none());
    });
}

#[test]
fn heartbeats_of_the_server_are_answered_during_a_call() {
    in_all(|bench| {
        bench.ask(&request(1, "a.b", &[], b""), &[]);
        bench.server_got.clear();
        bench.serve(&heartbeat(7), false);
        assert!(!bench.server_got.is_empty());
        assert!(bench.tunnel.close().is_none());
    });
}

#[test]
fn a_second_request_at_the_same_time_is_refused() {
    in_all(|bench| {
        let first = bench.ask(&request(1, "a.b", &[], b""), &[]);
        let second = bench.ask(&request(2, "a.b", &[], b""), &[]);
        assert_eq!(bench.reply(second).reset, Some(h2::ErrorCode::RefusedStream as u32));
        bench.serve(&ok(1, &[], b""), false);
        assert_eq!(bench.reply(first).body, ok(1, &[], b""));
    });
}

#[test]
fn a_call_that_is_given_up_costs_its_connection() {
    in_all(|bench| {
        let stream = bench.ask(&request(1, "a.b", &[], b""), &[]);
        bench.router.reset(stream, h2::ErrorCode::Cancel);
        bench.settle();
        assert!(bench.went_away);
        bench.serve(&ok(1, &[], b"late"), false);
        assert!(bench.replies.is_empty());
    });
}

#[test]
fn bytes_that_are_no_http_close_the_connection() {
    let mut bench = Bench::new(Cutter::pieces(usize::MAX));
    bench.tunnel.on_router_data(&[b'x'; 64]);
    assert_eq!(bench.tunnel.close(), Some(Close::Flush));
}
