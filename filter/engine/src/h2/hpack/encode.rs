//! Writing header blocks: indexed where the static table has the header, literal without indexing otherwise. No Huffman
//! and no dynamic table: between two ends of the same process, bytes are cheaper than work.

use super::table::{Indexed, static_index};

/// First byte of a literal without indexing.
const LITERAL: u8 = 0x00;
/// First byte of an indexed header.
const INDEXED: u8 = 0x80;

/// Writes one header block.
#[derive(Debug)]
pub struct HeaderWriter<'a> {
    block: &'a mut Vec<u8>,
}

impl<'a> HeaderWriter<'a> {
    pub(in crate::h2) const fn new(block: &'a mut Vec<u8>) -> Self {
        Self { block }
    }

    /// Adds a header: pseudo headers first, names in lower case.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        match static_index(name, value) {
            Indexed::Whole(index) => self.block.push(INDEXED | index),
            Indexed::Name(index) => {
                self.integer(LITERAL, 4, usize::from(index));
                self.text(value);
            }
            Indexed::No => {
                self.block.push(LITERAL);
                self.text(name);
                self.text(value);
            }
        }
    }

    fn text(&mut self, text: &[u8]) {
        self.integer(0, 7, text.len());
        self.block.extend_from_slice(text);
    }

    /// An integer with a prefix of some bits (RFC 7541, section 5.1).
    fn integer(&mut self, first: u8, bits: u8, value: usize) {
        let most = (1usize << bits) - 1;
        if value < most {
            return self.block.push(first | value as u8);
        }
        self.block.push(first | most as u8);
        let mut rest = value - most;
        while rest >= 0x80 {
            self.block.push(0x80 | (rest & 0x7f) as u8);
            rest >>= 7;
        }
        self.block.push(rest as u8);
    }
}
