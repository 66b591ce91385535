//! What fuzzing starts from and what it found: decodes the same in any pieces, and nothing panics.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{fs, path::Path};

use meltemi::{Limits, Mutation, NothingInFlight, Options, Peer, testing::decode_in_pieces};

#[test]
fn seeds_decode_the_same_in_any_pieces() {
    let mut mutation = Mutation::new();
    mutation.set(b"env", b"blue");
    for entry in meltemi_codecs::ALL {
        let codec = (entry.build)(&Options::default()).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(entry.name).join("seeds");
        let mut seen = 0;
        for file in fs::read_dir(folder).unwrap() {
            let (path, limits) = (file.unwrap().path(), Limits::default());
            let bytes = fs::read(&path).unwrap();
            for peer in [Peer::Client, Peer::Server] {
                let whole = decode_in_pieces(codec.as_ref(), peer, &limits, &bytes, &[]);
                for piece in [1, 2, 7] {
                    let cut = decode_in_pieces(codec.as_ref(), peer, &limits, &bytes, &[piece]);
                    assert_eq!((&whole.frames, &whole.error), (&cut.frames, &cut.error), "{}", path.display());
                }
                let mut connection = codec.connect(peer, &limits);
                let _ = connection.decode(&bytes, &NothingInFlight);
                let mut out = Vec::new();
                if connection.rewrite(&bytes, &mutation, Some(7), &mut out).is_err() {
                    assert!(out.is_empty(), "{}", path.display());
                }
            }
            seen += 1;
        }
        assert!(seen > 3, "{} has no seeds", entry.name);
    }
}
