//! Passes over hessian2 values without building them.

use meltemi::{
    DecodeError, Limits,
    wire::{Reader, Short},
};
use smallvec::SmallVec;

use super::body::Value;

/// A cursor over hessian2 values. It keeps only what is needed to find the end of each: how many fields the classes
/// have that were defined so far, and which containers are open.
pub(super) struct Walk<'a> {
    reader: Reader<'a>,
    /// Fields of each class, in the order of their definitions, without the first `unknown` ones.
    classes: SmallVec<[u32; 32]>,
    /// Classes that were defined before this walk began.
    unknown: usize,
    /// Classes that were defined before the attachments.
    outer: usize,
    /// Some attachment is an instance of such a class.
    pub(super) uses_outer: bool,
    open: SmallVec<[Open; 64]>,
    elements_left: usize,
    max_depth: usize,
    /// Something passed over counts as a target of references: a container, a class, a type name.
    pub(super) defines: bool,
    /// Something passed over refers to another thing by its number.
    pub(super) refers: bool,
}

/// A container whose values are being passed over.
#[derive(Debug, Clone, Copy)]
enum Open {
    /// So many values are left.
    Values(u32),
    /// Values up to `Z`.
    List,
    /// Keys and values up to `Z`.
    Map { value_next: bool },
}

impl<'a> Walk<'a> {
    /// Starts at `position`.
    pub(super) fn new(bytes: &'a [u8], position: usize, limits: &Limits) -> Self {
        Self {
            reader: Reader::at(bytes, position),
            classes: SmallVec::new(),
            unknown: 0,
            outer: 0,
            uses_outer: false,
            open: SmallVec::new(),
            elements_left: limits.max_elements,
            max_depth: limits.max_depth,
            defines: false,
            refers: false,
        }
    }

    /// Goes on at attachments before which so many classes were defined.
    pub(super) const fn behind_classes(mut self, classes: usize) -> Self {
        self.unknown = classes;
        self
    }

    /// Classes that were defined before the attachments.
    pub(super) const fn outer_classes(&self) -> usize {
        self.outer
    }

    pub(super) const fn position(&self) -> usize {
        self.reader.position()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.reader.remaining() == 0
    }

