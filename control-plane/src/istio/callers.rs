//! What the callers of single ports get, all of it in a few objects. An object for each port would cost the square of their
//! number: istiod has the names of all of a proxy's in what it remembers each of its clusters by.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::{
    Desired, Facts,
    parts::Parts,
    patch::{self, Side},
    ports::MeshPort,
    runner::Proxies,
};
use crate::compile::Host;

/// Patches for the callers of ports.
#[derive(Debug, Default)]
pub(super) struct Callers<'p>(Vec<Caller<'p>>);

#[derive(Debug)]
struct Caller<'p> {
    port: &'p MeshPort<'p>,
    runner: Host,
    label: (&'static str, &'static str),
    patches: Vec<Value>,
}

/// The objects, and the names of those that a port is in, by its key.
pub(super) type Objects<'p> = (Vec<Desired>, HashMap<(&'p str, u16), Vec<String>>);

impl<'p> Callers<'p> {
    /// Adds patches for those callers of a port whose proxies run our filters so.
    pub(super) fn add(&mut self, port: &'p MeshPort<'p>, runner: &Host, proxies: Proxies, mut patches: Vec<Value>) {
        patch::limit(&mut patches, proxies);
        if !patches.is_empty() {
            self.0.push(Caller { port, runner: runner.clone(), label: proxies.label, patches });
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets all but so many.
    pub(super) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// What the filters of all but so many are called, of which a proxy must not have two.
    pub(super) fn names(&self, after: usize) -> impl Iterator<Item = String> {
        self.0.iter().skip(after).map(|caller| caller.port.extension_name(&caller.runner, "*", Side::Client))
    }

    /// The objects, for all callers.
    pub(super) fn objects(self, facts: &Facts) -> Objects<'p> {
        let mut groups: BTreeMap<String, Vec<Caller<'p>>> = BTreeMap::new();
        for caller in self.0 {
            let name = format!("meltemi-{}out", caller.runner.word().replace('.', "-"));
            groups.entry(name).or_default().push(caller);
        }
        let (mut objects, mut of_ports): Objects<'p> = (Vec::new(), HashMap::new());
        for (prefix, group) in groups {
            let bytes = group.iter().flat_map(|caller| &caller.patches).map(|patch| patch.to_string().len()).sum();
            let parts = Parts::of(bytes);
            let mut by_name: BTreeMap<String, (_, Vec<Value>)> = BTreeMap::new();
            for caller in group {
                let name = parts.name(&prefix, caller.port);
                of_ports.entry(caller.port.key()).or_default().push(name.clone());
                by_name.entry(name).or_insert((caller.label, Vec::new())).1.extend(caller.patches);
            }
            objects.extend(by_name.into_iter().map(|(name, (label, patches))| {
                patch::selecting(label, &facts.root_namespace, name, None, &BTreeMap::new(), patches)
            }));
        }
        (objects, of_ports)
    }
}
