//! Passes over JSONB values (fastjson2). In Dubbo every item of a body stands alone behind its length.
//!
//! Kinds and layouts are those of `JSONB.Constants` and `JSONReaderJSONB` of fastjson2 2.0; `corpus/dubbo/jsonb.txt` has
//! one of each as Java writes it.

use meltemi::{
    DecodeError, Limits,
    wire::{Reader, Short},
};
use smallvec::SmallVec;

use super::body::Value;

/// A cursor over items and, within the attachments, over the values of one.
pub(super) struct Walk<'a> {
    reader: Reader<'a>,
    /// Where the item ends that holds the attachments.
    item_end: usize,
    open: SmallVec<[Open; 64]>,
    elements_left: usize,
    max_depth: usize,
    /// Something passed over counts as a target of references: a container or a symbol.
    pub(super) defines: bool,
    /// Something passed over refers to another thing.
    pub(super) refers: bool,
}

/// A container whose values are being passed over.
#[derive(Debug, Clone, Copy)]
enum Open {
    /// So many values are left.
    Values(u32),
    /// Keys and values up to the end of the object.
    Object { value_next: bool },
}

impl<'a> Walk<'a> {
    /// Starts at `position`.
    pub(super) fn new(bytes: &'a [u8], position: usize, limits: &Limits) -> Self {
        Self {
            reader: Reader::at(bytes, position),
            item_end: bytes.len(),
            open: SmallVec::new(),
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
        let end = self.prefix()?;
        let value = match self.reader.peek() {
            Ok(0x49..=0x7e | 0xaf) if end > self.position() => self.value()?,
            _ => Value::Other,
        };
        self.skip_to(end)?;
        Ok(value)
    }

    /// Reads an item that is an integer.
    pub(super) fn int_item(&mut self) -> Result<i64, DecodeError> {
        let end = self.prefix()?;
        let value = self.int()?;
        self.skip_to(end)?;
        Ok(value)
    }

    /// Enters the item that is next if it is an object, of any type; `None` (and unread) if it is something else,
    /// `Some(false)` (and passed over) if it is null.
    pub(super) fn enter_object(&mut self) -> Result<Option<bool>, DecodeError> {
        let start = self.reader;
        let end = self.prefix()?;
        if self.reader.peek() == Ok(TYPED) {
            self.u8()?;
            self.typed()?;
        }
        let object = match self.reader.peek() {
            Ok(OBJECT) if end > self.position() => Some(true),
            Ok(0xaf) if end > self.position() => Some(false),
            _ => None,
        };
        match object {
            Some(true) => {
                self.u8()?;
                self.item_end = end;
            }
            Some(false) => self.skip_to(end)?,
            None => self.reader = start,
        }
        Ok(object)
    }

    /// Whether the object that was entered ends here; passes over its end, and all of its item.
    pub(super) fn leave_object(&mut self) -> Result<bool, DecodeError> {
        let ended = self.reader.peek().map_err(|short| self.short(short))? == OBJECT_END;
        if ended {
            self.u8()?;
            self.skip_to(self.item_end)?;
        }
        Ok(ended)
    }

    /// Passes over the next value.
    pub(super) fn value(&mut self) -> Result<Value<'a>, DecodeError> {
        self.open.clear();
        let value = self.one()?;
        while let Some(top) = self.open.last_mut() {
            let ended = match top {
                Open::Values(0) => true,
                Open::Values(left) => {
                    *left = left.saturating_sub(1);
                    false
                }
                Open::Object { value_next: true } => {
                    *top = Open::Object { value_next: false };
                    false
                }
                Open::Object { value_next } => {
                    let ended = self.reader.peek() == Ok(OBJECT_END);
                    if ended {
                        self.reader.skip(1).map_err(|short| self.short(short))?;
                    } else {
                        *value_next = true;
                    }
                    ended
                }
            };
            if ended {
                self.open.pop();
            } else {
                self.one()?;
            }
        }
        Ok(value)
    }

