use core::ops::Range;

/// Header changes to apply when a frame is encoded again. Reusable: [`clear`](Self::clear) keeps the memory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mutation {
    text: Vec<u8>,
    changes: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: Range<usize>,
    value: Option<Range<usize>>,
}

/// One change of a [`Mutation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Give the header this value; add it where it is missing.
    Set(&'a [u8], &'a [u8]),
    /// Take the header out, if it is there.
    Remove(&'a [u8]),
}

impl<'a> Change<'a> {
    /// The name it is about.
    pub const fn name(&self) -> &'a [u8] {
        match self {
            Self::Set(name, _) | Self::Remove(name) => name,
        }
    }
}

impl Mutation {
    /// No changes.
    pub const fn new() -> Self {
        Self { text: Vec::new(), changes: Vec::new() }
    }

    /// Forgets all changes, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.changes.clear();
    }

    /// No changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Adds "set `name` to `value`".
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let name = self.push(name);
        let value = Some(self.push(value));
        self.changes.push(Entry { name, value });
    }

    /// Adds "remove `name`".
    pub fn remove(&mut self, name: &[u8]) {
        let name = self.push(name);
        self.changes.push(Entry { name, value: None });
    }

    /// The changes in the order they were added; each name at most once if the caller saw to it.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.changes.iter().map(|entry| {
            let name = self.at(&entry.name);
            match &entry.value {
                Some(value) => Change::Set(name, self.at(value)),
                None => Change::Remove(name),
            }
        })
    }

    /// The change for a name, compared byte by byte.
    pub fn get(&self, name: &[u8]) -> Option<Change<'_>> {
        self.iter().find(|change| change.name() == name)
    }

    fn push(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.text.len();
        self.text.extend_from_slice(bytes);
        start..self.text.len()
    }

    fn at(&self, range: &Range<usize>) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_in_order() {
        let mut mutation = Mutation::new();
        mutation.set(b"env", b"gray");
        mutation.remove(b"debug");
        let changes: Vec<_> = mutation.iter().collect();
        assert_eq!(changes, [Change::Set(b"env", b"gray"), Change::Remove(b"debug")]);
        assert_eq!(mutation.get(b"debug"), Some(Change::Remove(b"debug")));
        mutation.clear();
        assert!(mutation.is_empty());
    }
}
