//! Steady state: a frame that passes through is decoded without one heap allocation.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use allocation_counter::measure;
use meltemi::{Connection, Decoded, Limits, NothingInFlight, Options, Peer};
use meltemi_codecs::thrift::ENTRY;

macro_rules! captures {
    ($($name:literal)*) => {
        [$(
            ($name, Peer::Client, include_bytes!(concat!("../corpus/thrift/", $name, ".client.bin")).as_slice()),
            ($name, Peer::Server, include_bytes!(concat!("../corpus/thrift/", $name, ".server.bin")).as_slice()),
        )*]
    };
}

/// Decodes a stream as it would come in pieces of `piece` bytes; gives the number of frames, and of header bytes seen.
fn pass(connection: &mut dyn Connection, stream: &[u8], piece: usize) -> (usize, usize) {
    let (mut start, mut end, mut frames, mut headers) = (0, piece.min(stream.len()), 0, 0);
    while start < stream.len() {
        match connection.decode(&stream[start..end], &NothingInFlight) {
            Ok(Decoded::Frame(frame)) => {
                frame.metadata.for_each_header(|name, value| headers += name.len() + value.len());
                // What the engine keeps of a request must not allocate either.
                assert_eq!(frame.ticket().id, frame.id);
                start += frame.bytes.len();
                frames += 1;
            }
            Ok(Decoded::Incomplete { .. }) if end < stream.len() => end = (end + piece).min(stream.len()),
            other => panic!("{other:?}"),
        }
    }
    (frames, headers)
}

#[test]
fn decoding_allocates_nothing() {
    let captures = captures! {
        "framed-binary" "framed-binary-multiplexed" "framed-binary-old" "framed-compact"
        "header-binary-zlib" "header-compact" "ttheader-binary" "ttheader-binary-bare" "ttheader-compact"
        "unframed-binary" "unframed-compact"
    };
    let codec = (ENTRY.build)(&Options::default()).unwrap();
    for (name, peer, stream) in captures {
        for piece in [stream.len(), 1] {
            let mut connection = codec.connect(peer, &Limits::default());
            let warm = pass(connection.as_mut(), stream, piece);
            assert!(warm.0 >= 4, "{name}: {warm:?}");
            let mut again = (0, 0);
            let counted = measure(|| again = pass(connection.as_mut(), stream, piece));
            assert_eq!(again, warm);
            assert_eq!(counted.count_total, 0, "{name} {peer:?} in pieces of {piece}");
        }
    }
}

#[test]
fn long_names_allocate_nothing_either() {
    let codec = (ENTRY.build)(&Options::default()).unwrap();
    let name = [b'm'; 116];
    let message = [&[0x80, 1, 0, 1, 0, 0, 0, name.len() as u8][..], &name, &[0, 0, 0, 7, 0]].concat();
    let mut connection = codec.connect(Peer::Client, &Limits::default());
    pass(connection.as_mut(), &message, usize::MAX);
    assert_eq!(
        measure(|| {
            pass(connection.as_mut(), &message, usize::MAX);
        })
        .count_total,
        0
    );
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
}
