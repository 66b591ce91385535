//! A frame that decodes can be given another id and decodes again; so does its error reply.

#![no_main]

use libfuzzer_sys::fuzz_target;
use meltemi::{
    Codec, Decoded, EncodeError, Failure, FailureKind, FrameKind, Limits, Mutation, NothingInFlight, Options, Peer,
};
use meltemi_codecs::thrift::Thrift;

fuzz_target!(|bytes: &[u8]| {
    let codec = Thrift::new(&Options::default()).expect("the defaults");
    let mut connection = codec.connect(Peer::Client, &Limits::default());
    let Ok(Decoded::Frame(frame)) = connection.decode(bytes, &NothingInFlight) else { return };
    // Names are text. One that begins as a message does is taken for one in a frame, by us who look at each message: in a
    // reply without a frame, which names the method alone, it comes first.
    let is_text = !matches!(frame.metadata.method.first(), Some(0x80 | 0x82));
    let (ticket, frame) = (frame.ticket(), frame.bytes.to_vec());

    let mut out = Vec::new();
    match connection.rewrite(&frame, &Mutation::new(), Some(7), &mut out) {
        Ok(()) => {
            let decoded = connection.decode(&out, &NothingInFlight);
            let Ok(Decoded::Frame(again)) = decoded else { panic!("{decoded:?}") };
            assert_eq!((again.id, again.bytes.len()), (7, out.len()));
        }
        // A compressed message keeps its number.
        Err(error) => {
            assert!(matches!(error, EncodeError::Unsupported(_)) && frame[4..6] == [0x0f, 0xff], "{error}");
            assert!(out.is_empty());
        }
    }

    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    out.clear();
    if connection.rewrite(&frame, &mutation, None, &mut out).is_ok() {
        // Above the limits with one header more is the only way not to be taken again.
        match connection.decode(&out, &NothingInFlight) {
            Ok(Decoded::Frame(again)) => {
                // Thrift's names have case: `Env` beside `env` is another header.
                let mut found = false;
                again.metadata.for_each_header(|name, value| found |= (name, value) == (b"env", b"blue"));
                assert!(found, "the header that was set");
            }
            Ok(Decoded::Rejected(_)) => {}
            other => panic!("{other:?}"),
        }
    }

    if ticket.kind == FrameKind::Request && is_text {
        out.clear();
        let failure = Failure { kind: FailureKind::Timeout, message: "too late" };
        connection.error_reply(&ticket, &failure, &mut out).expect("an error reply");
        // On the same connection, as its client knows which transport it speaks.
        let decoded = connection.decode(&out, &NothingInFlight).expect("a client can read it");
        let Decoded::Frame(reply) = decoded else { panic!("{decoded:?}") };
        assert_eq!((reply.id, reply.bytes.len()), (ticket.id, out.len()));
    }
});