    /// Passes over one scalar, or over the head of one container, which is then open.
    fn one(&mut self) -> Result<Value<'a>, DecodeError> {
        let position = self.position();
        self.elements_left =
            self.elements_left.checked_sub(1).ok_or(DecodeError::too_large("more values than the limit", position))?;
        let tag = self.u8()?;
        match tag {
            0x49..=0x7e => self.string(tag),
            SYMBOL => self.symbol().map(|()| Value::Scattered),
            // A character.
            0x90 => self.int().map(|_| Value::Other),
            0x91 | 0xbb => {
                let length = self.int()?;
                self.text(length).map(|_| Value::Other)
            }
            TYPED => {
                self.typed()?;
                self.push(Open::Values(1))
            }
            // The path of something before, as text.
            0x93 => {
                self.refers = true;
                let tag = self.u8()?;
                self.string(tag).map(|_| Value::Other)
            }
            0x94..=0xa3 => self.push(Open::Values(u32::from(tag).saturating_sub(0x94))),
            0xa4 => {
                let length = self.int()?;
                let length = u32::try_from(length).map_err(|_| self.malformed("negative length"))?;
                self.push(Open::Values(length))
            }
            OBJECT => self.push(Open::Object { value_next: false }),
            // Times: fields of the date and the time, nanoseconds as a number, the zone as text.
            0xa7 => self.skip_and(3, 1),
            0xa8 => self.skip_and(7, 1),
            0xaa => self.skip_and(7, 2),
            0xae => self.push(Open::Values(2)),
            0xaf => Ok(Value::Null),
            0xb0 => Ok(Value::Text(b"false")),
            0xb1 => Ok(Value::Text(b"true")),
            0xb2 | 0xb3 | 0xd8..=0xff | 0x00..=0x2f => Ok(Value::Other),
            0xb4 | 0xb6 | 0xb8 | 0xba => self.push(Open::Values(1)),
            0xb9 => {
                self.int()?;
                self.push(Open::Values(1))
            }
            0xbd | 0xc8..=0xd7 | 0x30..=0x3f => self.skip(1),
            0xbc | 0xc0..=0xc7 | 0x40..=0x47 => self.skip(2),
            0xa9 | 0xac | 0xad | 0xb7 | 0xbf | 0x48 => self.skip(4),
            0xab | 0xb5 | 0xbe => self.skip(8),
            _ => Err(DecodeError::malformed("no JSONB value starts so", position)),
        }
    }

    fn push(&mut self, open: Open) -> Result<Value<'a>, DecodeError> {
        if self.open.len() >= self.max_depth {
            return Err(DecodeError::too_deep(self.position()));
        }
        self.defines = true;
        self.open.push(open);
        Ok(Value::Other)
    }

    fn skip_and(&mut self, bytes: usize, values: u32) -> Result<Value<'a>, DecodeError> {
        self.skip(bytes)?;
        self.push(Open::Values(values))
    }

    /// Reads the rest of a string. The short forms and 0x79 are Latin-1, 0x7a is UTF-8.
    fn string(&mut self, tag: u8) -> Result<Value<'a>, DecodeError> {
        let length = match tag {
            0x49..=0x78 => i64::from(tag).wrapping_sub(0x49),
            0x79..=0x7e => self.int()?,
            _ => return Err(self.malformed("not a string")),
        };
        let text = self.text(length)?;
        Ok(match tag {
            0x7c | 0x7d if !is_ascii_in_disguise(text) => Value::Coded(text),
            0x7b..=0x7e => Value::Scattered,
            _ => Value::Text(text),
        })
    }

    /// Passes over the rest of a symbol: text and its number, or the number of one that was there before.
    fn symbol(&mut self) -> Result<(), DecodeError> {
        if matches!(self.reader.peek(), Ok(0x00..=0x48 | 0xf0..=0xff)) {
            self.refers = true;
        } else {
            self.defines = true;
            let tag = self.u8()?;
            self.string(tag)?;
        }
        self.int().map(|_| ())
    }

    /// Passes over the name of a type, a symbol with or without its mark.
    fn typed(&mut self) -> Result<(), DecodeError> {
        if self.reader.peek() == Ok(SYMBOL) {
            self.u8()?;
        }
        self.symbol()
    }

    fn text(&mut self, length: i64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| self.malformed("negative length"))?;
        self.reader.take(length).map_err(|short| self.short(short))
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

    /// Reads the length of the item that is next: not more than what is there. Gives its end.
    fn prefix(&mut self) -> Result<usize, DecodeError> {
        let length = self.reader.u32().map_err(|short| self.short(short))?;
        usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.reader.remaining())
            .map(|length| self.position().saturating_add(length))
            .ok_or(self.malformed("item longer than the body"))
    }

    /// Passes over the rest of an item.
    fn skip_to(&mut self, end: usize) -> Result<(), DecodeError> {
        let left = end.checked_sub(self.position()).ok_or(self.malformed("value longer than its item"))?;
        self.skip(left).map(|_| ())
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

/// Text in UTF-16 of which every unit is ASCII. Java writes such text in one byte a character, so this is somebody who
/// wants a text not to be seen that the server will see.
fn is_ascii_in_disguise(text: &[u8]) -> bool {
    text.chunks(2).all(|unit| unit.is_ascii() && unit.contains(&0))
}

/// A symbol: text that has a number, or the number alone.
const SYMBOL: u8 = 0x7f;
/// The name of a type, before a value of it.
const TYPED: u8 = 0x92;
/// Starts an object.
pub(super) const OBJECT: u8 = 0xa6;
/// Ends an object.
pub(super) const OBJECT_END: u8 = 0xa5;
