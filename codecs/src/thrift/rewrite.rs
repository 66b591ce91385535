//! Frames written anew, with other headers or another sequence number.

use meltemi::{EncodeError, Mutation, wire::put_varint};

use super::{
    connection::{INFLATED, ThriftConnection},
    detect::Transport,
    infos::close_frame,
    message::{Form, Message},
    theader, ttheader,
};

const MALFORMED: EncodeError = EncodeError::Malformed("message");

impl ThriftConnection {
    /// Appends a frame with its changes; on `Err` perhaps a part of it.
    pub(super) fn write_changed(
        &mut self,
        frame: &[u8],
        mutation: &Mutation,
        id: Option<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let malformed = |_| EncodeError::Malformed("head of the frame");
        let transport = self.transport(frame).map_err(|_| EncodeError::Malformed("transport"))?;
        let start = out.len();
        let id = id.map(|id| id as u32);
        match transport {
            Transport::Header => {
                let head = theader::Head::read(frame, &self.limits).map_err(malformed)?;
                match mutation.is_empty() {
                    true => out.extend_from_slice(frame.get(..head.message).ok_or(MALFORMED)?),
                    false => theader::rewrite(frame, &head, mutation, out)?,
                }
                let message = frame.get(head.message..).ok_or(MALFORMED)?;
                if head.zlib {
                    self.check_compressed(message, id)?;
                    out.extend_from_slice(message);
                } else {
                    self.put_message(message, id, out)?;
                }
                put_outer(id, start, out);
            }
            Transport::TtHeader => {
                let head = ttheader::Head::read(frame, &self.limits).map_err(malformed)?;
                match mutation.is_empty() {
                    true => out.extend_from_slice(frame.get(..head.message).ok_or(MALFORMED)?),
                    false => ttheader::rewrite(frame, &head, mutation, out)?,
                }
                let (message, inner_frame) = ttheader::message_at(frame, head.message, frame.len() as u64);
                let inner = out.len();
                if inner_frame {
                    out.extend_from_slice(&[0; 4]);
                }
                self.put_message(frame.get(message..).ok_or(MALFORMED)?, id, out)?;
                if inner_frame {
                    close_frame(out, inner)?;
                }
                put_outer(id, start, out);
            }
            Transport::Framed | Transport::Unframed if !mutation.is_empty() => {
                return Err(EncodeError::Unsupported("framed and unframed Thrift have no headers"));
            }
            Transport::Framed => {
                out.extend_from_slice(&[0; 4]);
                self.put_message(frame.get(4..).unwrap_or_default(), id, out)?;
            }
            Transport::Unframed => self.put_message(frame, id, out)?,
        }
        if transport != Transport::Unframed {
            close_frame(out, start)?;
        }
        if out.len().saturating_sub(start) > self.limits.max_frame {
            return Err(EncodeError::TooLarge("the frame with its changes"));
        }
        Ok(())
    }

    /// Copies a message, with another sequence number if one is given.
    fn put_message(&self, message: &[u8], id: Option<u32>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let Some(id) = id else {
            out.extend_from_slice(message);
            return Ok(());
        };
        let head = Message::read(message, None, self.limits.max_header_bytes).map_err(|_| MALFORMED)?;
        let (at, length) = head.sequence_at;
        let (before, rest) = message.split_at_checked(at).ok_or(MALFORMED)?;
        out.extend_from_slice(before);
        match head.form {
            Form::Compact => put_varint(out, u64::from(id)),
            Form::Strict | Form::Old => out.extend_from_slice(&id.to_be_bytes()),
        }
        out.extend_from_slice(rest.get(length..).ok_or(MALFORMED)?);
        Ok(())
    }

    /// A compressed message cannot get another number.
    fn check_compressed(&mut self, message: &[u8], id: Option<u32>) -> Result<(), EncodeError> {
        let Some(id) = id else { return Ok(()) };
        self.look_into(message).map_err(|_| MALFORMED)?;
        let head = Message::read(&self.inflated, None, INFLATED).map_err(|_| MALFORMED)?;
        if head.sequence == id {
            return Ok(());
        }
        Err(EncodeError::Unsupported("the sequence number of a compressed message cannot be changed"))
    }
}

/// Writes the sequence number of a header frame: the same as the message's, as servers do.
fn put_outer(id: Option<u32>, start: usize, out: &mut [u8]) {
    if let (Some(id), Some(at)) = (id, out.get_mut(start.saturating_add(8)..start.saturating_add(12))) {
        at.copy_from_slice(&id.to_be_bytes());
    }
}
