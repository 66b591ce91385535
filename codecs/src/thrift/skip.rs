//! Finding the end of a struct by walking it: what an unframed transport asks for.
//!
//! The walk can be interrupted anywhere and goes on where it was, so a struct that comes byte by byte is still walked
//! once. Nesting is counted, not recursed.

use meltemi::{DecodeError, Limits, wire::Reader};
use smallvec::SmallVec;

use super::message::{NoMessage, Protocol};

/// A walk over one struct at a time.
#[derive(Debug)]
pub(super) struct Walk {
    protocol: Protocol,
    position: usize,
    /// Bytes to pass over before the next token.
    skip: usize,
    elements: usize,
    stack: SmallVec<[Level; 8]>,
}

#[derive(Debug, Clone, Copy)]
enum Level {
    Struct,
    /// Values that follow each other; in maps keys and values take turns.
    Values {
        next: u8,
        other: u8,
        left: u64,
    },
}

/// What a value of some type looks like.
enum Shape {
    /// So many bytes.
    Fixed(usize),
    /// A varint.
    Varint,
    /// A length, then bytes.
    Text,
    Struct,
    List,
    Map,
}

impl Walk {
    /// A walk that has not begun.
    pub(super) const fn new() -> Self {
        Self { protocol: Protocol::Binary, position: 0, skip: 0, elements: 0, stack: SmallVec::new_const() }
    }

    /// Under way: begun, and not at the end of its struct.
    pub(super) fn is_under_way(&self) -> bool {
        !self.stack.is_empty()
    }

    /// Begins a walk over the struct at `position`; keeps the memory of the last one.
    pub(super) fn begin(&mut self, protocol: Protocol, position: usize) {
        self.stop();
        self.protocol = protocol;
        self.position = position;
        self.stack.push(Level::Struct);
    }

    /// Forgets a walk that is under way.
    pub(super) fn stop(&mut self) {
        self.skip = 0;
        self.elements = 0;
        self.stack.clear();
    }

    /// Goes on; `bytes` are the same as before, or more. Gives the end of the struct.
    pub(super) fn go_on(&mut self, bytes: &[u8], limits: &Limits) -> Result<usize, NoMessage> {
        loop {
            // Before any of it is passed over, so that the error is the same whatever pieces the bytes come in.
            if self.position.saturating_add(self.skip) > limits.max_frame {
                return Err(NoMessage::Bad(DecodeError::too_large("message", self.position)));
            }
            let left = bytes.len().saturating_sub(self.position);
            let skipped = self.skip.min(left);
            self.position = self.position.saturating_add(skipped);
            self.skip = self.skip.saturating_sub(skipped);
            if self.skip > 0 {
                return Err(NoMessage::Short(self.skip));
            }
            let Some(top) = self.stack.last().copied() else { return Ok(self.position) };
            if self.elements >= limits.max_elements {
                return Err(NoMessage::Bad(DecodeError::too_large("number of elements", self.position)));
            }
            let mut reader = Reader::at(bytes, self.position);
            match top {
                Level::Struct => match self.field(&mut reader)? {
                    None => {
                        self.stack.pop();
                    }
                    Some(kind) => self.value(kind, &mut reader, true, limits)?,
                },
                Level::Values { left: 0, .. } => {
                    self.stack.pop();
                }
                Level::Values { next, other, left } => {
                    let depth = self.stack.len();
                    self.value(next, &mut reader, false, limits)?;
                    if let Some(level) = self.stack.get_mut(depth.saturating_sub(1)) {
                        *level = Level::Values { next: other, other: next, left: left.saturating_sub(1) };
                    }
                }
            }
            self.position = reader.position();
            // Counted when done with: a token that was cut counts once.
            self.elements = self.elements.saturating_add(1);
        }
    }

    /// Reads a field's head; `None` at the end of the struct.
    fn field(&self, reader: &mut Reader<'_>) -> Result<Option<u8>, NoMessage> {
        let first = reader.u8()?;
        if first == 0 {
            return Ok(None);
        }
        match self.protocol {
            Protocol::Binary => reader.skip(2)?,
            Protocol::Compact if first >> 4 == 0 => self.varint(reader).map(|_| ())?,
            Protocol::Compact => {}
        }
        Ok(Some(if self.protocol == Protocol::Compact { first & 0x0f } else { first }))
    }

