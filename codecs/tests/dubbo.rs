//! The Dubbo codec from outside: captures of Java Dubbo 3.3.6, and frames of our own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use meltemi::{
    Codec, Connection, DecodeErrorKind, Decoded, Failure, FailureKind, Frame, FrameKind, Limits, Mutation,
    NothingInFlight, Options, Outcome, Peer, Probe, Rejected,
    testing::{Transcript, decode_in_pieces, split_invariant},
};
use meltemi_codecs::dubbo::Dubbo;

macro_rules! capture {
    ($name:literal) => {
        include_bytes!(concat!("../corpus/dubbo/", $name, ".bin")).as_slice()
    };
}

fn codec() -> Dubbo {
    Dubbo::new(&Options::default()).unwrap()
}

fn connect(peer: Peer) -> Box<dyn Connection> {
    codec().connect(peer, &Limits::default())
}

fn frames(peer: Peer, stream: &[u8]) -> Transcript {
    decode_in_pieces(&codec(), peer, &Limits::default(), stream, &[])
}

fn one<T>(peer: Peer, bytes: &[u8], look: impl FnOnce(Frame<'_>) -> T) -> T {
    match connect(peer).decode(bytes, &NothingInFlight) {
        Ok(Decoded::Frame(frame)) => look(frame),
        other => panic!("{other:?}"),
    }
}

fn rejected<T>(bytes: &[u8], limits: &Limits, look: impl FnOnce(Rejected<'_>) -> T) -> T {
    match codec().connect(Peer::Client, limits).decode(bytes, &NothingInFlight) {
        Ok(Decoded::Rejected(rejected)) => look(rejected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn captures_decode_the_same_at_every_split_and_pass_unchanged() {
    for (peer, stream, count) in [
        (Peer::Client, capture!("hessian2.client"), 19),
        (Peer::Server, capture!("hessian2.server"), 18),
        (Peer::Client, capture!("fastjson2.client"), 8),
        (Peer::Server, capture!("fastjson2.server"), 7),
        (Peer::Client, capture!("errors.client"), 1),
        (Peer::Server, capture!("errors.server"), 1),
        (Peer::Client, capture!("heartbeat.client"), 2),
        (Peer::Server, capture!("heartbeat.server"), 2),
        (Peer::Client, capture!("burst-stop.client"), 6),
        (Peer::Server, capture!("burst-stop.server"), 8),
    ] {
        let seen = split_invariant(&codec(), peer, stream);
        assert_eq!((seen.frames.len(), seen.error, seen.rest), (count, None, 0));
        assert_eq!(seen.bytes.concat(), stream);
        let mut out = Vec::new();
        for frame in &seen.bytes {
            connect(peer).rewrite(frame, &Mutation::new(), None, &mut out).unwrap();
        }
        assert_eq!(out, stream);
    }
}

#[test]
fn calls_show_service_method_and_attachments() {
    for stream in [capture!("hessian2.client"), capture!("fastjson2.client")] {
        let calls = frames(Peer::Client, stream).bytes;
        one(Peer::Client, &calls[0], |hello| {
            assert_eq!(
                (hello.kind, hello.metadata.service, hello.metadata.method),
                (FrameKind::Request, b"peer.Demo".as_slice(), b"hello".as_slice())
            );
            for (name, value) in [
                ("env", "gray"),
                ("batchId", "b-1"),
                ("interface", "peer.Demo"),
                ("path", "peer.Demo"),
                ("version", "0.0.0"),
                ("timeout", "3000"),
                ("remote.application", "peer-consumer"),
                ("parameter-types", "Ljava/lang/String;"),
                ("serialization", if stream[2] & 0x1f == 2 { "hessian2" } else { "fastjson2" }),
            ] {
                assert_eq!(hello.metadata.header(name.as_bytes()), Some(value.as_bytes()), "{name}");
            }
            let mut versions = 0;
            hello.metadata.for_each_header(|name, _| versions += usize::from(name == b"version"));
            assert_eq!(versions, 1, "not once from the body and once from the attachments");
        });
        one(Peer::Client, &calls[1], |place| {
            assert_eq!(place.metadata.method, b"place");
            let types = b"Lpeer/Order;Ljava/util/List;Ljava/util/Map;".as_slice();
            assert_eq!(place.metadata.header(b"parameter-types"), Some(types));
            assert_eq!(place.metadata.header(b"env"), Some(b"gray".as_slice()), "behind an object, a list, a map");
        });
        one(Peer::Client, &calls[2], |fire| {
            assert_eq!((fire.kind, fire.metadata.method), (FrameKind::OneWay, b"fire".as_slice()));
        });
    }
}

#[test]
fn generic_calls_show_the_method_they_mean() {
    for (stream, at) in [(capture!("hessian2.client"), 5), (capture!("fastjson2.client"), 4)] {
        let calls = frames(Peer::Client, stream).bytes;
        for (call, method) in [(&calls[at], "hello"), (&calls[at + 1], "place")] {
            one(Peer::Client, call, |call| {
                assert_eq!(call.metadata.method, method.as_bytes());
                assert_eq!(call.metadata.header(b"generic"), Some(b"true".as_slice()));
                assert_eq!(call.metadata.header(b"parameter-types"), None);
            });
        }
    }
}

#[test]
fn replies_tell_how_the_call_went() {
    let ok = FrameKind::Response(Outcome::Ok);
    let exception = FrameKind::Response(Outcome::Exception);
    for stream in [capture!("hessian2.server"), capture!("fastjson2.server")] {
        let replies = frames(Peer::Server, stream).bytes;
        let kinds: Vec<_> = replies[..4].iter().map(|reply| one(Peer::Server, reply, |reply| reply.kind)).collect();
        assert_eq!(kinds, [ok, ok, exception, ok]);
        one(Peer::Server, &replies[0], |hello| {
            assert_eq!(hello.metadata.header(b"served-by"), Some(b"p1".as_slice()));
        });
        one(Peer::Server, &replies[2], |fail| {
            assert_eq!(fail.metadata.header(b"dubbo"), Some(b"2.0.2".as_slice()), "behind the exception");
        });
    }
    let failed = one(Peer::Server, capture!("errors.server"), |reply| reply.kind);
    assert_eq!(failed, FrameKind::Response(Outcome::Failure(FailureKind::Internal)));
}

#[test]
fn statuses_are_classified() {
    for (status, kind) in [
        (25, FailureKind::Internal),
        (30, FailureKind::Timeout),
        (31, FailureKind::Timeout),
        (35, FailureKind::UpstreamReset),
        (40, FailureKind::Malformed),
        (50, FailureKind::BadReply),
        (60, FailureKind::UnknownService),
        (70, FailureKind::Internal),
        (80, FailureKind::Internal),
        (90, FailureKind::Internal),
        (100, FailureKind::Overloaded),
        (7, FailureKind::Internal),
    ] {
        let mut frame = capture!("errors.server").to_vec();
        frame[3] = status;
        let outcome = one(Peer::Server, &frame, |reply| reply.kind);
        assert_eq!(outcome, FrameKind::Response(Outcome::Failure(kind)), "{status}");
    }
    let nonsense = [&capture!("heartbeat.server")[..15], &[1, 0x96]].concat();
    let outcome = one(Peer::Server, &nonsense, |reply| reply.kind);
    assert_eq!(outcome, FrameKind::Response(Outcome::Failure(FailureKind::BadReply)), "no result is written so");
}

#[test]
fn heartbeats_are_answered_as_java_does() {
    for (client, server) in [
        (capture!("heartbeat.client"), capture!("heartbeat.server")),
        (capture!("fastjson2.client"), capture!("fastjson2.server")),
    ] {
        // The last frame of both sides.
        let (asked, answered) = (frames(Peer::Client, client).bytes, frames(Peer::Server, server).bytes);
        let ticket = one(Peer::Client, asked.last().unwrap(), |frame| {
            assert_eq!(frame.kind, FrameKind::Heartbeat);
            frame.ticket()
        });
        let mut out = Vec::new();
        connect(Peer::Client).heartbeat_reply(&ticket, &mut out).unwrap();
        assert_eq!(&out, answered.last().unwrap());
        assert_eq!(one(Peer::Server, &out, |frame| frame.kind), FrameKind::HeartbeatReply);
    }
}

#[test]
fn our_heartbeat_and_drain_are_as_java_writes_them() {
    let mut out = Vec::new();
    connect(Peer::Server).heartbeat(&mut out).unwrap();
    let java = frames(Peer::Client, capture!("heartbeat.client")).bytes.remove(1);
    assert_eq!((&out[..4], &out[12..]), (&java[..4], &java[12..]));
    assert_eq!(one(Peer::Client, &out, |frame| frame.kind), FrameKind::Heartbeat);

    out.clear();
    connect(Peer::Client).drain(&mut out).unwrap();
    let java = frames(Peer::Server, capture!("burst-stop.server")).bytes.remove(6);
    assert_eq!((&out[..4], &out[12..]), (&java[..4], &java[12..]));
    assert_eq!(one(Peer::Server, &java, |frame| frame.kind), FrameKind::Drain);

    // In the words of a client that speaks fastjson2.
    let mut client = connect(Peer::Client);
    let decoded = client.decode(capture!("fastjson2.client"), &NothingInFlight);
    assert!(matches!(decoded, Ok(Decoded::Frame(_))));
    out.clear();
    client.drain(&mut out).unwrap();
    assert_eq!(hex::encode(&out[12..]), "00000006000000024a52");
    assert_eq!(one(Peer::Server, &out, |frame| frame.kind), FrameKind::Drain);
    client.reset();
    out.clear();
    client.drain(&mut out).unwrap();
    assert_eq!(out[2], 0xa2);
}

#[test]
fn every_failure_has_a_status_and_a_bare_text() {
    let table = [
        (FailureKind::NoRoute, 60),
        (FailureKind::NoCluster, 80),
        (FailureKind::NoHealthyUpstream, 80),
        (FailureKind::ConnectFailure, 35),
        (FailureKind::UpstreamReset, 35),
        (FailureKind::Timeout, 31),
        (FailureKind::Overflow, 100),
        (FailureKind::RateLimited, 100),
        (FailureKind::Aborted, 80),
        (FailureKind::Denied, 70),
        (FailureKind::TooLarge, 40),
        (FailureKind::Malformed, 40),
        (FailureKind::BadReply, 50),
        (FailureKind::Draining, 35),
        (FailureKind::UnknownService, 60),
        (FailureKind::UnknownMethod, 70),
        (FailureKind::Overloaded, 100),
        (FailureKind::Internal, 80),
    ];
    assert_eq!(table.map(|(kind, _)| kind), FailureKind::ALL);
    for (serialization, body) in [
        (2u8, "046e6f20c3a9"),
        (23, "000000077a056e6f20c3a9"),
        (22, "070a056e6f20c3a9"),
        (6, "226e6f20c3a9220a"),
        // Not written by us: in hessian2, which its header then says.
        (10, "046e6f20c3a9"),
        (7, "046e6f20c3a9"),
    ] {
        for (kind, status) in table {
            let mut request = frames(Peer::Client, capture!("hessian2.client")).bytes.remove(0);
            request[2] = 0xc0 | serialization;
            let ticket = codec_ticket(&request);
            let mut out = b"before".to_vec();
            let failure = Failure { kind, message: "no é" };
            connect(Peer::Client).error_reply(&ticket, &failure, &mut out).unwrap();
            let reply = &out[6..];
            let written = if matches!(serialization, 7 | 10) { 2 } else { serialization };
            assert_eq!((reply[2], reply[3], &reply[4..12]), (written, status, &request[4..12]), "{kind}");
            assert_eq!(hex::encode(&reply[16..]), body, "{serialization}");
            let seen = one(Peer::Server, reply, |frame| (frame.kind, frame.bytes.len()));
            assert_eq!(seen.1, reply.len());
            assert!(matches!(seen.0, FrameKind::Response(Outcome::Failure(_))));
        }
    }
}

/// The ticket of a frame, rejected or not.
fn codec_ticket(bytes: &[u8]) -> meltemi::Ticket {
    match connect(Peer::Client).decode(bytes, &NothingInFlight) {
        Ok(Decoded::Frame(frame)) => frame.ticket(),
        Ok(Decoded::Rejected(rejected)) => rejected.ticket(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_that_are_too_large_are_known_from_their_header() {
    let limits = Limits { max_frame: 100, ..Limits::default() };
    let call = capture!("errors.client");
    for there in [16, 50, call.len()] {
        rejected(&call[..there], &limits, |rejected| {
            assert_eq!((rejected.kind, rejected.length), (FrameKind::Request, call.len() as u64));
            assert_eq!(rejected.id.to_be_bytes(), call[4..12]);
            assert_eq!(rejected.error.kind, DecodeErrorKind::TooLarge);
        });
    }
}

#[test]
fn calls_that_are_not_understood_can_be_answered() {
    let mut call = capture!("errors.client").to_vec();
    call[16] = 0x40;
    rejected(&call, &Limits::default(), |rejected| {
        assert_eq!((rejected.error.kind, rejected.length), (DecodeErrorKind::Malformed, call.len() as u64));
        assert_eq!(rejected.ticket().context(), &call[..16]);
    });
    for limits in [Limits { max_headers: 5, ..Limits::default() }, Limits { max_header_bytes: 60, ..Limits::default() }]
    {
        let kind = rejected(capture!("errors.client"), &limits, |rejected| rejected.error.kind);
        assert_eq!(kind, DecodeErrorKind::TooLarge);
    }
}

#[test]
fn bodies_in_other_serializations_pass_unseen() {
    let mut call = capture!("errors.client").to_vec();
    call[2] = 0xc0 | 8;
    one(Peer::Client, &call, |frame| {
        assert_eq!(
            (frame.kind, frame.metadata.service, frame.metadata.method),
            (FrameKind::Request, &b""[..], &b""[..])
        );
        let mut headers = Vec::new();
        frame.metadata.for_each_header(|name, value| headers.push((name, value)));
        assert_eq!(headers, [(&b"serialization"[..], &b"kryo"[..])]);
    });
    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    let mut out = Vec::new();
    assert!(connect(Peer::Client).rewrite(&call, &mutation, None, &mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn other_protocols_are_told_at_once() {
    let codec = codec();
    assert_eq!(codec.probe(&[0xda, 0xbb, 0]), Probe::Match);
    assert_eq!(codec.probe(&[0xda]), Probe::NeedMore(1));
    assert_eq!(codec.probe(b""), Probe::NeedMore(2));
    assert_eq!(codec.probe(b"GET"), Probe::NoMatch);
    assert!(connect(Peer::Client).decode(b"G", &NothingInFlight).is_err());
    assert!(split_invariant(&codec, Peer::Client, &[0xda, 0xbd, 0]).error.is_some());
    let negative = [&capture!("errors.client")[..12], &[0xff; 4]].concat();
    rejected(&negative, &Limits::default(), |rejected| {
        assert_eq!((rejected.kind, rejected.length), (FrameKind::Request, Rejected::NO_END), "answered, then closed");
        assert_eq!(rejected.id.to_be_bytes(), negative[4..12]);
        let failure = Failure { kind: FailureKind::Malformed, message: "" };
        connect(Peer::Client).error_reply(&rejected.ticket(), &failure, &mut Vec::new()).unwrap();
    });
}

#[test]
fn only_the_serializations_that_are_listed_are_taken() {
    let codec = |listed: &str| Dubbo::new(&Options([("serializations".to_owned(), listed.to_owned())].into()));
    let call = capture!("errors.client");
    for (listed, taken) in [("hessian2", true), ("fastjson2, 2", true), ("fastjson2,22", false)] {
        let codec = codec(listed).unwrap();
        match codec.connect(Peer::Client, &Limits::default()).decode(call, &NothingInFlight) {
            Ok(Decoded::Frame(_)) => assert!(taken, "{listed}"),
            Ok(Decoded::Rejected(rejected)) => {
                assert!(!taken, "{listed}");
                assert_eq!((rejected.kind, rejected.error.kind), (FrameKind::Request, DecodeErrorKind::Unsupported));
            }
            other => panic!("{other:?}"),
        }
        let replies = decode_in_pieces(&codec, Peer::Server, &Limits::default(), capture!("hessian2.server"), &[]);
        assert_eq!(replies.frames.len(), 18, "replies are the server's business");
    }
    assert_eq!(codec("hessian").unwrap_err().name, "serializations");
    assert_eq!(codec("32").unwrap_err().name, "serializations");
}

#[test]
fn unknown_options_are_refused() {
    let mut options = Options::default();
    options.0.insert("x".to_owned(), "y".to_owned());
    assert_eq!(Dubbo::new(&options).unwrap_err().name, "x");
}

#[test]
fn replies_above_the_header_limits_have_no_headers() {
    let reply = frames(Peer::Server, capture!("hessian2.server")).bytes.remove(0);
    for (limits, shown) in [
        (Limits::default(), true),
        (Limits { max_headers: 1, ..Limits::default() }, false),
        (Limits { max_header_bytes: 10, ..Limits::default() }, false),
    ] {
        let mut connection = codec().connect(Peer::Server, &limits);
        let Ok(Decoded::Frame(reply)) = connection.decode(&reply, &NothingInFlight) else { panic!("no frame") };
        assert_eq!(reply.kind, FrameKind::Response(Outcome::Ok));
        assert_eq!(reply.metadata.header(b"served-by").is_some(), shown);
    }
}
