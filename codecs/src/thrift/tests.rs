use meltemi::{
    Codec, DecodeErrorKind, Decoded, EncodeError, Failure, FailureKind, FrameKind, Limits, Mutation, NothingInFlight,
    Options, Ordering, Outcome, Peer, Probe, Rejected, Ticket,
    testing::{decode_in_pieces, split_invariant},
};

use super::{ENTRY, Thrift};

mod refused;

macro_rules! capture {
    ($name:literal) => {
        (
            include_bytes!(concat!("../../corpus/thrift/", $name, ".client.bin")).as_slice(),
            include_bytes!(concat!("../../corpus/thrift/", $name, ".server.bin")).as_slice(),
        )
    };
}

const OK: FrameKind = FrameKind::Response(Outcome::Ok);
const EXCEPTION: FrameKind = FrameKind::Response(Outcome::Exception);
const INTERNAL: FrameKind = FrameKind::Response(Outcome::Failure(FailureKind::Internal));

fn codec(options: &[(&str, &str)]) -> Thrift {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Thrift::new(&Options(options)).unwrap()
}

/// What the client and what the server sent.
type Capture = (&'static [u8], &'static [u8]);

fn captures() -> [(&'static str, Capture); 11] {
    [
        ("framed-binary", capture!("framed-binary")),
        ("framed-binary-multiplexed", capture!("framed-binary-multiplexed")),
        ("framed-binary-old", capture!("framed-binary-old")),
        ("framed-compact", capture!("framed-compact")),
        ("header-binary-zlib", capture!("header-binary-zlib")),
        ("header-compact", capture!("header-compact")),
        ("ttheader-binary", capture!("ttheader-binary")),
        ("ttheader-binary-bare", capture!("ttheader-binary-bare")),
        ("ttheader-compact", capture!("ttheader-compact")),
        ("unframed-binary", capture!("unframed-binary")),
        ("unframed-compact", capture!("unframed-compact")),
    ]
}

/// What a frame said: kind, service, method, headers.
type Seen = (FrameKind, String, String, Vec<(String, String)>);

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn frames(codec: &Thrift, peer: Peer, mut stream: &[u8]) -> Vec<Seen> {
    let mut connection = codec.connect(peer, &Limits::default());
    let mut seen = Vec::new();
    while !stream.is_empty() {
        let Ok(Decoded::Frame(frame)) = connection.decode(stream, &NothingInFlight) else { panic!("no frame") };
        let mut headers = Vec::new();
        frame.metadata.for_each_header(|name, value| headers.push((text(name), text(value))));
        seen.push((frame.kind, text(frame.metadata.service), text(frame.metadata.method), headers));
        stream = &stream[frame.bytes.len()..];
    }
    seen
}

/// A TTHeader request: integer keys 6 `to-service` and 9 `to-method`, text keys `isn` and `env`, framed strict message.
fn ttheader() -> Vec<u8> {
    let mut infos = vec![0, 0, 0x10, 0, 2, 0, 6, 0, 3];
    infos.extend_from_slice(b"shr\0\x09\0\x03add\x01\0\x02\0\x03isn\0\x04Shop\0\x03env\0\x04gray");
    infos.resize(infos.len().next_multiple_of(4), 0);
    let message = b"\x80\x01\0\x01\0\0\0\x03add\0\0\0\x07\0";
    let mut frame = vec![0; 4];
    frame.extend_from_slice(&[0x10, 0, 0, 0, 0, 0, 0, 42]);
    frame.extend_from_slice(&((infos.len() / 4) as u16).to_be_bytes());
    frame.extend_from_slice(&infos);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

#[test]
fn captures_decode_whole_and_at_every_split() {
    for (name, (client, server)) in captures() {
        for (peer, stream) in [(Peer::Client, client), (Peer::Server, server)] {
            let transcript = split_invariant(&codec(&[]), peer, stream);
            assert_eq!((transcript.error, transcript.rest), (None, 0), "{name} {peer:?}");
            assert_eq!(transcript.bytes.concat(), stream, "{name}: the frames are the stream");
        }
    }
    let transcript = split_invariant(&codec(&[]), Peer::Client, &ttheader());
    assert_eq!((transcript.frames.len(), transcript.rest), (1, 0));
}

#[test]
fn calls_and_replies_of_the_captures_are_classified() {
    for (name, (client, server)) in captures() {
        let codec = codec(&[]);
        let calls = frames(&codec, Peer::Client, client);
        let kinds: Vec<_> = calls.iter().map(|call| (call.0, call.2.as_str())).collect();
        assert!(kinds.contains(&(FrameKind::Request, "hello")), "{name}: {kinds:?}");
        assert!(kinds.contains(&(FrameKind::OneWay, "fire")), "{name}: {kinds:?}");
        let named = name.ends_with("multiplexed") || name.starts_with("ttheader");
        let service = if named { "Demo" } else { "" };
        assert!(calls.iter().all(|call| call.1 == service), "{name}: {calls:?}");
        let replies = frames(&codec, Peer::Server, server);
        let outcomes: Vec<_> = replies.iter().map(|reply| (reply.2.as_str(), reply.0)).collect();
        for expected in [("hello", OK), ("fail", EXCEPTION), ("crash", INTERNAL)] {
            assert!(outcomes.contains(&expected), "{name}: {expected:?} in {outcomes:?}");
        }
    }
}

#[test]
fn headers_are_metadata() {
    let expected = [("batchId".to_owned(), "b-1".to_owned()), ("env".to_owned(), "gray".to_owned())];
    for (client, _) in [capture!("header-binary-zlib"), capture!("header-compact")] {
        for call in frames(&codec(&[]), Peer::Client, client) {
            assert_eq!(call.3, expected, "{}", call.2);
        }
    }
    let [call] = &frames(&codec(&[]), Peer::Client, &ttheader())[..] else { panic!("one call") };
    assert_eq!((call.1.as_str(), call.2.as_str()), ("Shop", "add"));
    let names: Vec<_> = call.3.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(names, [("to-service", "shr"), ("to-method", "add"), ("isn", "Shop"), ("env", "gray")]);
}

#[test]
fn a_service_can_be_configured() {
    let (client, _) = capture!("framed-binary");
    let calls = frames(&codec(&[("service", "shop.Demo")]), Peer::Client, client);
    assert!(calls.iter().all(|call| call.1 == "shop.Demo"));
    let (client, _) = capture!("framed-binary-multiplexed");
    let calls = frames(&codec(&[("service", "shop.Demo")]), Peer::Client, client);
    assert!(calls.iter().all(|call| call.1 == "Demo"), "what the call names wins");
}

#[test]
fn a_mutation_changes_the_headers_alone() {
    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    mutation.set(b"user", b"u1");
    mutation.remove(b"batchId");
    for frame in [first(capture!("header-binary-zlib").0), first(capture!("header-compact").0), ttheader()] {
        let codec = codec(&[]);
        let mut out = Vec::new();
        codec.connect(Peer::Client, &Limits::default()).rewrite(&frame, &mutation, None, &mut out).unwrap();
        let (before, after) = (frames(&codec, Peer::Client, &frame), frames(&codec, Peer::Client, &out));
        assert_eq!((before[0].0, &before[0].1, &before[0].2), (after[0].0, &after[0].1, &after[0].2));
        let mut expected: Vec<_> = before[0].3.iter().filter(|(name, _)| name != "batchId").cloned().collect();
        expected.iter_mut().filter(|(name, _)| name == "env").for_each(|(_, value)| *value = "blue".to_owned());
        expected.push(("user".to_owned(), "u1".to_owned()));
        assert_eq!(after[0].3, expected);
        assert_eq!(out[8..12], frame[8..12], "sequence number");
        let tail = message_of(&frame);
        assert!(out.ends_with(tail) && tail.len() > 10, "the message is copied");
        let limits = Limits { max_frame: out.len() - 1, ..Limits::default() };
        let refused = codec.connect(Peer::Client, &limits).rewrite(&frame, &mutation, None, &mut Vec::new());
        assert!(matches!(refused, Err(EncodeError::TooLarge(_))));
    }
}

#[test]
fn framed_and_unframed_have_no_headers_to_change() {
    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    for frame in [first(capture!("framed-binary").0), first(capture!("unframed-compact").0)] {
        let mut out = b"kept".to_vec();
        let mut connection = codec(&[]).connect(Peer::Client, &Limits::default());
        assert!(connection.rewrite(&frame, &mutation, None, &mut out).is_err());
        assert_eq!(out, b"kept");
    }
}

#[test]
fn another_sequence_number_and_back_is_the_same_frame() {
    for (name, (client, server)) in captures() {
        for stream in [client, server] {
            let frame = first(stream);
            let codec = codec(&[]);
            let mut connection = codec.connect(Peer::Client, &Limits::default());
            let (mut there, mut back) = (Vec::new(), Vec::new());
            if name == "header-binary-zlib" && stream == client {
                let refused = connection.rewrite(&frame, &Mutation::new(), Some(0xfeed_beef), &mut there);
                assert!(matches!(refused, Err(EncodeError::Unsupported(_))), "its message is compressed");
                connection.rewrite(&frame, &Mutation::new(), Some(0), &mut there).unwrap();
                assert_eq!(there, frame, "the number that it has");
                continue;
            }
            connection.rewrite(&frame, &Mutation::new(), Some(0xfeed_beef), &mut there).unwrap();
            let decoded = connection.decode(&there, &NothingInFlight).unwrap();
            let Decoded::Frame(found) = decoded else { panic!("{name}: {decoded:?}") };
            assert_eq!((found.id, found.bytes.len()), (0xfeed_beef, there.len()), "{name}");
            let mut again = codec.connect(Peer::Client, &Limits::default());
            let Ok(Decoded::Frame(before)) = again.decode(&frame, &NothingInFlight) else { panic!("{name}") };
            connection.rewrite(&there, &Mutation::new(), Some(before.id), &mut back).unwrap();
            assert_eq!(back, frame, "{name}");
        }
    }
}

#[test]
fn headers_of_cloudwego_are_metadata_and_change() {
    let expected = [
        ("from-service", "peer.client"),
        ("to-service", "peer.demo"),
        ("to-method", "hello"),
        ("rpc-timeout", "3000"),
        ("isn", "Demo"),
        ("env", "gray"),
        ("RPC_PERSIST_user", "u1"),
    ];
    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    mutation.set(b"to-service", b"other");
    mutation.remove(b"isn");
    for (client, server) in
        [capture!("ttheader-binary"), capture!("ttheader-binary-bare"), capture!("ttheader-compact")]
    {
        let frame = first(client);
        let mut seen = frames(&codec(&[]), Peer::Client, &frame).remove(0).3;
        assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut out = Vec::new();
        codec(&[]).connect(Peer::Client, &Limits::default()).rewrite(&frame, &mutation, None, &mut out).unwrap();
        seen.retain(|(name, _)| name != "isn");
        for (name, value) in &mut seen {
            match name.as_str() {
                "env" => *value = "blue".to_owned(),
                "to-service" => *value = "other".to_owned(),
                _ => {}
            }
        }
        assert_eq!(frames(&codec(&[]), Peer::Client, &out).remove(0).3, seen);
        assert!(out.ends_with(message_of(&frame)));
        assert!(out.windows(6).any(|window| window == b"secret"), "the token is kept");
        let reply = frames(&codec(&[]), Peer::Server, server).remove(0).3;
        assert!(reply.contains(&("served-by".to_owned(), "p1".to_owned())), "{reply:?}");
        assert!(reply.contains(&("msg-type".to_owned(), "2".to_owned())), "{reply:?}");
    }
}

#[test]
fn calls_and_replies_share_an_id_where_their_two_numbers_differ() {
    let (client, server) = capture!("header-numbers");
    let ids = |peer, mut stream: &[u8]| {
        let codec = codec(&[]);
        let mut connection = codec.connect(peer, &Limits::default());
        let mut ids = Vec::new();
        while let Ok(Decoded::Frame(frame)) = connection.decode(stream, &NothingInFlight) {
            ids.push(frame.id);
            stream = &stream[frame.bytes.len()..];
        }
        ids
    };
    assert_eq!(ids(Peer::Client, client), [7, 3, 0]);
    assert_eq!(ids(Peer::Server, server), [7, 3, 0], "as the THeader server of Apache Thrift answers");
}

#[test]
fn headers_that_no_mutation_touches_are_copied_as_they_are() {
    let mut frame = ttheader();
    let message = frame.len() - message_of(&frame).len();
    // A word of padding more than needed, which headers written anew would not have.
    frame.splice(message..message, [0; 4]);
    frame[13] += 1;
    frame[3] += 4;
    let mut out = Vec::new();
    let mut connection = codec(&[]).connect(Peer::Client, &Limits::default());
    connection.rewrite(&frame, &Mutation::new(), None, &mut out).unwrap();
    assert_eq!(out, frame);
    out.clear();
    connection.rewrite(&frame, &Mutation::new(), Some(3), &mut out).unwrap();
    let Ok(Decoded::Frame(again)) = connection.decode(&out, &NothingInFlight) else { panic!("no frame") };
    assert_eq!((again.id, &out[8..12], out.len()), (3, &[0, 0, 0, 3][..], frame.len()), "both numbers");
}

#[test]
fn every_failure_has_a_reply_that_its_client_understands() {
    let mut requests: Vec<_> = captures().into_iter().map(|(_, (client, _))| first(client)).collect();
    requests.push(ttheader());
    for request in requests {
        for kind in FailureKind::ALL {
            let codec = codec(&[]);
            let mut connection = codec.connect(Peer::Client, &Limits::default());
            let Ok(Decoded::Frame(frame)) = connection.decode(&request, &NothingInFlight) else { panic!("no frame") };
            let (ticket, method) = (frame.ticket(), frame.metadata.method.to_vec());
            let mut out = Vec::new();
            connection.error_reply(&ticket, &Failure { kind, message: "no luck" }, &mut out).unwrap();
            assert!(out.windows(7).any(|window| window == b"no luck"));
            let mut server = codec.connect(Peer::Server, &Limits::default());
            let Ok(Decoded::Frame(reply)) = server.decode(&out, &NothingInFlight) else { panic!("{out:02x?}") };
            let told = match kind {
                FailureKind::NoRoute | FailureKind::UnknownService | FailureKind::UnknownMethod => {
                    FailureKind::UnknownMethod
                }
                FailureKind::Malformed | FailureKind::TooLarge => FailureKind::Malformed,
                _ => FailureKind::Internal,
            };
            assert_eq!(reply.kind, FrameKind::Response(Outcome::Failure(told)));
            assert_eq!((reply.id, reply.metadata.method, reply.bytes.len()), (ticket.id, &method[..], out.len()));
        }
    }
}

#[test]
fn ordering_follows_the_transport() {
    for (name, (client, _)) in captures() {
        let mut connection = codec(&[]).connect(Peer::Client, &Limits::default());
        assert_eq!(connection.ordering(), None);
        connection.decode(client, &NothingInFlight).unwrap();
        let expected = if name.contains("header") { Ordering::Multiplexed } else { Ordering::Ordered };
        assert_eq!(connection.ordering(), Some(expected), "{name}");
        connection.reset();
        assert_eq!(connection.ordering(), None);
    }
}

#[test]
fn a_connection_that_clients_share_has_messages_of_every_transport() {
    let captures: Vec<_> = captures().into_iter().chain(captures()).collect();
    let alone = |client: &[u8]| split_invariant(&codec(&[]), Peer::Client, client).frames;
    let frames: Vec<String> = captures.iter().flat_map(|(_, (client, _))| alone(client)).collect();
    let mixed: Vec<u8> = captures.iter().flat_map(|(_, (client, _))| client.to_vec()).collect();
    assert_eq!(decode_in_pieces(&codec(&[]), Peer::Client, &Limits::default(), &mixed, &[]).frames, frames);
    // From the first message on whose reply is known by its order alone, all are answered in order.
    let mut connection = codec(&[]).connect(Peer::Client, &Limits::default());
    for ((client, _), expected) in [
        (capture!("header-compact"), Ordering::Multiplexed),
        (capture!("framed-binary"), Ordering::Ordered),
        (capture!("header-compact"), Ordering::Ordered),
    ] {
        connection.decode(client, &NothingInFlight).unwrap();
        assert_eq!(connection.ordering(), Some(expected));
    }
}

#[test]
fn elements_count_the_same_in_any_pieces() {
    let (client, _) = capture!("unframed-binary");
    for max_elements in 1..60 {
        let limits = Limits { max_elements, ..Limits::default() };
        let whole = decode_in_pieces(&codec(&[]), Peer::Client, &limits, client, &[]);
        assert_eq!(whole.frames, decode_in_pieces(&codec(&[]), Peer::Client, &limits, client, &[1]).frames);
    }
}

#[test]
fn a_string_beyond_the_limit_is_the_same_error_in_any_pieces() {
    // One argument: field 1, a string as long as the whole message may be.
    let mut message = b"\x80\x01\0\x01\0\0\0\x01f\0\0\0\0\x0b\0\x01\0\0\0\x40".to_vec();
    message.resize(64, b'x');
    let limits = Limits { max_frame: 64, ..Limits::default() };
    let whole = decode_in_pieces(&codec(&[]), Peer::Client, &limits, &message, &[]);
    assert!(whole.frames[0].contains("too large"));
    assert_eq!(whole.frames, decode_in_pieces(&codec(&[]), Peer::Client, &limits, &message, &[1]).frames);
}

#[test]
fn nesting_is_limited() {
    // Structs in structs in an argument: field 1, type 12.
    let mut message = b"\x80\x01\0\x01\0\0\0\x01f\0\0\0\0".to_vec();
    message.extend_from_slice(&[12, 0, 1].repeat(100));
    let transcript = decode_in_pieces(&codec(&[]), Peer::Client, &Limits::default(), &message, &[]);
    assert!(transcript.frames[0].contains("nested too deep"));
}

#[test]
fn a_fixed_transport_refuses_the_others() {
    let (framed, _) = capture!("framed-binary");
    let (header, _) = capture!("header-compact");
    let transcript = split_invariant(&codec(&[("transport", "header")]), Peer::Client, framed);
    assert!(transcript.error.unwrap().contains("magic"));
    assert_eq!(codec(&[("transport", "framed")]).probe(header), Probe::NoMatch);
    assert_eq!(codec(&[]).probe(header), Probe::Match);
    let compact = codec(&[("protocol", "compact")]);
    assert!(split_invariant(&compact, Peer::Client, framed).frames[0].contains("protocol"));
    assert!((ENTRY.build)(&Options([("transport".to_owned(), "udp".to_owned())].into())).is_err());
}

#[test]
fn bytes_that_are_not_thrift_are_an_error() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 32], &[0; 32]] {
        let transcript = split_invariant(&codec(&[]), Peer::Client, garbage);
        assert!(transcript.error.is_some(), "{garbage:02x?}");
    }
}

/// The first frame of a capture.
fn first(stream: &[u8]) -> Vec<u8> {
    decode_in_pieces(&codec(&[]), Peer::Client, &Limits::default(), stream, &[]).bytes.swap_remove(0)
}

/// What stands behind the infos of a THeader or TTHeader frame.
fn message_of(frame: &[u8]) -> &[u8] {
    &frame[14 + 4 * usize::from(u16::from_be_bytes([frame[12], frame[13]]))..]
}
