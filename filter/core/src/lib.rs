//! The words of Meltemi: everything a codec is made of, and nothing else.
//!
//! A [`Codec`] is one protocol. It opens a [`Connection`] for each side of a proxied connection; the connection finds
//! [`Frame`]s in bytes it borrows, lends their [`Metadata`], rewrites them with a [`Mutation`], and builds the
//! protocol's own error replies, heartbeats and drain signals. No threads, no sockets, no clock.
//!
//! Codec authors depend on the crate `meltemi`, which re-exports all of this and adds the export macro and a guide.

mod capabilities;
mod codec;
mod error;
mod failure;
mod frame;
mod limits;
mod metadata;
mod mutation;
mod options;
#[cfg(feature = "testing")]
pub mod testing;
mod ticket;
pub mod wire;

pub use capabilities::{Capabilities, MutationSupport, Ordering};
pub use codec::{Codec, CodecEntry, Connection, Peer, Probe};
pub use error::{DecodeError, DecodeErrorKind, EncodeError, Fault, OptionError};
pub use failure::{Failure, FailureKind};
pub use frame::{Decoded, Frame, FrameKind, Outcome, Rejected};
pub use limits::Limits;
pub use metadata::{HeaderWalk, Marks, Metadata};
pub use mutation::{Change, Mutation};
pub use options::{OptionDoc, Options};
pub use ticket::{InFlight, NothingInFlight, Ticket};
