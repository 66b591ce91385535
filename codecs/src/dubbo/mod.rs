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
//! | other | not looked into | no | no | hessian2 string, with hessian2's number |
//!
//! Headers of a call are the attachments whose values are text or booleans, by their own names; the service's `version`
//! from the body where no attachment says it; `parameter-types`, the descriptor of the parameters, except for generic
//! calls; and `serialization`, the name of the encoding (`hessian2`, `fastjson2`, …) or its number. A generic call
//! (`$invoke`, `$invokeAsync`) has the method that it names in its first argument.
//!
//! Calls whose body is not looked into have no service, no method and no header but `serialization`: only routes that
//! match everything take them. Where rules must not be passed by, the option `serializations` names the encodings that
//! are taken; others are answered with status 40.
//!
//! A server takes path, version and group from the attachments. So that it cannot be told other than the rules are, a
//! call is answered with status 40 if its attachments name another path than its body, if a name comes twice (in any
//! case), or if a name or a text in them is not there in one piece: hessian2 strings in chunks, which are longer than 32
//! Ki characters, JSONB symbols, ASCII in UTF-16. Numbers and objects in attachments are passed on but not shown.
//!
//! Values are shown as the bytes on the wire, which are not always UTF-8. Hessian2 writes characters beyond the first
//! plane (emoji) as two halves of three bytes each; JSONB writes Latin-1 (`é`) in one byte a character and much else
//! (`漢`) in UTF-16. A rule with such characters in it does not match there; one for presence does.
//!
//! A mutation that sets `path` or `version` sets it in the body as well. They cannot be taken out; `parameter-types` and
//! `serialization` cannot be changed.
//!
//! Sources: the Dubbo protocol pages of dubbo.apache.org, the Hessian 2.0 draft specification, captures of Java Dubbo
//! 3.3.6, and hessian2 and JSONB values as its writers make them. The protobuf layout is that of Dubbo's own
//! `dubbo-serialization-protobuf`; no capture backs it.

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
    Capabilities, Codec, CodecEntry, Connection, Limits, MutationSupport, OptionDoc, OptionError, Options, Ordering,
    Peer, Probe,
};

use self::{connection::DubboConnection, header::MAGIC};

/// The codec's entry for hosts.
pub const ENTRY: CodecEntry = CodecEntry {
    name: "dubbo",
    summary: "Dubbo2: hessian2, fastjson2 and protobuf bodies; other bodies are passed on unseen",
    options: &[SERIALIZATIONS],
    service_aliases: &["interface"],
    build: |options| Ok(Box::new(Dubbo::new(options)?)),
};

/// How often Java consumers send a heartbeat on a quiet connection; providers close after three times as long.
const HEARTBEAT: Duration = Duration::from_secs(60);

const SERIALIZATIONS: OptionDoc = OptionDoc {
    name: "serializations",
    values: &[],
    help: "the encodings of calls that are taken, names or numbers separated by commas (`hessian2,fastjson2`); calls in \
           others, whose service and attachments may not be seen, are answered as a bad request; default: all",
};

/// The codec with its options.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Dubbo {
    /// One bit for each number of a serialization whose calls are taken.
    serializations: u32,
}

impl Dubbo {
    /// Reads the options.
    ///
    /// # Errors
    /// If one is unknown or has a value that it does not take.
    pub fn new(options: &Options) -> Result<Self, OptionError> {
        options.check_names(ENTRY.options)?;
        let Some(listed) = options.0.get(SERIALIZATIONS.name) else { return Ok(Self { serializations: u32::MAX }) };
        let mut serializations = 0u32;
        for name in listed.split(',').map(str::trim) {
            let number = header::serialization_number(name).ok_or_else(|| OptionError {
                name: SERIALIZATIONS.name.to_owned(),
                reason: format!("`{name}` is no serialization of Dubbo, nor a number up to 31"),
            })?;
            serializations |= 1u32.checked_shl(u32::from(number)).unwrap_or(0);
        }
        Ok(Self { serializations })
    }

    /// Whether calls in this serialization are taken.
    const fn takes(self, serialization: u8) -> bool {
        (self.serializations >> (serialization & 0x1f)) & 1 == 1
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
        Box::new(DubboConnection::new(peer, *limits, *self))
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
