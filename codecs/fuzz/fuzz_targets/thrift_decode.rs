//! Any bytes, from a client or a server, whole or in pieces: the same frames and the same error.

#![no_main]

use libfuzzer_sys::fuzz_target;
use meltemi::{Limits, Options, Peer, testing::decode_in_pieces};
use meltemi_codecs::thrift::Thrift;

fuzz_target!(|bytes: &[u8]| {
    // The last byte, so that captures are what they are.
    let Some((&piece, stream)) = bytes.split_last() else { return };
    let codec = Thrift::new(&Options::default()).expect("the defaults");
    let limits = Limits { max_frame: 64 * 1024, max_elements: 10_000, ..Limits::default() };
    let peer = if piece & 1 == 0 { Peer::Client } else { Peer::Server };
    let whole = decode_in_pieces(&codec, peer, &limits, stream, &[]);
    let cut = decode_in_pieces(&codec, peer, &limits, stream, &[usize::from(piece)]);
    assert_eq!(whole.frames, cut.frames);
    assert_eq!(whole.error, cut.error);
});
