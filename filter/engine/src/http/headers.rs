use core::ops::Range;

use crate::h2;

/// HTTP headers that a host can show one by one.
pub trait HeaderSource {
    /// Visits every header, pseudo headers included, names in lower case.
    fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8]));
}

/// Headers in one piece of memory that is used again and again.
#[derive(Debug, Default)]
pub struct HeaderStore {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: Range<usize>,
    value: Range<usize>,
    /// A header of the frame was found that this one stands for.
    seen: bool,
}

impl HeaderStore {
    /// No headers.
    pub const fn new() -> Self {
        Self { text: Vec::new(), entries: Vec::new() }
    }

    /// Forgets all headers, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.entries.clear();
    }

    /// Number of headers.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No headers.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all names and values.
    pub fn byte_len(&self) -> usize {
        self.text.len()
    }

    /// Adds a header.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_with(|text| text.extend_from_slice(name), |text| text.extend_from_slice(value));
    }

    /// Adds a header whose name and value are appended by functions.
    pub fn push_with(&mut self, name: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len();
        name(&mut self.text);
        let middle = self.text.len();
        value(&mut self.text);
        self.entries.push(Entry { name: start..middle, value: middle..self.text.len(), seen: false });
    }

    /// The headers in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|entry| (self.at(&entry.name), self.at(&entry.value)))
    }

    /// Finds the header of this name, the one with this very value if there are several, and marks it as seen.
    /// `Some(None)` if name and value are there; `Some(Some(other))` if only the name is.
    pub(crate) fn see(&mut self, name: impl Fn(&[u8]) -> bool, value: impl Fn(&[u8]) -> bool) -> Option<Option<&[u8]>> {
        let Self { text, entries } = self;
        let at = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
        let mut other = None;
        for (index, entry) in entries.iter_mut().enumerate() {
            if !name(at(&entry.name)) {
                continue;
            }
            if value(at(&entry.value)) {
                entry.seen = true;
                return Some(None);
            }
            other = other.or(Some(index));
        }
        let entry = entries.get_mut(other?)?;
        entry.seen = true;
        Some(text.get(entry.value.clone()))
    }

    /// The headers that [`see`](Self::see) did not find.
    pub(crate) fn unseen(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().filter(|entry| !entry.seen).map(|entry| (self.at(&entry.name), self.at(&entry.value)))
    }

    fn at(&self, range: &Range<usize>) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }
}

impl HeaderSource for h2::Headers<'_> {
    fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in self.iter() {
            visit(name, value);
        }
    }
}

impl HeaderSource for HeaderStore {
    fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (name, value) in self.iter() {
            visit(name, value);
        }
    }
}
