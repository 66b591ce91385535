//! Passes over JSONB values (fastjson2). In Dubbo every item of a body stands alone behind its length.

use meltemi::{
    DecodeError, Limits,
    wire::{Reader, Short},
};

use super::body::Value;

/// A cursor over items and, within the attachments, over the values of one.
pub(super) struct Walk<'a> {
    reader: Reader<'a>,
    elements_left: usize,
    max_depth: usize,
    /// Something passed over counts as a target of references: a container or a symbol.
    pub(super) defines: bool,
    /// Something passed over refers to another thing.
    pub(super) refers: bool,
}

impl<'a> Walk<'a> {
    /// Starts at `position`.
    pub(super) fn new(bytes: &'a [u8], position: usize, limits: &Limits) -> Self {
        Self {
            reader: Reader::at(bytes, position),
            elements_left: limits.max_elements,
            max_depth: limits.max_depth,
            defines: false,
            refers: false,
        }
    }

    pub(super) const fn position(&self) -> usize {
        self.reader.position()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.reader.remaining() == 0
    }

    /// Passes over the next item; only its text is looked into.
    pub(super) fn item(&mut self) -> Result<Value<'a>, DecodeError> {
        let length = self.prefix()?;
        let end = self.position().saturating_add(length);
        let value = match self.reader.peek() {
            Ok(0x49..=0x7e | 0xaf) if length > 0 => self.value()?,
            _ => Value::Other,
        };
        let left = end.checked_sub(self.position()).ok_or(self.malformed("value longer than its item"))?;
        self.skip(left)?;
        Ok(value)
    }

    /// Reads an item that is an integer.
    pub(super) fn int_item(&mut self) -> Result<i64, DecodeError> {
        self.prefix()?;
        self.int()
    }

    /// Enters the item that is next if it is an object; `None` (and unread) if it is something else, `Some(false)`
    /// (and passed over) if it is null.
    pub(super) fn enter_object(&mut self) -> Result<Option<bool>, DecodeError> {
        let start = self.reader;
        let length = self.prefix()?;
        match self.reader.peek() {
            Ok(OBJECT) if length > 0 => self.u8().map(|_| Some(true)),
            Ok(0xaf) if length == 1 => self.u8().map(|_| Some(false)),
            _ => {
                self.reader = start;
                Ok(None)
            }
        }
    }

    /// Whether the object that was entered ends here; passes over its end.
    pub(super) fn leave_object(&mut self) -> Result<bool, DecodeError> {
        let ended = self.reader.peek().map_err(|short| self.short(short))? == OBJECT_END;
        if ended {
            self.u8()?;
        }
        Ok(ended)
    }

    /// Passes over the next value.
    pub(super) fn value(&mut self) -> Result<Value<'a>, DecodeError> {
        // Recursion: not deeper than this, whatever the limits say.
        self.nested(self.max_depth.min(64))
    }

    fn nested(&mut self, depth: usize) -> Result<Value<'a>, DecodeError> {
        let position = self.position();
        self.elements_left =
            self.elements_left.checked_sub(1).ok_or(DecodeError::too_large("more values than the limit", position))?;
        let deeper = depth.checked_sub(1).ok_or(DecodeError::too_deep(position))?;
        let tag = self.u8()?;
        match tag {
            0x49..=0x78 => self.text(i64::from(tag).wrapping_sub(0x49)),
            0x79 | 0x7a => {
                let length = self.int()?;
                self.text(length)
            }
            0x7b..=0x7e | 0x91 | 0xbb => {
                let length = self.int()?;
                self.text(length).map(|_| Value::Other)
            }
            0xaf => Ok(Value::Null),
            0xb0 => Ok(Value::Text(b"false")),
            0xb1 => Ok(Value::Text(b"true")),
            0xb2 | 0xb3 | 0xd8..=0xff | 0x00..=0x2f => Ok(Value::Other),
            0xb4 | 0xb6 | 0xb8 | 0xba => self.nested(deeper).map(|_| Value::Other),
            0xb9 => {
                self.int()?;
                self.nested(deeper).map(|_| Value::Other)
            }
            0xbd | 0xc8..=0xd7 | 0x30..=0x3f => self.skip(1),
            0xbc | 0xc0..=0xc7 | 0x40..=0x47 => self.skip(2),
            0xb7 | 0xbf | 0x48 => self.skip(4),
            0xb5 | 0xbe => self.skip(8),
            0x94..=0xa3 => self.array(i64::from(tag).wrapping_sub(0x94), deeper),
            0xa4 => {
                let length = self.int()?;
                self.array(length, deeper)
            }
            OBJECT => {
                self.defines = true;
                while !self.leave_object()? {
                    self.nested(deeper)?;
                    self.nested(deeper)?;
                }
                Ok(Value::Other)
            }
            _ => Err(DecodeError::unsupported("JSONB value of a kind that is not walked", position)),
        }
    }

    fn array(&mut self, length: i64, deeper: usize) -> Result<Value<'a>, DecodeError> {
        self.defines = true;
        for _ in 0..length {
            self.nested(deeper)?;
        }
        Ok(Value::Other)
    }

    fn text(&mut self, length: i64) -> Result<Value<'a>, DecodeError> {
        let length = usize::try_from(length).map_err(|_| self.malformed("negative length"))?;
        self.reader.take(length).map(Value::Text).map_err(|short| self.short(short))
    }

    /// Reads an integer of at most 32 bits.
    fn int(&mut self) -> Result<i64, DecodeError> {
        let tag = self.u8()?;
        Ok(match tag {
            0x00..=0x2f => i64::from(tag),
            0xf0..=0xff => i64::from(tag).wrapping_sub(0x100),
            0x30..=0x3f => (i64::from(tag).wrapping_sub(0x38) << 8) | i64::from(self.u8()?),
            0x40..=0x47 => {
                (i64::from(tag).wrapping_sub(0x44) << 16) | (i64::from(self.u8()?) << 8) | i64::from(self.u8()?)
            }
            0x48 => i64::from(self.reader.i32().map_err(|short| self.short(short))?),
            0xbd => i64::from(self.u8()?.cast_signed()),
            0xbc => i64::from(self.reader.i16().map_err(|short| self.short(short))?),
            _ => return Err(self.malformed("not an integer")),
        })
    }

    /// The length of the item that is next: not more than what is there.
    fn prefix(&mut self) -> Result<usize, DecodeError> {
        let length = self.reader.u32().map_err(|short| self.short(short))?;
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.reader.remaining())
            .ok_or(self.malformed("item longer than the body"))
    }

    fn skip(&mut self, bytes: usize) -> Result<Value<'a>, DecodeError> {
        self.reader.skip(bytes).map(|()| Value::Other).map_err(|short| self.short(short))
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.reader.u8().map_err(|short| self.short(short))
    }

    fn short(&self, short: Short) -> DecodeError {
        short.malformed("the body ends in the middle of a value", self.position())
    }

    fn malformed(&self, reason: &'static str) -> DecodeError {
        DecodeError::malformed(reason, self.position())
    }
}

/// Starts an object.
pub(super) const OBJECT: u8 = 0xa6;
/// Ends an object.
pub(super) const OBJECT_END: u8 = 0xa5;
