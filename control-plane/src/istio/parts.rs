//! How many objects what belongs together is in, and which of them a port is in: as few as their size allows, as istiod goes
//! through all objects of a proxy for everything that it makes for it.

use super::ports::MeshPort;
use crate::snapshot::version_of;

/// Bytes of an object, about: the API server takes no more than 1.5 MiB.
const MOST_BYTES: usize = 700_000;

/// A number of objects. Twice as many when they have become too large: each then gives half of its own to a new one, and the
/// others are not touched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts(u64);

impl Parts {
    /// For so many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self(bytes.div_ceil(MOST_BYTES).max(1).next_power_of_two() as u64)
    }

    /// The name of the object that a port is in, whatever other ports there are.
    pub(super) fn name(self, prefix: &str, port: &MeshPort<'_>) -> String {
        match u64::from_str_radix(&version_of(&port.host), 16).unwrap_or_default() % self.0 {
            0 => prefix.to_owned(),
            more => format!("{prefix}-{more}"),
        }
    }
}
