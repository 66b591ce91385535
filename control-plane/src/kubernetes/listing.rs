use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

/// What one watch has told so far. A list that is on its way replaces the old one when it is whole, so that nothing is
/// missed for a moment.
#[derive(Debug)]
pub(super) struct Listing<V> {
    complete: bool,
    entries: BTreeMap<Key, V>,
    arriving: BTreeMap<Key, V>,
}

/// Namespace (empty for kinds of a cluster) and name.
pub(super) type Key = (String, String);

impl<V> Default for Listing<V> {
    fn default() -> Self {
        Self { complete: false, entries: BTreeMap::new(), arriving: BTreeMap::new() }
    }
}

impl<V: PartialEq> Listing<V> {
    /// Takes an event; whether it changed anything, by `same`.
    pub(super) fn take(&mut self, event: Event<(Key, V)>, same: impl Fn(&V, &V) -> bool) -> bool {
        match event {
            Event::Init => {
                self.arriving.clear();
                false
            }
            Event::InitApply((key, value)) => {
                self.arriving.insert(key, value);
                false
            }
            Event::InitDone => {
                let new = std::mem::take(&mut self.arriving);
                let equal = self.complete
                    && new.len() == self.entries.len()
                    && new.iter().all(|(key, value)| self.entries.get(key).is_some_and(|old| same(old, value)));
                self.entries = new;
                self.complete = true;
                !equal
            }
            Event::Apply((key, value)) => {
                let equal = self.entries.get(&key).is_some_and(|old| same(old, &value));
                self.entries.insert(key, value);
                !equal
            }
            Event::Delete((key, _)) => self.entries.remove(&key).is_some(),
        }
    }

    /// The kind is not installed: there is nothing of it, and that is all.
    pub(super) fn absent(&mut self) -> bool {
        let changed = !self.complete || !self.entries.is_empty();
        self.entries.clear();
        self.complete = true;
        changed
    }

    /// Everything was told once.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) const fn entries(&self) -> &BTreeMap<Key, V> {
        &self.entries
    }

    /// What is known of an object, also of a list that is on its way.
    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.entries.get(key)
    }

    /// What a write came back with.
    pub(super) fn put(&mut self, key: Key, value: V) {
        self.entries.insert(key, value);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, value: u32) -> (Key, u32) {
        (("a".to_owned(), name.to_owned()), value)
    }

    #[test]
    fn a_list_replaces_the_old_one_when_it_is_whole() {
        let mut listing = Listing::default();
        let mut take = |event| listing.take(event, u32::eq);
        assert!(!take(Event::Init) && !take(Event::InitApply(object("x", 1))));
        assert!(take(Event::InitDone), "the first list is a change");
        assert!(take(Event::Apply(object("y", 1))) && !take(Event::Apply(object("y", 1))));
        // A watch was lost, and with it the news that x is gone.
        assert!(!take(Event::Init) && !take(Event::InitApply(object("y", 1))));
        assert_eq!(listing.entries().len(), 2, "the old list stands until the new one is whole");
        assert!(listing.take(Event::InitDone, u32::eq));
        assert_eq!(listing.entries().len(), 1);
        let mut take = |event| listing.take(event, u32::eq);
        assert!(!take(Event::Init) && !take(Event::InitApply(object("y", 1))) && !take(Event::InitDone));
        assert!(take(Event::Delete(object("y", 1))) && !take(Event::Delete(object("y", 1))));
    }

    #[test]
    fn an_empty_first_list_is_a_change() {
        let mut listing = Listing::<u32>::default();
        assert!(!listing.is_complete());
        assert!(!listing.take(Event::Init, u32::eq) && listing.take(Event::InitDone, u32::eq));
        assert!(listing.is_complete() && !listing.absent());
        assert!(Listing::<u32>::default().absent());
    }
}
