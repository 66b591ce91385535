//! The last good version of every object, whatever source it comes from. Pure: no files, no clock.
//!
//! A version is good if the model it is in compiles without an error in it. Where the newest version of an object is
//! wrong, its last good one is compiled instead. Where it is right by itself but makes an object wrong that was good and
//! did not change (a subset that goes away while a route needs it, a name or port that is taken already), the newcomer is
//! the one that has to wait.

mod settle;

use std::collections::HashMap;

use crate::{
    compile::{Compiled, Host, compile},
    model::{AnyObject, Model, check_annotations},
    problem::{Key, Problem, Severity},
};

use settle::Settling;

/// Remembers what was good.
#[derive(Debug, Default)]
pub struct LastGood {
    good: HashMap<Key, AnyObject>,
    /// When each object was first seen: of two that are in each other's way, the older one stays.
    seen: HashMap<Key, u64>,
    next: u64,
}

/// What is served of the newest model.
#[derive(Debug, Default)]
pub struct Served {
    /// The model that was compiled.
    pub model: Model,
    /// What it was compiled to. Its problems are in `problems`.
    pub compiled: Compiled,
    /// What is wrong with the newest objects, also with those that are not served.
    pub problems: Vec<Problem>,
}

/// Compiles a model and finds all that is wrong with it.
pub fn judge(model: &Model, host: &Host) -> Compiled {
    let mut compiled = compile(model, host);
    compiled.problems.extend(check_annotations(model));
    compiled
}

impl LastGood {
    /// Starts with objects that were good before, oldest first.
    pub fn from_objects(objects: impl IntoIterator<Item = AnyObject>) -> Self {
        let mut last = Self::default();
        for object in objects {
            let key = object.key();
            last.see(&key);
            last.good.insert(key, object);
        }
        last
    }

    /// The last good versions, oldest objects first.
    pub fn objects(&self) -> Vec<&AnyObject> {
        let mut all: Vec<(&Key, &AnyObject)> = self.good.iter().collect();
        all.sort_by_key(|(key, _)| self.seen.get(*key));
        all.into_iter().map(|(_, object)| object).collect()
    }

    /// The last good version of an object.
    pub fn good(&self, key: &Key) -> Option<&AnyObject> {
        self.good.get(key)
    }

    /// Takes the newest model. An object that is not in it is gone.
    pub fn take(&mut self, newest: Model, judge: impl Fn(&Model) -> Compiled) -> Served {
        let newest: Vec<AnyObject> = newest.into_objects().collect();
        let keys: Vec<Key> = newest.iter().map(AnyObject::key).collect();
        for key in &keys {
            self.see(key);
        }
        let present: std::collections::HashSet<&Key> = keys.iter().collect();
        self.good.retain(|key, _| present.contains(key));
        self.seen.retain(|key, _| present.contains(key));
        let candidates = newest.into_iter().map(|object| {
            let key = object.key();
            let seen = self.seen.get(&key).copied().unwrap_or(u64::MAX);
            (seen, object, self.good.get(&key).cloned())
        });
        let settled = Settling::new(candidates, &judge).settle();
        for object in settled.good {
            self.good.insert(object.key(), object);
        }
        Served { model: settled.model, compiled: settled.compiled, problems: settled.problems }
    }

    fn see(&mut self, key: &Key) {
        if !self.seen.contains_key(key) {
            self.seen.insert(key.clone(), self.next);
            self.next = self.next.saturating_add(1);
        }
    }
}

fn is_error(problem: &Problem) -> bool {
    problem.severity == Severity::Error
}

#[cfg(test)]
mod tests;
