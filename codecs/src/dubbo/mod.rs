//! Dubbo2, the protocol of `dubbo://` addresses.
//!
//! A frame is a header of 16 bytes (`DA BB`, flags, status, `id:u64`, `length:u32`, all big-endian) and a body whose
//! encoding the low five bits of the flags name:
//!
//! | number | encoding | service, method, types | attachments | status replies |
//! |---|---|---|---|---|
//! | 2 | hessian2 | yes | read, changed | hessian2 string |
//! | 23 | fastjson2 (JSONB items with a length) | yes | read and changed if they are an untyped object | JSONB string |
//! | 22 | protobuf (delimited messages) | yes | read, changed | `StringValue` |
//! | 6, 16, 21 | JSON lines (fastjson, gson, protobuf-json) | no | no | JSON string |
//! | other | not looked into | no | no | no text |
//!
//! Calls whose body is not looked into have empty metadata: only routes that match everything take them. Headers are
//! the attachments whose values are text or booleans, by their own names; the service's `version` from the body where
//! no attachment says it; and `parameter-types`, the descriptor of the parameters, except for generic calls. A generic
//! call (`$invoke`, `$invokeAsync`) has the method that it names in its first argument.
//!
//! Text that cannot be lent as one piece of the frame (hessian2 strings in chunks, which are longer than 32 Ki
//! characters, and JSONB strings in UTF-16) is passed on but not shown. Numbers in attachments neither.
//!
//! Sources: the Dubbo protocol pages of dubbo.apache.org, the Hessian 2.0 draft specification, and captures of Java
//! Dubbo 3.3.6. The protobuf layout is that of Dubbo's own `dubbo-serialization-protobuf`; no capture backs it.

mod attachments;
mod body;
mod connection;
mod header;
mod hessian;
mod jsonb;
mod protobuf;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod text;

use core::time::Duration;

use meltemi::{
    Capabilities, Codec, CodecEntry, Connection, Limits, MutationSupport, OptionError, Options, Ordering, Peer, Probe,
};

use self::{connection::DubboConnection, header::MAGIC};

/// The codec's entry for hosts.
pub const ENTRY: CodecEntry = CodecEntry {
    name: "dubbo",
    summary: "Dubbo2: hessian2, fastjson2 and protobuf bodies; other bodies are passed on unseen",
    options: &[],
    service_aliases: &["interface"],
    build: |options| Ok(Box::new(Dubbo::new(options)?)),
};

/// How often Java consumers send a heartbeat on a quiet connection; providers close after three times as long.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// The codec. It has no options.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Dubbo {}

impl Dubbo {
    /// Makes the codec.
    ///
    /// # Errors
    /// If there is an option: there are none to set.
    pub fn new(options: &Options) -> Result<Self, OptionError> {
        options.check_names(ENTRY.options)?;
        Ok(Self {})
    }
}

impl Codec for Dubbo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(Ordering::Multiplexed);
        capabilities.request_mutation = MutationSupport::Headers;
        capabilities.reply_mutation = MutationSupport::Headers;
        capabilities.rewrites_id = true;
        capabilities.one_way = true;
        capabilities.heartbeat = true;
        capabilities.upstream_heartbeat = Some(HEARTBEAT);
        capabilities.drain_signal = true;
        capabilities
    }

    fn connect(&self, peer: Peer, limits: &Limits) -> Box<dyn Connection> {
        Box::new(DubboConnection::new(peer, *limits))
    }

    fn probe(&self, head: &[u8]) -> Probe {
        if !head.iter().zip(&MAGIC).all(|(got, want)| got == want) {
            return Probe::NoMatch;
        }
        match MAGIC.len().checked_sub(head.len()) {
            None | Some(0) => Probe::Match,
            Some(missing) => Probe::NeedMore(missing),
        }
    }
}
