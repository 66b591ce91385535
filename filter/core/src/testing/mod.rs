//! Checks for codec authors: run them on every capture you have.

pub mod lines;

use crate::{Codec, Connection, Decoded, Limits, NothingInFlight, Peer};

/// What decoding a stream of bytes gave: one line a frame, and the error it ended with, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// Kind, id, metadata and length of each frame.
    pub frames: Vec<String>,
    /// The bytes of each frame.
    pub bytes: Vec<Vec<u8>>,
    /// The error that ended it.
    pub error: Option<String>,
    /// Bytes left over behind the last frame.
    pub rest: usize,
}

/// Decodes `stream` as it would come in pieces of the given sizes (the last one repeats; none: all at once).
///
/// # Panics
/// If the codec breaks its contract: consumes what is not there, asks for no bytes, or never gets on.
pub fn decode_in_pieces(codec: &dyn Codec, peer: Peer, limits: &Limits, stream: &[u8], pieces: &[usize]) -> Transcript {
    let mut connection = codec.connect(peer, limits);
    let mut transcript = Transcript { frames: Vec::new(), bytes: Vec::new(), error: None, rest: 0 };
    let (mut start, mut end, mut turn, mut wanted) = (0usize, 0usize, 0usize, 1usize);
    loop {
        if end.saturating_sub(start) >= wanted {
            match step(connection.as_mut(), stream.get(start..end).unwrap_or_default(), &mut transcript) {
                Step::Took(length) => {
                    start = start.saturating_add(length);
                    wanted = 1;
                    continue;
                }
                Step::Wants(needed) => wanted = end.saturating_sub(start).saturating_add(needed),
                Step::Failed => break,
            }
        }
        if end == stream.len() {
            break;
        }
        let piece = pieces.get(turn).or(pieces.last()).copied().unwrap_or(stream.len()).max(1);
        turn = turn.saturating_add(1);
        end = end.saturating_add(piece).min(stream.len());
    }
    transcript.rest = stream.len().saturating_sub(start);
    transcript
}

enum Step {
    Took(usize),
    Wants(usize),
    Failed,
}

fn step(connection: &mut dyn Connection, buf: &[u8], transcript: &mut Transcript) -> Step {
    match connection.decode(buf, &NothingInFlight) {
        Ok(Decoded::Incomplete { needed }) => {
            assert!(needed > 0, "a codec that needs more must say how much");
            Step::Wants(needed)
        }
        Ok(Decoded::Frame(frame)) => {
            assert!(!frame.bytes.is_empty() && frame.bytes.len() <= buf.len(), "a frame lies in its buffer");
            assert_eq!(frame.bytes, buf.get(..frame.bytes.len()).unwrap_or_default(), "a frame starts its buffer");
            let line = format!("{:?} id={} {:?} {} bytes", frame.kind, frame.id, frame.metadata, frame.bytes.len());
            transcript.frames.push(line);
            transcript.bytes.push(frame.bytes.to_vec());
            Step::Took(frame.bytes.len())
        }
        Ok(Decoded::Rejected(rejected)) => {
            assert!(rejected.length > 0, "a rejected frame has an extent");
            transcript.frames.push(format!("Rejected id={} {}", rejected.id, rejected.error));
            let there = usize::try_from(rejected.length).unwrap_or(usize::MAX).min(buf.len());
            transcript.bytes.push(buf.get(..there).unwrap_or_default().to_vec());
            if rejected.length > buf.len() as u64 { Step::Failed } else { Step::Took(there) }
        }
        Err(error) => {
            transcript.error = Some(error.to_string());
            Step::Failed
        }
    }
}

/// Checks that `stream` decodes to the same frames whole, byte by byte, and cut in two at every place; returns them.
///
/// # Panics
/// If it does not. Rejected frames that reach beyond the stream end it.
pub fn split_invariant(codec: &dyn Codec, peer: Peer, stream: &[u8]) -> Transcript {
    let limits = Limits::default();
    let whole = decode_in_pieces(codec, peer, &limits, stream, &[]);
    assert_eq!(whole.frames, decode_in_pieces(codec, peer, &limits, stream, &[1]).frames, "byte by byte");
    for cut in 1..stream.len() {
        let cut_in_two = decode_in_pieces(codec, peer, &limits, stream, &[cut, stream.len()]);
        assert_eq!(whole.frames, cut_in_two.frames, "cut at {cut}");
        assert_eq!(whole.error, cut_in_two.error, "cut at {cut}");
    }
    whole
}
