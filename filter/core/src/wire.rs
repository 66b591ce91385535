//! Checked reading and writing of wire integers, for codecs.

use crate::DecodeError;

/// A cursor over borrowed bytes. Reading past the end is [`Short`], never a panic.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
}

/// There are not enough bytes: this many more are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short {
    /// Bytes missing (≥ 1).
    pub needed: usize,
}

impl Short {
    /// As an error, for bytes of which no more will come.
    pub const fn malformed(self, reason: &'static str, offset: usize) -> DecodeError {
        DecodeError::malformed(reason, offset)
    }
}

macro_rules! integers {
    ($($name:ident $type:ident $from:ident, $doc:literal;)*) => {$(
        #[doc = $doc]
        pub fn $name(&mut self) -> Result<$type, Short> {
            let mut raw = [0; size_of::<$type>()];
            raw.copy_from_slice(self.take(size_of::<$type>())?);
            Ok($type::$from(raw))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// Reads from `position`, or from the end if it lies beyond.
    pub fn at(bytes: &'a [u8], position: usize) -> Self {
        Self { bytes, position: position.min(bytes.len()) }
    }

    /// Bytes read so far.
    pub const fn position(&self) -> usize {
        self.position
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.position)
    }

    /// What is left, without reading it.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let left = self.remaining();
        let end = self.position.checked_add(n).ok_or(Short { needed: n })?;
        let taken = self.bytes.get(self.position..end).ok_or(Short { needed: n.saturating_sub(left).max(1) })?;
        self.position = end;
        Ok(taken)
    }

    /// Passes over `n` bytes.
    pub fn skip(&mut self, n: usize) -> Result<(), Short> {
        self.take(n).map(|_| ())
    }

    /// The next byte, without reading it.
    pub fn peek(&self) -> Result<u8, Short> {
        self.rest().first().copied().ok_or(Short { needed: 1 })
    }

    integers! {
        u8 u8 from_be_bytes, "One byte.";
        u16 u16 from_be_bytes, "Big-endian `u16`.";
        u32 u32 from_be_bytes, "Big-endian `u32`.";
        u64 u64 from_be_bytes, "Big-endian `u64`.";
        i16 i16 from_be_bytes, "Big-endian `i16`.";
        i32 i32 from_be_bytes, "Big-endian `i32`.";
        i64 i64 from_be_bytes, "Big-endian `i64`.";
        u16_le u16 from_le_bytes, "Little-endian `u16`.";
        u32_le u32 from_le_bytes, "Little-endian `u32`.";
        u64_le u64 from_le_bytes, "Little-endian `u64`.";
    }

    /// A base-128 varint, least significant group first (protobuf, Thrift compact): at most ten bytes. `Ok(None)` is a
    /// varint that does not end or does not fit.
    pub fn varint(&mut self) -> Result<Option<u64>, Short> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return Ok(None);
            }
            value |= group.checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// Appends a base-128 varint, as [`Reader::varint`] reads it.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_reads_say_how_much_is_missing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u32(), Err(Short { needed: 3 }));
        assert_eq!(reader.position(), 2);
        assert_eq!(reader.take(usize::MAX), Err(Short { needed: usize::MAX }));
    }

    #[test]
    fn varints() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(Reader::new(&out).varint(), Ok(Some(value)));
        }
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Ok(None));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(Short { needed: 1 }));
    }
}
