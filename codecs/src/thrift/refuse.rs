//! Frames that are not taken: who sent what is found out as far as it takes to answer them.

use flate2::FlushDecompress;
use meltemi::{DecodeError, Decoded, Limits, Rejected};

use super::{
    connection::{INFLATED, ThriftConnection},
    detect::Transport,
    message::{Message, NoMessage},
    reply::{self, Around},
    theader, ttheader,
};

/// Bytes of a message's head but for its name, at most.
const HEAD: usize = 32;
/// Where the infos of a header frame start.
const INFOS: usize = 14;
/// Bytes of a compressed message that are waited for to find its head.
const COMPRESSED: usize = 2048;

impl ThriftConnection {
    /// Refuses a frame of `length` bytes with a frame length, of which `there` is here: the `whole` of it or its start.
    pub(super) fn refuse_frame<'a>(
        &'a mut self,
        transport: Transport,
        there: &'a [u8],
        whole: bool,
        length: u64,
        error: DecodeError,
    ) -> Result<Decoded<'a>, NoMessage> {
        let left = length.saturating_sub(there.len() as u64);
        self.refuse_known(transport, there, whole, length, error).map_err(|error| match error {
            // What is behind the frame tells nothing about it.
            NoMessage::Short(needed) => NoMessage::Short(needed.min(usize::try_from(left).unwrap_or(usize::MAX))),
            bad @ NoMessage::Bad(_) => bad,
        })
    }

    fn refuse_known<'a>(
        &'a mut self,
        transport: Transport,
        there: &'a [u8],
        whole: bool,
        length: u64,
        error: DecodeError,
    ) -> Result<Decoded<'a>, NoMessage> {
        let mut around = Around::plain(transport);
        if !matches!(transport, Transport::Header | Transport::TtHeader) {
            return self.refuse(around, there.get(4..).unwrap_or_default(), whole, length, error);
        }
        let words = there.get(12..INFOS).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_be_bytes);
        let infos_end = INFOS.saturating_add(usize::from(words).saturating_mul(4));
        // And a frame length of the message's own.
        let needed = if transport == Transport::TtHeader { infos_end.saturating_add(4) } else { infos_end };
        if !whole && there.len() < needed {
            return Err(NoMessage::Short(needed.saturating_sub(there.len())));
        }
        around.outer = there.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        let opened = match transport {
            Transport::Header => theader::Head::open(there).map(|head| (head.message, head.zlib)),
            _ => ttheader::Head::open(there).map(|head| {
                let (message, inner_frame) = ttheader::message_at(there, head.message, length);
                around.inner_frame = inner_frame;
                (message, false)
            }),
        };
        match opened {
            Ok((message, false)) => self.refuse(around, there.get(message..).unwrap_or_default(), whole, length, error),
            Ok((message, true)) => {
                let whole = self.inflate_head(there.get(message..).unwrap_or_default(), whole)?;
                let Self { inflated, context, limits, .. } = self;
                refuse(around, inflated, whole, length, error, limits, context)
            }
            // What is wrong with the head says more than that the frame is too large.
            Err(of_head) => self.refuse(around, b"", true, length, of_head),
        }
    }

    /// Refuses a frame with this message, the `whole` of it or its start.
    pub(super) fn refuse<'a>(
        &'a mut self,
        around: Around,
        message: &'a [u8],
        whole: bool,
        length: u64,
        error: DecodeError,
    ) -> Result<Decoded<'a>, NoMessage> {
        refuse(around, message, whole, length, error, &self.limits, &mut self.context)
    }

    /// Decompresses until the head of a message is there; whether there is no use in waiting for more. Byte by byte: the
    /// result must not depend on how many there are.
    fn inflate_head(&mut self, compressed: &[u8], whole: bool) -> Result<bool, NoMessage> {
        // Makes it ready, and may fail at something behind the head.
        let _ = self.look_into(b"");
        let Some(inflate) = &mut self.inflate else { return Ok(true) };
        for byte in compressed.iter().take(COMPRESSED) {
            let done = inflate.decompress_vec(&[*byte], &mut self.inflated, FlushDecompress::Sync).is_err();
            let (_, missing) = Message::sketch(&self.inflated, INFLATED);
            if done || missing.is_none() || self.inflated.len() >= INFLATED {
                return Ok(true);
            }
        }
        if whole || compressed.len() >= COMPRESSED { Ok(true) } else { Err(NoMessage::Short(1)) }
    }
}

fn refuse<'a>(
    mut around: Around,
    message: &[u8],
    whole: bool,
    length: u64,
    error: DecodeError,
    limits: &Limits,
    context: &'a mut Vec<u8>,
) -> Result<Decoded<'a>, NoMessage> {
    let enough = limits.max_header_bytes.saturating_add(HEAD);
    let looked_at = message.get(..enough).unwrap_or(message);
    let (mut head, missing) = Message::sketch(looked_at, limits.max_header_bytes);
    match missing {
        Some(needed) if !whole && looked_at.len().saturating_add(needed) <= enough => {
            return Err(NoMessage::Short(needed));
        }
        _ => {}
    }
    if head.sequence_at.1 == 0 {
        // It cannot be answered, unless the frame around it has a number.
        if !matches!(around.transport, Transport::Header | Transport::TtHeader) {
            return Err(NoMessage::Bad(error));
        }
        head.sequence = around.outer;
    }
    around.exception = reply::exception_of(&error);
    reply::put_context(&around, &head, context);
    Ok(Decoded::Rejected(Rejected { kind: head.frame_kind(b""), id: u64::from(head.sequence), context, length, error }))
}
