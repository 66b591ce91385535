//! Our own route table: for connection mode, where Envoy's HTTP routes are not in the way.
//!
//! Compiled once from its configuration; the first route whose conditions all hold is taken.

mod bucket;
pub mod config;
mod matcher;

use std::hash::{DefaultHasher, Hash, Hasher};

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
        let compile = |(index, route): (usize, &RouteConfig)| {
            Route::new(route).map_err(|error| ConfigError(format!("field `routes[{index}].{error}")))
        };
        Ok(Self { routes: routes.iter().enumerate().map(compile).collect::<Result<_, _>>()? })
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
        Ok(Self {
            name: config.name.clone(),
            deny: config.deny,
            request_mutation: mutation(&config.request_mutation),
            response_mutation: mutation(&config.response_mutation),
            matchers,
            clusters: config.clusters.clone(),
            total_weight,
            hash: config.hash.clone(),
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
        // Fixed keys: every proxy sends the same value to the same place.
        let mut hasher = DefaultHasher::new();
        let mut any = false;
        for key in &self.hash {
            let value = matcher::value(metadata, key);
            any |= value.is_some();
            value.hash(&mut hasher);
        }
        any.then(|| hasher.finish())
    }
}

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
