//! Any bytes, any cutting, any change: the codec never panics, never changes its mind, and does what it was told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use meltemi::{Codec, Decoded, FrameKind, Limits, Mutation, NothingInFlight, Options, Peer, testing::decode_in_pieces};
use meltemi_codecs::dubbo::Dubbo;
use proptest::{collection::vec, prelude::*, sample::Index};

const STREAMS: [(Peer, &[u8]); 6] = [
    (Peer::Client, include_bytes!("../corpus/dubbo/hessian2.client.bin")),
    (Peer::Server, include_bytes!("../corpus/dubbo/hessian2.server.bin")),
    (Peer::Client, include_bytes!("../corpus/dubbo/fastjson2.client.bin")),
    (Peer::Server, include_bytes!("../corpus/dubbo/fastjson2.server.bin")),
    (Peer::Client, include_bytes!("../corpus/dubbo/burst-stop.client.bin")),
    (Peer::Server, include_bytes!("../corpus/dubbo/burst-stop.server.bin")),
];

/// Attachments that change: values, or nothing to take them out.
type Changes = BTreeMap<String, Option<String>>;

fn codec() -> Dubbo {
    Dubbo::new(&Options::default()).unwrap()
}

fn changes() -> impl Strategy<Value = Changes> {
    let name =
        prop_oneof![Just("env".to_owned()), Just("batchId".to_owned()), Just("timeout".to_owned()), "[a-zA-Z.]{1,9}"];
    prop::collection::btree_map(name, prop::option::of("[ -~]{0,100}|[à-ö漢]{0,40}|[a-z]{1000,1100}"), 0..6)
}

fn mutation(changes: &Changes) -> Mutation {
    let mut mutation = Mutation::new();
    for (name, value) in changes {
        match value {
            Some(value) => mutation.set(name.as_bytes(), value.as_bytes()),
            None => mutation.remove(name.as_bytes()),
        }
    }
    mutation
}

/// Kind, id and attachments of one whole frame.
fn look(peer: Peer, bytes: &[u8]) -> Option<(FrameKind, u64, BTreeMap<String, String>)> {
    let mut connection = codec().connect(peer, &Limits::default());
    let Ok(Decoded::Frame(frame)) = connection.decode(bytes, &NothingInFlight) else { return None };
    let mut headers = BTreeMap::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    frame.metadata.for_each_header(|name, value| {
        headers.insert(text(name), text(value));
    });
    Some((frame.kind, frame.id, headers))
}

proptest! {
    #[test]
    fn any_cutting_gives_the_same_frames(stream in 0..STREAMS.len(), pieces in vec(1usize..200, 1..20)) {
        let (peer, stream) = STREAMS[stream];
        let whole = decode_in_pieces(&codec(), peer, &Limits::default(), stream, &[]);
        let cut = decode_in_pieces(&codec(), peer, &Limits::default(), stream, &pieces);
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn broken_frames_are_told_the_same_in_any_pieces(
        stream in 0..STREAMS.len(),
        breaks in vec((any::<Index>(), any::<u8>()), 1..8),
        pieces in vec(1usize..200, 1..20),
    ) {
        let (peer, stream) = STREAMS[stream];
        let mut stream = stream.to_vec();
        for (at, byte) in breaks {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let limits = Limits { max_frame: 6000, max_elements: 500, ..Limits::default() };
        let whole = decode_in_pieces(&codec(), peer, &limits, &stream, &[]);
        let cut = decode_in_pieces(&codec(), peer, &limits, &stream, &pieces);
        prop_assert_eq!(whole.frames, cut.frames);
        prop_assert_eq!(whole.error, cut.error);
    }

    #[test]
    fn broken_frames_are_rewritten_or_refused(
        stream in 0..STREAMS.len(),
        frame in any::<Index>(),
        breaks in vec((any::<Index>(), any::<u8>()), 0..4),
        changes in changes(),
    ) {
        let (peer, stream) = STREAMS[stream];
        let mut frames = decode_in_pieces(&codec(), peer, &Limits::default(), stream, &[]).bytes;
        let mut frame = frames.swap_remove(frame.index(frames.len()));
        for (at, byte) in breaks {
            // The header stays: its length says that the frame is whole.
            let at = 16 + at.index(frame.len() - 16);
            frame[at] = byte;
        }
        let mut out = Vec::new();
        let mut connection = codec().connect(peer, &Limits::default());
        match connection.rewrite(&frame, &mutation(&changes), Some(7), &mut out) {
            Ok(()) => prop_assert_eq!(out.len(), 16 + u32::from_be_bytes(out[12..16].try_into().unwrap()) as usize),
            Err(_) => prop_assert!(out.is_empty()),
        }
    }

    #[test]
    fn changed_attachments_are_as_told_and_others_as_before(
        stream in 0..STREAMS.len(),
        frame in any::<Index>(),
        changes in changes(),
        id in any::<u64>(),
    ) {
        let (peer, stream) = STREAMS[stream];
        let frames = decode_in_pieces(&codec(), peer, &Limits::default(), stream, &[]).bytes;
        let frame = frame.get(&frames);
        let mut out = Vec::new();
        let mut connection = codec().connect(peer, &Limits::default());
        let rewritten = connection.rewrite(frame, &mutation(&changes), Some(id), &mut out);
        let (kind, _, mut wanted) = look(peer, frame).unwrap();
        let has_attachments = matches!(kind, FrameKind::Request | FrameKind::OneWay | FrameKind::Response(_));
        prop_assert_eq!(rewritten.is_ok(), has_attachments || changes.is_empty());
        if rewritten.is_ok() {
            for (name, value) in changes {
                match value {
                    Some(value) => wanted.insert(name, value),
                    None => wanted.remove(&name),
                };
            }
            prop_assert_eq!(look(peer, &out), Some((kind, id, wanted)));
        }
    }

    #[test]
    fn any_bytes_behind_a_header(flags in any::<u8>(), status in any::<u8>(), body in vec(any::<u8>(), 0..300)) {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let frame = [&[0xda, 0xbb, flags, status, 0, 0, 0, 0, 0, 0, 0, 1][..], &length, &body].concat();
        for peer in [Peer::Client, Peer::Server] {
            let seen = decode_in_pieces(&codec(), peer, &Limits::default(), &frame, &[]);
            prop_assert_eq!((seen.frames.len(), seen.rest, seen.error), (1, 0, None), "its extent is known");
        }
    }
}
