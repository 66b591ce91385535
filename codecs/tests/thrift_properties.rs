//! Any bytes, any cutting: the codec never panics and never changes its mind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use meltemi::{Codec, Decoded, Limits, Mutation, NothingInFlight, Options, Peer, testing::decode_in_pieces};
use meltemi_codecs::thrift::Thrift;
use proptest::{collection::vec, prelude::*, sample::Index};

const STREAMS: [&[u8]; 11] = [
    include_bytes!("../corpus/thrift/framed-binary.client.bin"),
    include_bytes!("../corpus/thrift/framed-binary-old.server.bin"),
    include_bytes!("../corpus/thrift/framed-compact.client.bin"),
    include_bytes!("../corpus/thrift/header-binary-zlib.client.bin"),
    include_bytes!("../corpus/thrift/header-compact.client.bin"),
    include_bytes!("../corpus/thrift/ttheader-binary.client.bin"),
    include_bytes!("../corpus/thrift/ttheader-binary-bare.server.bin"),
    include_bytes!("../corpus/thrift/ttheader-compact.client.bin"),
    include_bytes!("../corpus/thrift/unframed-binary.client.bin"),
    include_bytes!("../corpus/thrift/unframed-compact.server.bin"),
    include_bytes!("../corpus/thrift/framed-binary-multiplexed.client.bin"),
];

fn codec() -> Thrift {
    Thrift::new(&Options::default()).unwrap()
}

fn mutation() -> impl Strategy<Value = Mutation> {
    vec(("[a-z]{1,8}", proptest::option::of("[ -~]{0,200}")), 0..6).prop_map(|changes| {
        let mut mutation = Mutation::new();
        let changes: std::collections::BTreeMap<_, _> = changes.into_iter().collect();
        for (name, value) in &changes {
            match value {
                Some(value) => mutation.set(name.as_bytes(), value.as_bytes()),
                None => mutation.remove(name.as_bytes()),
            }
        }
        mutation
    })
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_frames(stream in 0..STREAMS.len(), pieces in vec(1usize..60, 1..20)) {
        let whole = decode_in_pieces(&codec(), Peer::Client, &Limits::default(), STREAMS[stream], &[]);
        let cut = decode_in_pieces(&codec(), Peer::Client, &Limits::default(), STREAMS[stream], &pieces);
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn broken_frames_are_told_the_same_in_any_pieces(
        stream in 0..STREAMS.len(),
        breaks in vec((any::<Index>(), any::<u8>()), 1..8),
        pieces in vec(1usize..60, 1..20),
    ) {
        let mut stream = STREAMS[stream].to_vec();
        for (at, byte) in breaks {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let limits = Limits { max_frame: 4096, max_elements: 500, ..Limits::default() };
        let whole = decode_in_pieces(&codec(), Peer::Client, &limits, &stream, &[]);
        let cut = decode_in_pieces(&codec(), Peer::Client, &limits, &stream, &pieces);
        prop_assert_eq!(whole.frames, cut.frames);
        prop_assert_eq!(whole.error, cut.error);
    }

    #[test]
    fn what_was_rewritten_decodes_with_the_change(
        stream in 3usize..8,
        nth in any::<Index>(),
        mutation in mutation(),
        id in any::<u32>(),
    ) {
        let frames = decode_in_pieces(&codec(), Peer::Client, &Limits::default(), STREAMS[stream], &[]).bytes;
        let frame = &frames[nth.index(frames.len())];
        let mut connection = codec().connect(Peer::Client, &Limits::default());
        let mut out = Vec::new();
        // The first of them is compressed: its number is 0 and stays.
        let id = if stream == 3 { 0 } else { u64::from(id) };
        connection.rewrite(frame, &mutation, Some(id), &mut out).unwrap();
        let Ok(Decoded::Frame(found)) = connection.decode(&out, &NothingInFlight) else { panic!("{out:02x?}") };
        prop_assert_eq!((found.id, found.bytes.len()), (id, out.len()));
        for change in mutation.iter() {
            let expected = match change {
                meltemi::Change::Set(_, value) => Some(value),
                meltemi::Change::Remove(_) => None,
            };
            prop_assert_eq!(found.metadata.header(change.name()), expected);
        }
    }

    #[test]
    fn any_bytes_can_be_rewritten_or_refused(bytes in vec(any::<u8>(), 0..200), mutation in mutation()) {
        let mut connection = codec().connect(Peer::Client, &Limits::default());
        let mut out = Vec::new();
        if connection.rewrite(&bytes, &mutation, Some(1), &mut out).is_err() {
            prop_assert!(out.is_empty());
        }
    }
}
