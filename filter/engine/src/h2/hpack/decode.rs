//! Reading header blocks, with everything a peer may use.

use super::{Field, HeaderBlock, huffman, table::DynamicTable};

/// A header block that is not one, or is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::h2) enum HpackError {
    /// Not HPACK.
    Invalid,
    /// Its headers together are larger than we take.
    TooLarge,
}

/// Reads the header blocks of one direction of a connection.
#[derive(Debug)]
pub(in crate::h2) struct Decoder {
    table: DynamicTable,
}

impl Decoder {
    pub(in crate::h2) const fn new() -> Self {
        Self { table: DynamicTable::new() }
    }

    /// The peer uses no dynamic table: no block depends on an earlier one.
    pub(in crate::h2) fn has_no_table(&self) -> bool {
        self.table.is_off()
    }

    /// Reads `block` into `headers`, whose names and values together must not be larger than `max` bytes.
    pub(in crate::h2) fn decode(
        &mut self,
        block: &[u8],
        max: usize,
        headers: &mut HeaderBlock,
    ) -> Result<(), HpackError> {
        headers.clear();
        let mut input = Input { rest: block, max };
        while let Some(first) = input.rest.first().copied() {
            match first {
                0x80.. => {
                    let index = input.integer(7)?;
                    let (name, value) = self.table.entry(index).ok_or(HpackError::Invalid)?;
                    input.spend(name.len().saturating_add(value.len()))?;
                    headers.push(name, value);
                }
                0x40.. => {
                    let field = self.literal(&mut input, 6, headers)?;
                    self.table.insert(headers.name(field), headers.value(field));
                }
                0x20.. => {
                    let size = input.integer(5)?;
                    if !headers.is_empty() || !self.table.resize(size) {
                        return Err(HpackError::Invalid);
                    }
                }
                _ => {
                    self.literal(&mut input, 4, headers)?;
                }
            }
        }
        Ok(())
    }

    fn literal(&self, input: &mut Input<'_>, prefix: u8, headers: &mut HeaderBlock) -> Result<Field, HpackError> {
        let index = input.integer(prefix)?;
        let start = headers.bytes.len();
        if index == 0 {
            input.text(&mut headers.bytes)?;
        } else {
            let (name, _) = self.table.entry(index).ok_or(HpackError::Invalid)?;
            input.spend(name.len())?;
            headers.bytes.extend_from_slice(name);
        }
        let middle = headers.bytes.len();
        input.text(&mut headers.bytes)?;
        let field = Field { start, middle, end: headers.bytes.len() };
        headers.fields.push(field);
        Ok(field)
    }
}

struct Input<'a> {
    rest: &'a [u8],
    /// Bytes of names and values that may still come.
    max: usize,
}

/// What each header costs beside its bytes, so that a block of indices cannot become a flood of empty headers.
const HEADER_OVERHEAD: usize = 16;

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, HpackError> {
        let (first, rest) = self.rest.split_first().ok_or(HpackError::Invalid)?;
        self.rest = rest;
        Ok(*first)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), HpackError> {
        self.max = self.max.checked_sub(bytes.saturating_add(HEADER_OVERHEAD)).ok_or(HpackError::TooLarge)?;
        Ok(())
    }

    /// An integer with a prefix of some bits (RFC 7541, section 5.1), of at most 28 bits.
    fn integer(&mut self, bits: u8) -> Result<usize, HpackError> {
        let most = (1usize << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = usize::from(self.byte()?);
            value = value.saturating_add((byte & 0x7f) << shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(HpackError::Invalid)
    }

    fn text(&mut self, out: &mut Vec<u8>) -> Result<(), HpackError> {
        let coded = self.rest.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(HpackError::Invalid)?;
        self.rest = rest;
        let start = out.len();
        if coded {
            huffman::decode(text, self.max, out)?;
        } else {
            self.max.checked_sub(length).ok_or(HpackError::TooLarge)?;
            out.extend_from_slice(text);
        }
        self.spend(out.len().saturating_sub(start))
    }
}
