//! Metadata as HTTP headers and back: what inlet and outlet have in common.

mod headers;
mod local_reply;
mod metadata;

pub use headers::{HeaderSource, HeaderStore};
pub(crate) use local_reply::failure_kind;
pub(crate) use metadata::{PassHeaders, candidates, diff, represent};
