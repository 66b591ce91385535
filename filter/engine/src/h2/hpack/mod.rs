//! HPACK (RFC 7541).

mod decode;
mod encode;
mod huffman;
mod table;
#[cfg(test)]
mod tests;

pub(super) use decode::{Decoder, HpackError};
pub use encode::HeaderWriter;

/// Headers of one block, in one piece of memory that the next block uses again.
#[derive(Debug, Default)]
pub(super) struct HeaderBlock {
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// Where name and value stand in the bytes of a [`HeaderBlock`].
#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    middle: usize,
    end: usize,
}

impl HeaderBlock {
    pub(super) const fn new() -> Self {
        Self { bytes: Vec::new(), fields: Vec::new() }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
    }

    fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.fields.push(Field { start, middle, end: self.bytes.len() });
    }

    fn name(&self, field: Field) -> &[u8] {
        self.bytes.get(field.start..field.middle).unwrap_or_default()
    }

    fn value(&self, field: Field) -> &[u8] {
        self.bytes.get(field.middle..field.end).unwrap_or_default()
    }

    pub(super) fn headers(&self) -> Headers<'_> {
        Headers { block: self }
    }
}

/// Headers that a peer sent, lent until the next event.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'a> {
    block: &'a HeaderBlock,
}

impl<'a> Headers<'a> {
    /// Names and values in the order they came; pseudo headers with their colon.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let block = self.block;
        block.fields.iter().map(move |field| (block.name(*field), block.value(*field)))
    }

    /// The first value of a name.
    pub fn first(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.iter().find_map(|(key, value)| (key == name).then_some(value))
    }
}
