//! Requests that are not taken: each is answered with what its client needs to know it by, one-way calls are not.

use super::*;

/// A frame with a THeader or TTHeader around `message`.
fn around(magic: [u8; 2], outer: u8, infos: &[u8], message: &[u8]) -> Vec<u8> {
    let mut infos = infos.to_vec();
    infos.resize(infos.len().next_multiple_of(4), 0);
    let head = [&magic[..], &[0, 0, 0, 0, 0, outer], &((infos.len() / 4) as u16).to_be_bytes(), &infos].concat();
    [&((head.len() + message.len()) as u32).to_be_bytes(), &head[..], message].concat()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes(), message].concat()
}

/// A strict message `fire` with the number 7 and a field of 200 bytes.
fn strict(kind: u8) -> Vec<u8> {
    let head = [0x80, 1, 0, kind, 0, 0, 0, 4, b'f', b'i', b'r', b'e', 0, 0, 0, 7, 11, 0, 1, 0, 0, 0, 200];
    [&head[..], &[b'x'; 200], &[0]].concat()
}

fn compact(kind: u8) -> Vec<u8> {
    [&[0x82, kind << 5 | 1, 7, 4, b'f', b'i', b'r', b'e', 0x18, 200, 1][..], &[b'x'; 200], &[0]].concat()
}