    /// Passes over the next value, whatever it is.
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
                Open::Map { value_next: true } => {
                    *top = Open::Map { value_next: false };
                    false
                }
                Open::List | Open::Map { value_next: false } => {
                    let ended = self.reader.peek() == Ok(b'Z');
                    if ended {
                        self.reader.skip(1).map_err(|short| self.short(short))?;
                    } else if let Open::Map { value_next } = top {
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

    /// Enters a map of any type; `false` for null, which is passed over.
    pub(super) fn enter_map(&mut self) -> Result<bool, DecodeError> {
        self.outer = self.classes.len();
        match self.u8()? {
            b'H' => Ok(true),
            b'M' => self.type_name().map(|()| true),
            b'N' => Ok(false),
            _ => Err(self.malformed("attachments are no map")),
        }
    }

    /// Whether the map that was entered ends here; passes over its end.
    pub(super) fn leave_map(&mut self) -> Result<bool, DecodeError> {
        let ended = self.reader.peek().map_err(|short| self.short(short))? == b'Z';
        if ended {
            self.u8()?;
        }
        Ok(ended)
    }

    /// Reads an integer in any of its forms.
    pub(super) fn int(&mut self) -> Result<i32, DecodeError> {
        match self.u8()? {
            tag @ 0x80..=0xbf => Ok(i32::from(tag).wrapping_sub(0x90)),
            tag @ 0xc0..=0xcf => Ok(packed(tag, 0xc8, &[self.u8()?])),
            tag @ 0xd0..=0xd7 => Ok(packed(tag, 0xd4, &[self.u8()?, self.u8()?])),
            b'I' => self.reader.i32().map_err(|short| self.short(short)),
            _ => Err(self.malformed("not an integer")),
        }
    }

    /// Passes over one scalar, or over the head of one container, which is then open.
    fn one(&mut self) -> Result<Value<'a>, DecodeError> {
        loop {
            self.elements_left = self
                .elements_left
                .checked_sub(1)
                .ok_or(DecodeError::too_large("more values than the limit", self.position()))?;
            let tag = self.u8()?;
            return match tag {
                b'C' => {
                    self.class()?;
                    continue;
                }
                0x00..=0x1f | 0x30..=0x33 | b'R' | b'S' => self.string(tag),
                0x20..=0x2f => self.skip(usize::from(tag & 0x0f)),
                0x34..=0x37 => {
                    let length = usize::from(u16::from_be_bytes([tag & 0x03, self.u8()?]));
                    self.skip(length)
                }
                b'A' | b'B' => self.binary(tag),
                b'T' => Ok(Value::Text(b"true")),
                b'F' => Ok(Value::Text(b"false")),
                b'N' => Ok(Value::Null),
                0x80..=0xbf | 0xd8..=0xef | 0x5b | 0x5c => Ok(Value::Other),
                0xc0..=0xcf | 0xf0..=0xff | 0x5d => self.skip(1),
                0xd0..=0xd7 | 0x38..=0x3f | 0x5e => self.skip(2),
                b'I' | b'Y' | b'K' | 0x5f => self.skip(4),
                b'L' | b'D' | b'J' => self.skip(8),
                b'Q' => {
                    self.refers = true;
                    self.int().map(|_| Value::Other)
                }
                0x60..=0x6f => self.object(i32::from(tag & 0x0f)),
                b'O' => {
                    let class = self.int()?;
                    self.object(class)
                }
                b'H' => self.push(Open::Map { value_next: false }),
                b'M' => self.typed(Open::Map { value_next: false }),
                b'U' => self.typed(Open::List),
                b'V' => {
                    self.type_name()?;
                    let length = self.length()?;
                    self.push(Open::Values(length))
                }
                b'W' => self.push(Open::List),
                b'X' => {
                    let length = self.length()?;
                    self.push(Open::Values(length))
                }
                0x70..=0x77 => self.typed(Open::Values(u32::from(tag & 0x07))),
                0x78..=0x7f => self.push(Open::Values(u32::from(tag & 0x07))),
                _ => Err(self.malformed("no hessian2 value starts so")),
            };
        }
    }

    fn string(&mut self, mut tag: u8) -> Result<Value<'a>, DecodeError> {
        let mut chunks = 0u32;
        loop {
            let units = match tag {
                0x00..=0x1f => usize::from(tag),
                0x30..=0x33 => usize::from(u16::from_be_bytes([tag & 0x03, self.u8()?])),
                b'R' | b'S' => usize::from(self.u16()?),
                _ => return Err(self.malformed("not a string")),
            };
            let text = self.units(units)?;
            if tag != b'R' {
                return Ok(if chunks == 0 { Value::Text(text) } else { Value::Scattered });
            }
            chunks = chunks.saturating_add(1);
            tag = self.u8()?;
        }
    }

    /// Takes so many UTF-16 units of text. Each is written as UTF-8 of its own, halves of surrogate pairs too; a
    /// character of four bytes, which some writers make, counts as the two units that it is.
    fn units(&mut self, units: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.reader.rest();
        let mut length = units;
        if !rest.get(..units).is_some_and(<[u8]>::is_ascii) {
            length = 0;
            let mut left = units;
            while left > 0 {
                // Java reads other forms as well, such as ASCII in two bytes: nobody writes them but to hide a text.
                let (bytes, units) = match rest.get(length..).unwrap_or_default() {
                    [0x00..=0x7f, ..] => (1, 1),
                    [0xc2..=0xdf, 0x80..=0xbf, ..] => (2, 1),
                    [0xe0, 0xa0..=0xbf, 0x80..=0xbf, ..] | [0xe1..=0xef, 0x80..=0xbf, 0x80..=0xbf, ..] => (3, 1),
                    [0xf0, 0x90..=0xbf, 0x80..=0xbf, 0x80..=0xbf, ..]
                    | [0xf1..=0xf4, 0x80..=0xbf, 0x80..=0xbf, 0x80..=0xbf, ..] => (4, 2),
                    [] => return Err(self.malformed("text ends early")),
                    _ => return Err(self.malformed("text that is not UTF-8")),
                };
                length = length.saturating_add(bytes);
                left = left.saturating_sub(units);
            }
        }
        self.reader.take(length).map_err(|short| self.short(short))
    }

