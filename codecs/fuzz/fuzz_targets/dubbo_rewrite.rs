//! A frame that decodes can be given another id, and another attachment if it has a place for it, and decodes again;
//! so does its error reply.

#![no_main]

use libfuzzer_sys::fuzz_target;
use meltemi::{Codec, Decoded, Failure, FailureKind, FrameKind, Limits, Mutation, NothingInFlight, Options, Peer};
use meltemi_codecs::dubbo::Dubbo;

fuzz_target!(|bytes: &[u8]| {
    let codec = Dubbo::new(&Options::default()).expect("the defaults");
    let mut connection = codec.connect(Peer::Client, &Limits::default());
    let Ok(Decoded::Frame(frame)) = connection.decode(bytes, &NothingInFlight) else { return };
    let (ticket, kind, frame) = (frame.ticket(), frame.kind, frame.bytes.to_vec());

    let mut out = Vec::new();
    connection.rewrite(&frame, &Mutation::new(), Some(7), &mut out).expect("a frame that decodes");
    let decoded = connection.decode(&out, &NothingInFlight);
    let Ok(Decoded::Frame(again)) = decoded else { panic!("{decoded:?}") };
    assert_eq!((again.id, again.kind, again.bytes.len()), (7, kind, out.len()));

    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    out.clear();
    if connection.rewrite(&frame, &mutation, None, &mut out).is_ok() {
        // Above the limits with one header more is the only way not to be taken again.
        match connection.decode(&out, &NothingInFlight) {
            Ok(Decoded::Frame(again)) => {
                let mut found = false;
                again.metadata.for_each_header(|name, value| found |= (name, value) == (b"env", b"blue"));
                assert!(found, "the attachment that was set");
            }
            Ok(Decoded::Rejected(_)) => {}
            other => panic!("{other:?}"),
        }
    } else {
        assert!(out.is_empty());
    }

    if ticket.kind == FrameKind::Request {
        out.clear();
        let failure = Failure { kind: FailureKind::Timeout, message: "too late" };
        connection.error_reply(&ticket, &failure, &mut out).expect("an error reply");
        let mut server = codec.connect(Peer::Server, &Limits::default());
        let decoded = server.decode(&out, &NothingInFlight);
        let Ok(Decoded::Frame(reply)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((reply.id, reply.bytes.len()), (ticket.id, out.len()));
    }
});