    /// Begins a value. Nothing is changed before all that is needed to begin it was there.
    fn value(&mut self, kind: u8, reader: &mut Reader<'_>, in_field: bool, limits: &Limits) -> Result<(), NoMessage> {
        match self.shape(kind, in_field)? {
            Shape::Fixed(length) => self.skip = length,
            Shape::Varint => {
                self.varint(reader)?;
            }
            Shape::Text => self.skip = self.length(reader, limits)?,
            Shape::Struct => self.push(Level::Struct, limits)?,
            Shape::List => {
                let (element, count) = self.list(reader)?;
                if count == 0 {
                    // The type of no element at all is anything.
                    return Ok(());
                }
                match self.shape(element, false)? {
                    Shape::Fixed(length) => {
                        let length = u64::try_from(length).unwrap_or(u64::MAX).saturating_mul(count);
                        self.skip = usize::try_from(length).unwrap_or(usize::MAX);
                    }
                    _ => self.push(Level::Values { next: element, other: element, left: count }, limits)?,
                }
            }
            Shape::Map => {
                let (key, value, count) = self.map(reader)?;
                self.push(Level::Values { next: key, other: value, left: count.saturating_mul(2) }, limits)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, level: Level, limits: &Limits) -> Result<(), NoMessage> {
        if self.stack.len() >= limits.max_depth {
            return Err(NoMessage::Bad(DecodeError::too_deep(self.position)));
        }
        self.stack.push(level);
        Ok(())
    }

    fn shape(&self, kind: u8, in_field: bool) -> Result<Shape, NoMessage> {
        Ok(match (self.protocol, kind) {
            (Protocol::Binary, 2 | 3) => Shape::Fixed(1),
            (Protocol::Binary, 4 | 10) => Shape::Fixed(8),
            (Protocol::Binary, 6) => Shape::Fixed(2),
            (Protocol::Binary, 8) => Shape::Fixed(4),
            (Protocol::Binary, 11) => Shape::Text,
            (Protocol::Binary, 12) => Shape::Struct,
            (Protocol::Binary, 13) => Shape::Map,
            (Protocol::Binary, 14 | 15) => Shape::List,
            (Protocol::Binary, 16) => Shape::Fixed(16),
            // A boolean field's value is in its type.
            (Protocol::Compact, 1 | 2) if in_field => Shape::Fixed(0),
            (Protocol::Compact, 1..=3) => Shape::Fixed(1),
            (Protocol::Compact, 4..=6) => Shape::Varint,
            (Protocol::Compact, 7) => Shape::Fixed(8),
            (Protocol::Compact, 8) => Shape::Text,
            (Protocol::Compact, 9 | 10) => Shape::List,
            (Protocol::Compact, 11) => Shape::Map,
            (Protocol::Compact, 12) => Shape::Struct,
            (Protocol::Compact, 13) => Shape::Fixed(16),
            _ => return Err(NoMessage::Bad(DecodeError::malformed("field type", self.position))),
        })
    }

    fn list(&self, reader: &mut Reader<'_>) -> Result<(u8, u64), NoMessage> {
        let head = reader.u8()?;
        match self.protocol {
            Protocol::Binary => Ok((head, self.count(reader)?)),
            Protocol::Compact if head >> 4 == 0x0f => Ok((head & 0x0f, self.count(reader)?)),
            Protocol::Compact => Ok((head & 0x0f, u64::from(head >> 4))),
        }
    }

    fn map(&self, reader: &mut Reader<'_>) -> Result<(u8, u8, u64), NoMessage> {
        match self.protocol {
            Protocol::Binary => Ok((reader.u8()?, reader.u8()?, self.count(reader)?)),
            Protocol::Compact => match self.count(reader)? {
                // An empty map has no types.
                0 => Ok((3, 3, 0)),
                count => {
                    let kinds = reader.u8()?;
                    Ok((kinds >> 4, kinds & 0x0f, count))
                }
            },
        }
    }

    fn length(&self, reader: &mut Reader<'_>, limits: &Limits) -> Result<usize, NoMessage> {
        let length = self.count(reader)?;
        match usize::try_from(length) {
            Ok(length) if length <= limits.max_frame => Ok(length),
            _ => Err(NoMessage::Bad(DecodeError::too_large("string", self.position))),
        }
    }

    /// A count or length: never negative.
    fn count(&self, reader: &mut Reader<'_>) -> Result<u64, NoMessage> {
        let count = match self.protocol {
            Protocol::Binary => u64::from(reader.u32()?),
            Protocol::Compact => self.varint(reader)?,
        };
        match i32::try_from(count) {
            Ok(_) => Ok(count),
            Err(_) => Err(NoMessage::Bad(DecodeError::malformed("negative size", self.position))),
        }
    }

    fn varint(&self, reader: &mut Reader<'_>) -> Result<u64, NoMessage> {
        reader.varint()?.ok_or(NoMessage::Bad(DecodeError::malformed("varint", self.position)))
    }
}
