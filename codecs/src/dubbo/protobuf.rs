//! Bodies of delimited protobuf messages: every item is a varint length and a message.

use meltemi::{DecodeError, wire::Reader};

use super::body::Value;

/// A cursor over items and, within the attachments, over the entries of the map.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    position: usize,
}

/// Tag of field 1, with a length: the text of a `StringValue`, an entry of the map, the key of an entry.
pub(super) const FIRST: u8 = 0x0a;
/// Tag of field 2, with a length: the value of an entry.
pub(super) const SECOND: u8 = 0x12;
/// Tag of field 1, a varint: the number of an `Int32Value`.
const FIRST_NUMBER: u8 = 0x08;

impl<'a> Walk<'a> {
    /// Starts at `position`.
    pub(super) const fn new(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position }
    }

    pub(super) const fn position(&self) -> usize {
        self.position
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.position >= self.bytes.len()
    }

    /// Passes over an item that may be anything.
    pub(super) fn item(&mut self) -> Result<(), DecodeError> {
        self.delimited().map(|_| ())
    }

    /// Reads a `StringValue`.
    pub(super) fn text(&mut self) -> Result<Value<'a>, DecodeError> {
        let item = self.delimited()?;
        let mut within = Walk::new(item, 0);
        if within.is_at_end() {
            return Ok(Value::Text(b""));
        }
        within.field(FIRST).map(Value::Text).map_err(|error| self.moved(error, item))
    }

    /// Reads an `Int32Value`.
    pub(super) fn int(&mut self) -> Result<u64, DecodeError> {
        let item = self.delimited()?;
        match item.split_first() {
            None => Ok(0),
            Some((&FIRST_NUMBER, number)) => match Reader::new(number).varint() {
                Ok(Some(number)) => Ok(number),
                _ => Err(self.malformed("not a number")),
            },
            Some(_) => Err(self.malformed("not a number")),
        }
    }

    /// Enters the map of attachments; gives back where it ends.
    pub(super) fn enter_map(&mut self) -> Result<usize, DecodeError> {
        let length = self.length()?;
        Ok(self.position.saturating_add(length))
    }

    /// Reads an entry of the map: key and value, each empty if it is missing.
    pub(super) fn entry(&mut self) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        let entry = self.field(FIRST)?;
        let mut within = Walk::new(entry, 0);
        let (mut key, mut value): (&[u8], &[u8]) = (b"", b"");
        while let Some(&tag) = entry.get(within.position) {
            let part = match tag {
                FIRST => &mut key,
                SECOND => &mut value,
                _ => return Err(self.malformed("no entry of a map of text")),
            };
            *part = within.field(tag).map_err(|error| self.moved(error, entry))?;
        }
        Ok((key, value))
    }

    fn field(&mut self, tag: u8) -> Result<&'a [u8], DecodeError> {
        if self.bytes.get(self.position) != Some(&tag) {
            return Err(self.malformed("not the field that was expected"));
        }
        self.position = self.position.saturating_add(1);
        self.delimited()
    }

    fn delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        let mut reader = Reader::at(self.bytes, self.position);
        let taken = reader.take(length).map_err(|_| self.malformed("message ends early"))?;
        self.position = reader.position();
        Ok(taken)
    }

    /// Reads a length: not more than what is there.
    fn length(&mut self) -> Result<usize, DecodeError> {
        let mut reader = Reader::at(self.bytes, self.position);
        let length = reader.varint().ok().flatten().and_then(|length| usize::try_from(length).ok());
        let length = length
            .filter(|length| *length <= reader.remaining())
            .ok_or(self.malformed("message longer than the body"))?;
        self.position = reader.position();
        Ok(length)
    }

    /// An error within the last item read, with its place in the whole.
    fn moved(&self, mut error: DecodeError, item: &[u8]) -> DecodeError {
        error.offset = error.offset.saturating_add(self.position.saturating_sub(item.len()));
        error
    }

    fn malformed(&self, reason: &'static str) -> DecodeError {
        DecodeError::malformed(reason, self.position)
    }
}