fn zlib(message: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

/// What a refused frame said, decoded in the smallest pieces; `None` if it ends the connection without an answer.
fn refused(codec: &Thrift, limits: &Limits, frame: &[u8]) -> Option<(Ticket, u64, DecodeErrorKind)> {
    let pieces = [decode_in_pieces(codec, Peer::Client, limits, frame, &[1]), {
        decode_in_pieces(codec, Peer::Client, limits, frame, &[])
    }];
    assert_eq!(pieces[0].frames, pieces[1].frames);
    let mut connection = codec.connect(Peer::Client, limits);
    let mut there = 1;
    loop {
        match connection.decode(&frame[..there], &NothingInFlight) {
            Ok(Decoded::Incomplete { needed }) => there += needed,
            Ok(Decoded::Rejected(rejected)) => {
                return Some((rejected.ticket(), rejected.length, rejected.error.kind));
            }
            Ok(Decoded::Frame(_)) => panic!("taken"),
            Err(_) => return None,
        }
    }
}

/// The reply to a refused request: its method, its id, the type of the exception.
fn answer(codec: &Thrift, ticket: &Ticket, kind: FailureKind) -> (String, u64, u8) {
    let mut out = Vec::new();
    let failure = Failure { kind, message: "no luck" };
    codec.connect(Peer::Client, &Limits::default()).error_reply(ticket, &failure, &mut out).unwrap();
    let lenient = Thrift::new(&Options::default()).unwrap();
    let mut server = lenient.connect(Peer::Server, &Limits::default());
    let Ok(Decoded::Frame(reply)) = server.decode(&out, &NothingInFlight) else { panic!("{out:02x?}") };
    assert!(matches!(reply.kind, FrameKind::Response(Outcome::Failure(_))));
    // The last field is the type: an i32, or in compact a varint in zigzag.
    let at = out.len() - 2;
    let is_compact = ticket.context()[1] == 2;
    (text(reply.metadata.method), reply.id, if is_compact { out[at] / 2 } else { out[at] })
}

#[test]
fn frames_above_the_limit_are_known_from_their_head() {
    let limits = Limits { max_frame: 100, max_header_bytes: 60, ..Limits::default() };
    let headers = b"\x01\x01\x03env\x04gray";
    let theader = |infos: &[u8], message: &[u8]| around([0x0f, 0xff], 9, infos, message);
    for (kind, wanted) in [(1, FrameKind::Request), (4, FrameKind::OneWay)] {
        let noise: Vec<u8> = (0..200u32).map(|n| (n * n * 31 % 251) as u8).collect();
        let long = [&strict(kind)[..], &noise].concat();
        let frames = [
            framed(&strict(kind)),
            framed(&compact(kind)),
            theader(&[&[0, 0], &headers[..]].concat(), &strict(kind)),
            theader(&[&[2, 0], &headers[..]].concat(), &compact(kind)),
            theader(&[&[0, 1, 1], &headers[..]].concat(), &zlib(&long)),
            around([0x10, 0], 9, b"\0\0\x01\0\x01\0\x03env\0\x04gray", &framed(&strict(kind))),
            around([0x10, 0], 9, b"\x02\0", &compact(kind)),
        ];
        for (index, frame) in frames.iter().enumerate() {
            let (ticket, length, error) = refused(&codec(&[]), &limits, frame).unwrap();
            assert_eq!((ticket.kind, ticket.id, length), (wanted, 7, frame.len() as u64), "{index}");
            assert_eq!(error, DecodeErrorKind::TooLarge);
            if kind == 1 {
                let answer = answer(&codec(&[]), &ticket, FailureKind::TooLarge);
                assert_eq!(answer, ("fire".to_owned(), 7, 7), "{index}");
            }
        }
    }
}

#[test]
fn captured_frames_above_the_limit_are_rejected_with_their_extent() {
    for (name, (client, _)) in captures() {
        let codec = codec(&[]);
        let frame = &decode_in_pieces(&codec, Peer::Client, &Limits::default(), client, &[]).bytes[1];
        let limits = Limits { max_frame: frame.len() - 1, ..Limits::default() };
        let (ticket, length, _) = refused(&codec, &limits, frame).unwrap();
        let unframed = name.starts_with("unframed");
        assert_eq!(length, if unframed { Rejected::NO_END } else { frame.len() as u64 }, "{name}");
        assert_eq!(answer(&codec, &ticket, FailureKind::TooLarge).0, "place", "{name}");
    }
}

#[test]
fn an_unframed_message_that_is_too_much_is_answered() {
    let deep = [&strict(1)[..16], &[12, 0, 1].repeat(100)].concat();
    let many = [&strict(1)[..16], &[2, 0, 1, 1].repeat(100)].concat();
    let limits = Limits { max_frame: 150, max_elements: 20, ..Limits::default() };
    for message in [strict(1), compact(1), deep, many] {
        let (ticket, length, _) = refused(&codec(&[]), &limits, &message).unwrap();
        assert_eq!((ticket.kind, ticket.id, length), (FrameKind::Request, 7, Rejected::NO_END));
        assert_eq!(answer(&codec(&[]), &ticket, FailureKind::TooLarge).0, "fire");
    }
}

#[test]
fn what_is_wrong_is_said_in_the_type() {
    let default = Limits::default();
    let malformed = |codec: &Thrift, frame: &[u8]| {
        let (ticket, ..) = refused(codec, &default, frame).unwrap();
        assert_eq!(ticket.kind, FrameKind::Request);
        answer(codec, &ticket, FailureKind::Malformed)
    };
    let fire = |exception| ("fire".to_owned(), 7, exception);
    let nameless = |id, exception| (String::new(), id, exception);
    // No such type of message; another protocol than configured.
    for frame in [framed(&strict(6)), strict(6), framed(&compact(6)), around([0x0f, 0xff], 9, &[0, 0], &strict(6))] {
        let auto = codec(&[]);
        assert_eq!(malformed(&auto, &frame), fire(2));
    }
    for (only, frame) in [
        ("compact", framed(&strict(1))),
        ("binary", framed(&compact(1))),
        ("binary", compact(1)),
        ("compact", around([0x0f, 0xff], 9, &[0, 0], &strict(1))),
        ("compact", around([0x10, 0], 9, &[0, 0], &framed(&strict(1)))),
        // The frame says the one and has the other.
        ("auto", around([0x10, 0], 9, &[2, 0], &framed(&strict(1)))),
        ("auto", around([0x0f, 0xff], 9, &[2, 0], &strict(1))),
    ] {
        assert_eq!(malformed(&codec(&[("protocol", only)]), &frame), fire(9), "{only}");
    }
    // Unknown protocol, unknown transform: the message cannot be read, but the frame has a number.
    for (magic, infos, exception) in
        [([0x0f, 0xff], [1, 0], 9), ([0x0f, 0xff], [0, 1], 8), ([0x10, 0], [4, 0], 9), ([0x10, 0], [0, 1], 8)]
    {
        let infos = [&infos[..], &[9, 0]].concat();
        assert_eq!(malformed(&codec(&[]), &around(magic, 9, &infos, &strict(1))), nameless(9, exception));
    }
    // A name above the limit is not repeated.
    let long = Limits { max_header_bytes: 3, ..default };
    for frame in [framed(&strict(1)), framed(&compact(1)), strict(1)] {
        let (ticket, ..) = refused(&codec(&[]), &long, &frame).unwrap();
        assert_eq!(answer(&codec(&[]), &ticket, FailureKind::TooLarge), nameless(7, 7));
    }
}

#[test]
fn what_says_no_number_is_not_answered() {
    for frame in [framed(b"\x80\x01\0\x01\0\0\0\x04fi"), framed(b"\x80\x01\0\x06"), framed(b"\x82\x21")] {
        assert_eq!(refused(&codec(&[("transport", "framed")]), &Limits::default(), &frame), None);
    }
}

#[test]
fn what_will_never_say_a_number_is_not_waited_for() {
    for nonsense in [&b"\x80\x01\0\x01\x7f\xff\xff\xff"[..], b"\x7f\xff\xff\xf0\x80\x01\0\x01\x7f\xff\xff\xff"] {
        let seen = decode_in_pieces(&codec(&[]), Peer::Client, &Limits::default(), nonsense, &[]);
        assert!(seen.error.is_some(), "{seen:?}");
    }
}

#[test]
fn headers_that_are_no_headers_leave_the_message_readable() {
    let frame = around([0x0f, 0xff], 9, b"\0\0\x01\x05\x03env", &strict(4));
    let (ticket, length, error) = refused(&codec(&[]), &Limits::default(), &frame).unwrap();
    assert_eq!((ticket.kind, ticket.id, length), (FrameKind::OneWay, 7, frame.len() as u64));
    assert_eq!(error, DecodeErrorKind::Malformed);
}

#[test]
fn the_id_is_the_number_of_the_message() {
    for frame in [
        around([0x0f, 0xff], 9, &[0, 0], &strict(1)),
        around([0x10, 0], 9, &[0, 0], &framed(&strict(1))),
        around([0x0f, 0xff], 9, &[0, 1, 1], &zlib(&strict(1))),
    ] {
        let codec = codec(&[]);
        let mut connection = codec.connect(Peer::Client, &Limits::default());
        let Ok(Decoded::Frame(call)) = connection.decode(&frame, &NothingInFlight) else { panic!("no frame") };
        assert_eq!(call.id, 7);
        let ticket = call.ticket();
        assert_eq!(answer(&codec, &ticket, FailureKind::Timeout), ("fire".to_owned(), 7, 6));
    }
}
