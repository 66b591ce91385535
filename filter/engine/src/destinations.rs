//! Which connections a filter acts on, by where they go to. A mesh's listeners may share one table of thousands, which each
//! connection is looked up in.

use std::{collections::HashMap, net::IpAddr};

use crate::config::Destination;

/// A table of destinations; without any, all are meant.
#[derive(Debug, Default)]
pub struct Destinations(HashMap<Place, Entry>);

/// A port, of one address or of any.
type Place = (u16, Option<IpAddr>);

/// The `:authority` of a destination, if it has its own.
type Entry = Option<Box<str>>;

impl Destinations {
    /// Of two that are the same the first counts; an address counts before any.
    pub fn new(all: &[Destination]) -> Self {
        let mut places: HashMap<Place, Entry> = HashMap::new();
        for Destination { address, port, authority } in all {
            let place = (*port, address.map(|address| address.to_canonical()));
            places.entry(place).or_insert_with(|| authority.as_deref().map(Box::from));
        }
        Self(places)
    }

    /// None is named: all connections are meant.
    pub fn are_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether connections to this address are meant; `None`: the address is no IP, and meant only if all are.
    pub fn have(&self, address: Option<(IpAddr, u16)>) -> bool {
        self.are_all() || address.is_some_and(|(address, port)| self.find(address, port).is_some())
    }

    /// What the table has for an address: an `:authority`, or none of its own.
    pub fn find(&self, address: IpAddr, port: u16) -> Option<Option<&str>> {
        let entry = self.0.get(&(port, Some(address.to_canonical()))).or_else(|| self.0.get(&(port, None)))?;
        Some(entry.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: Option<&str>, port: u16, authority: &str) -> Destination {
        let authority = (!authority.is_empty()).then(|| authority.to_owned());
        Destination { address: address.map(|address| address.parse().unwrap()), port, authority }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_any_all_are_meant() {
        let all = Destinations::new(&[]);
        assert!(all.are_all() && all.have(None) && all.have(Some((ip("10.0.0.1"), 1))));
        assert_eq!(all.find(ip("10.0.0.1"), 1), None, "none has a name of its own");
    }

    #[test]
    fn address_and_port_are_both_looked_at() {
        let table = Destinations::new(&[
            to(None, 2, "any"),
            to(Some("10.0.0.1"), 1, "one"),
            to(Some("10.0.0.1"), 2, ""),
            to(Some("10.0.0.1"), 1, "late"),
            to(Some("fd00::1"), 1, "six"),
        ]);
        for (address, port, found) in [
            ("10.0.0.1", 1, Some(Some("one"))),
            ("::ffff:10.0.0.1", 1, Some(Some("one"))),
            ("fd00::1", 1, Some(Some("six"))),
            ("10.0.0.2", 1, None),
            ("10.0.0.1", 2, Some(None)),
            ("10.0.0.2", 2, Some(Some("any"))),
            ("10.0.0.1", 3, None),
        ] {
            assert_eq!(table.find(ip(address), port), found, "{address} {port}");
            assert_eq!(table.have(Some((ip(address), port))), found.is_some(), "{address} {port}");
        }
        assert!(!table.have(None), "an address that is no IP");
    }
}
