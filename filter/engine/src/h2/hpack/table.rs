//! Static table (RFC 7541, appendix A) and the decoder's dynamic table.

use std::collections::VecDeque;

/// An entry's cost beside its bytes (RFC 7541, section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// What a peer may use as long as it has not seen our `SETTINGS_HEADER_TABLE_SIZE`.
const DEFAULT_SIZE: usize = 4096;

/// The decoder's dynamic table, newest entry first.
#[derive(Debug)]
pub(super) struct DynamicTable {
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    size: usize,
    max: usize,
}

impl DynamicTable {
    pub(super) const fn new() -> Self {
        Self { entries: VecDeque::new(), size: 0, max: DEFAULT_SIZE }
    }

    /// The peer chose another size; `false` if it is more than it may choose.
    pub(super) fn resize(&mut self, max: usize) -> bool {
        if max > DEFAULT_SIZE {
            return false;
        }
        self.max = max;
        self.evict(max);
        true
    }

    /// Nothing can be in it.
    pub(super) fn is_off(&self) -> bool {
        self.max == 0
    }

    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let cost = cost(name, value);
        if cost > self.max {
            return self.evict(0);
        }
        self.evict(self.max.saturating_sub(cost));
        self.size = self.size.saturating_add(cost);
        self.entries.push_front((name.to_vec(), value.to_vec()));
    }

    fn evict(&mut self, down_to: usize) {
        while self.size > down_to {
            let Some((name, value)) = self.entries.pop_back() else { break };
            self.size = self.size.saturating_sub(cost(&name, &value));
        }
    }

    /// The entry with an index as it stands on the wire: static entries first, counted from 1.
    pub(super) fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)?;
        if let Some(entry) = STATIC.get(index) {
            return Some(*entry);
        }
        let (name, value) = self.entries.get(index.checked_sub(STATIC.len())?)?;
        Some((name, value))
    }
}

fn cost(name: &[u8], value: &[u8]) -> usize {
    name.len().saturating_add(value.len()).saturating_add(ENTRY_OVERHEAD)
}

/// The static table's index of a header that we write: the whole header, or its name alone.
pub(super) fn static_index(name: &[u8], value: &[u8]) -> Indexed {
    let (first, last) = match name {
        b":authority" => (1, 1),
        b":method" => (2, 3),
        b":path" => (4, 5),
        b":scheme" => (6, 7),
        b":status" => (8, 14),
        b"content-length" => (28, 28),
        b"content-type" => (31, 31),
        _ => return Indexed::No,
    };
    (first..=last)
        .find(|index| STATIC.get(usize::from(index - 1)).is_some_and(|(_, known)| *known == value))
        .map_or(Indexed::Name(first), Indexed::Whole)
}

/// Answer of [`static_index`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Indexed {
    Whole(u8),
    Name(u8),
    No,
}

#[rustfmt::skip]
const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_of_the_static_search_has_one_name() {
        for name in
            [&b":authority"[..], b":method", b":path", b":scheme", b":status", b"content-length", b"content-type"]
        {
            let known: Vec<usize> = (0..STATIC.len()).filter(|index| STATIC[*index].0 == name).collect();
            for index in &known {
                assert_eq!(static_index(name, STATIC[*index].1), Indexed::Whole(*index as u8 + 1));
            }
            assert_eq!(static_index(name, b"no such value"), Indexed::Name(known[0] as u8 + 1));
        }
    }

    #[test]
    fn old_entries_make_room() {
        let mut table = DynamicTable::new();
        table.resize(100);
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        table.insert(b"c", b"3");
        assert_eq!(table.entry(62), Some((&b"c"[..], &b"3"[..])));
        assert_eq!(table.entry(63), Some((&b"b"[..], &b"2"[..])));
        assert_eq!(table.entry(64), None);
        table.insert(&[b'x'; 100], b"");
        assert_eq!(table.entry(62), None);
        assert!(!table.resize(DEFAULT_SIZE + 1));
    }

    #[test]
    fn a_smaller_table_forgets_at_once() {
        let mut table = DynamicTable::new();
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        assert!(table.resize(40) && table.resize(DEFAULT_SIZE));
        assert_eq!((table.entry(62), table.entry(63)), (Some((&b"b"[..], &b"2"[..])), None));
    }
}
