//! Control plane of Meltemi: a source of objects → a model → a pure compile → a snapshot → xDS.

pub mod admin;
pub mod cli;
pub mod compile;
mod first_vm;
pub mod istio;
pub mod kubernetes;
pub mod last_good;
mod lines;
pub mod model;
pub mod problem;
pub mod snapshot;
pub mod source;
pub mod store;
pub mod xds;