    fn binary(&mut self, mut tag: u8) -> Result<Value<'a>, DecodeError> {
        loop {
            let length = match tag {
                0x20..=0x2f => usize::from(tag & 0x0f),
                0x34..=0x37 => usize::from(u16::from_be_bytes([tag & 0x03, self.u8()?])),
                b'A' | b'B' => usize::from(self.u16()?),
                _ => return Err(self.malformed("not a binary chunk")),
            };
            self.skip(length)?;
            if tag != b'A' {
                return Ok(Value::Other);
            }
            tag = self.u8()?;
        }
    }

    /// Passes over a class definition and remembers how many fields it has.
    fn class(&mut self) -> Result<(), DecodeError> {
        self.defines = true;
        let tag = self.u8()?;
        self.string(tag)?;
        let fields = self.length()?;
        for _ in 0..fields {
            let tag = self.u8()?;
            self.string(tag)?;
        }
        self.classes.push(fields);
        Ok(())
    }

    fn object(&mut self, class: i32) -> Result<Value<'a>, DecodeError> {
        self.refers = true;
        let class = usize::try_from(class).unwrap_or(usize::MAX);
        self.uses_outer |= class < self.outer;
        let fields = class.checked_sub(self.unknown).and_then(|class| self.classes.get(class)).copied();
        match fields {
            Some(fields) => self.push(Open::Values(fields)),
            None => Err(self.malformed("object of a class that was not defined")),
        }
    }

    fn typed(&mut self, open: Open) -> Result<Value<'a>, DecodeError> {
        self.type_name()?;
        self.push(open)
    }

    fn push(&mut self, open: Open) -> Result<Value<'a>, DecodeError> {
        if self.open.len() >= self.max_depth {
            return Err(DecodeError::too_deep(self.position()));
        }
        self.defines = true;
        self.open.push(open);
        Ok(Value::Other)
    }

    /// A type's name, or the number of one that was named before.
    fn type_name(&mut self) -> Result<(), DecodeError> {
        match self.reader.peek().map_err(|short| self.short(short))? {
            tag @ (0x00..=0x1f | 0x30..=0x33 | b'R' | b'S') => {
                self.defines = true;
                self.u8()?;
                self.string(tag).map(|_| ())
            }
            _ => {
                self.refers = true;
                self.int().map(|_| ())
            }
        }
    }

    fn length(&mut self) -> Result<u32, DecodeError> {
        let length = self.int()?;
        u32::try_from(length).map_err(|_| self.malformed("negative length"))
    }

    fn skip(&mut self, bytes: usize) -> Result<Value<'a>, DecodeError> {
        self.reader.skip(bytes).map(|()| Value::Other).map_err(|short| self.short(short))
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.reader.u8().map_err(|short| self.short(short))
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.reader.u16().map_err(|short| self.short(short))
    }

    fn short(&self, short: Short) -> DecodeError {
        short.malformed("the body ends in the middle of a value", self.position())
    }

    fn malformed(&self, reason: &'static str) -> DecodeError {
        DecodeError::malformed(reason, self.position())
    }
}

/// An integer whose most significant byte is `tag - zero`.
fn packed(tag: u8, zero: u8, low: &[u8]) -> i32 {
    let high = i32::from(tag).wrapping_sub(i32::from(zero));
    low.iter().fold(high, |value, &byte| (value << 8) | i32::from(byte))
}
