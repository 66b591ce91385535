//! Headers in the infos of THeader and TTHeader frames: reading them in place, writing them changed.

use meltemi::{Change, EncodeError, Mutation};

/// One header that a frame has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) key: Key<'a>,
    pub(super) value: &'a [u8],
}

impl Entry<'_> {
    /// Bytes of name and value.
    pub(super) const fn size(&self) -> usize {
        let name = match self.key {
            Key::Text(name) | Key::Persistent(name) => name.len(),
            Key::Integer(_) => size_of::<u16>(),
        };
        name.saturating_add(self.value.len())
    }
}

/// Where a header stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// THeader info 1, TTHeader info `0x01`.
    Text(&'a [u8]),
    /// THeader info 2.
    Persistent(&'a [u8]),
    /// TTHeader info `0x10`.
    Integer(u16),
}

/// What a section of infos looks like after a mutation: `section` writes one entry.
pub(super) struct Changed<'m> {
    mutation: &'m Mutation,
}

impl<'m> Changed<'m> {
    pub(super) const fn new(mutation: &'m Mutation) -> Self {
        Self { mutation }
    }

    /// The value of a header after the mutation; `None` if it was taken out.
    pub(super) fn value<'a>(&'a self, name: &[u8], old: &'a [u8]) -> Option<&'a [u8]> {
        match self.mutation.get(name) {
            Some(Change::Set(_, value)) => Some(value),
            Some(Change::Remove(_)) => None,
            None => Some(old),
        }
    }

    /// Headers that are set and that the frame, whose names `has` knows, does not have yet.
    pub(super) fn added(&self, has: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.mutation.iter().filter_map(move |change| match change {
            Change::Set(name, value) if !has(name) => Some((name, value)),
            _ => None,
        })
    }
}

/// Pads the infos to whole words and writes how many there are. Both formats count words of four bytes in the two bytes
/// at `words_at`, from `start`.
pub(super) fn close(out: &mut Vec<u8>, start: usize, words_at: usize) -> Result<(), EncodeError> {
    let too_large = EncodeError::TooLarge("headers of the frame");
    while !out.len().saturating_sub(start).is_multiple_of(4) {
        out.push(0);
    }
    let words = u16::try_from(out.len().saturating_sub(start) / 4).map_err(|_| too_large)?;
    let at = out.get_mut(words_at..words_at.saturating_add(2)).ok_or(too_large)?;
    at.copy_from_slice(&words.to_be_bytes());
    Ok(())
}

/// Writes the frame's length, which does not count itself, in the four bytes at `at`.
pub(super) fn close_frame(out: &mut [u8], at: usize) -> Result<(), EncodeError> {
    let too_large = EncodeError::TooLarge("frame");
    let length = out.len().saturating_sub(at).saturating_sub(4);
    let length = i32::try_from(length).map_err(|_| too_large)?;
    out.get_mut(at..at.saturating_add(4)).ok_or(too_large)?.copy_from_slice(&length.to_be_bytes());
    Ok(())
}
