//! Our own route table: for connection mode, where Envoy's HTTP routes are not in the way.
//!
//! Compiled once from its configuration; the first route whose conditions all hold is taken.

mod bucket;
pub mod config;
mod matcher;
mod pattern;

use core::time::Duration;

use meltemi_core::{Metadata, Mutation};

use self::{bucket::Bucket, matcher::Matcher};
use crate::config::ConfigError;
use config::{ChangeConfig, ClusterConfig, RouteConfig};

/// Routes, ready to be asked.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Route>,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Nobody may call this.
    pub deny: bool,
    /// Changes of the request.
    pub request_mutation: Mutation,
    /// Changes of the reply.
    pub response_mutation: Mutation,
    matchers: Vec<Matcher>,
    clusters: Vec<ClusterConfig>,
    total_weight: u64,
    hash: Vec<String>,
    abort_millionths: u64,
    bucket: Option<Bucket>,
}

impl RouteTable {
    /// Compiles routes.
    ///
    /// # Errors
    /// If one is wrong; the message names its place.
    pub fn new(routes: &[RouteConfig]) -> Result<Self, ConfigError> {
        let mut compiled = Vec::with_capacity(routes.len());
        for (index, route) in routes.iter().enumerate() {
            let wrong = |error| ConfigError(format!("field `routes[{index}].{error}"));
            compiled.push(Route::new(route).map_err(wrong)?);
        }
        Ok(Self { routes: compiled })
    }

    /// The number of the route that takes a request.
    pub fn find(&self, metadata: &Metadata<'_>) -> Option<usize> {
        self.routes.iter().position(|route| route.matchers.iter().all(|matcher| matcher.matches(metadata)))
    }

    /// The number of the first route that asks for nothing.
    pub fn catch_all(&self) -> Option<usize> {
        self.routes.iter().position(|route| route.matchers.is_empty())
    }

    /// A route by its number.
    pub fn get(&self, index: usize) -> Option<&Route> {
        self.routes.get(index)
    }
}

impl Route {
    fn new(config: &RouteConfig) -> Result<Self, String> {
        let mut matchers = Vec::new();
        for (index, condition) in config.matches.iter().enumerate() {
            matchers.push(Matcher::new(condition).map_err(|error| format!("matches[{index}]`: {error}"))?);
        }
        let total_weight = config.clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
        if total_weight == 0 && !config.deny {
            return Err("clusters`: the weights add up to 0".to_owned());
        }
        // In order, each once.
        let mut hash: Vec<String> = Vec::new();
        for key in &config.hash {
            if let Err(place) = hash.binary_search(key) {
                hash.insert(place, key.clone());
            }
        }
        Ok(Self {
            name: config.name.clone(),
            deny: config.deny,
            request_mutation: mutation(&config.request_mutation),
            response_mutation: mutation(&config.response_mutation),
            matchers,
            clusters: config.clusters.clone(),
            total_weight,
            hash,
            abort_millionths: u64::from(config.abort_millionths),
            bucket: config.rate_limit.map(Bucket::new),
        })
    }

    /// The cluster for a request: by hash where the route has one and the request what is hashed, else by chance.
    pub fn cluster(&self, metadata: &Metadata<'_>, random: u64) -> Option<&str> {
        let point = self.hash_of(metadata).unwrap_or(random).checked_rem(self.total_weight)?;
        let mut sum = 0u64;
        let chosen = self.clusters.iter().find(|cluster| {
            sum = sum.saturating_add(u64::from(cluster.weight));
            point < sum
        });
        chosen.map(|cluster| cluster.name.as_str())
    }

    /// The request is one of those that fail on purpose.
    pub fn aborts(&self, random: u64) -> bool {
        random % 1_000_000 < self.abort_millionths
    }

    /// Takes a token, if there is a limit; `false` if there is none left.
    pub fn admits(&self, now: Duration) -> bool {
        self.bucket.as_ref().is_none_or(|bucket| bucket.take(now))
    }

    fn hash_of(&self, metadata: &Metadata<'_>) -> Option<u64> {
        if self.hash.is_empty() {
            return None;
        }
        let mut hash = FNV_OFFSET;
        let mut any = false;
        for key in &self.hash {
            let value = matcher::value(metadata, key);
            any |= value.is_some();
            // The length, so that no two lists of values look the same; none is not the empty value.
            let length = value.map_or(u64::MAX, |value| value.len() as u64);
            hash = fnv(fnv(hash, &length.to_be_bytes()), value.unwrap_or_default());
        }
        any.then(|| mix(hash))
    }
}

/// FNV-1a, 64 bits, of each value's length (big endian, 64 bits) and bytes, in the order of the sorted keys: fixed for all
/// builds and machines, so that every proxy sends the same value to the same place.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME))
}

/// Spreads the last bytes over all bits: the finalizer of SplitMix64.
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Parameters of FNV-1a (RFC 9923).
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

fn mutation(changes: &[ChangeConfig]) -> Mutation {
    let mut mutation = Mutation::new();
    for change in changes {
        match &change.value {
            Some(value) => mutation.set(change.key.as_bytes(), value.as_bytes()),
            None => mutation.remove(change.key.as_bytes()),
        }
    }
    mutation
}

#[cfg(test)]
mod tests;
