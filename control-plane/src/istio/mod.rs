//! Stock Istio: the objects we write beside the user's, so that istiod configures its proxies for our protocols.

mod desired;

pub use desired::{Desired, DesiredKind};
