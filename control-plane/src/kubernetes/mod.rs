//! Kubernetes as the source of objects, and as the place where Istio's objects are written.
//!
//! ```text
//! watches → cache → last good → istio::compile ─┬→ store (xDS: every replica)
//!                                               ├→ writer ┐ only while
//!                                               └→ status ┘ we hold the lease
//! ```

mod cache;
mod carriers;
mod crd;
mod debounce;
mod events;
mod kinds;
mod lease;
mod listing;
mod live;
mod look;
mod others;
mod parse;
mod preflight;
mod remove;
mod reporter;
mod serve;
mod state;
mod status;
mod watches;
mod writer;

use crate::istio::MANAGED_BY;

pub use crd::crds_yaml;
pub use look::look;
pub use preflight::{Finding, Level, preflight};
pub use remove::Removal;
pub use serve::{Settings, client, serve, user_client};

/// Our name as the owner of fields, as the reporter of events, and in the lease.
const MANAGER: &str = "meltemi";
