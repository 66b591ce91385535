//! Apache Thrift: framed, unframed, THeader and TTHeader transports; binary (strict and old) and compact protocols.
//!
//! | transport | frame | correlation | headers |
//! |---|---|---|---|
//! | framed | `len:u32`, message | in order | none |
//! | unframed | message: its end is found by walking the struct | in order | none |
//! | THeader | `len:u32`, `0F FF`, flags, `seq:u32`, words, infos, message | sequence number | infos 1 and 2 |
//! | TTHeader | `len:u32`, `10 00`, flags, `seq:u32`, words, infos, message | sequence number | string and known integer infos |
//!
//! The id of a call is the sequence number of its message. Header frames have one of their own, in which servers repeat the
//! message's; where a client's two differ, the reply has the message's in both.
//!
//! Requests that are not taken are answered as far as they can be read: with the method, and with no answer if they are
//! one-way calls. Behind an unframed one nothing more can be read, and its connection ends. A header frame whose protocol or
//! transform we do not know is answered as a call.
//!
//! Sources: the Thrift specifications (`thrift-rpc`, `thrift-binary-protocol`, `thrift-compact-protocol`, `HeaderFormat`)
//! and captures of Apache Thrift for Python and Node; for TTHeader the CloudWeGo documents and captures.

mod connection;
mod detect;
mod infos;
mod message;
mod refuse;
mod reply;
mod rewrite;
mod skip;
#[cfg(test)]
mod tests;
mod theader;
mod ttheader;

use std::sync::Arc;

use meltemi::{
    Capabilities, Codec, CodecEntry, Connection, Limits, MutationSupport, OptionDoc, OptionError, Options, Ordering,
    Peer, Probe,
};

use self::{
    connection::ThriftConnection,
    detect::{Detected, Transport},
    message::Protocol,
};

/// The codec's entry for hosts.
pub const ENTRY: CodecEntry = CodecEntry {
    name: "thrift",
    summary: "Apache Thrift: framed, unframed, THeader, TTHeader; binary and compact",
    options: &[TRANSPORT, PROTOCOL, SERVICE],
    service_aliases: &[],
    build: |options| Ok(Box::new(Thrift::new(options)?)),
};

const TRANSPORT: OptionDoc = OptionDoc {
    name: "transport",
    values: &["auto", "framed", "unframed", "header", "ttheader"],
    help: "what surrounds a message; `auto` looks at the first bytes of each message",
};
const PROTOCOL: OptionDoc = OptionDoc {
    name: "protocol",
    values: &["auto", "binary", "compact"],
    help: "how a message is written; `auto` looks at each message",
};
const SERVICE: OptionDoc = OptionDoc {
    name: "service",
    values: &[],
    help: "the service of calls that do not name one (only multiplexed calls and TTHeader do); any text",
};

/// The codec with its options.
#[derive(Debug, Clone)]
pub struct Thrift {
    /// `None`: detected.
    transport: Option<Transport>,
    /// `None`: detected.
    protocol: Option<Protocol>,
    service: Arc<str>,
}

impl Thrift {
    /// Reads the options.
    ///
    /// # Errors
    /// If one is unknown or has a value that it does not take.
    pub fn new(options: &Options) -> Result<Self, OptionError> {
        options.check_names(ENTRY.options)?;
        Ok(Self {
            transport: match options.choice(&TRANSPORT)? {
                "framed" => Some(Transport::Framed),
                "unframed" => Some(Transport::Unframed),
                "header" => Some(Transport::Header),
                "ttheader" => Some(Transport::TtHeader),
                _ => None,
            },
            protocol: match options.choice(&PROTOCOL)? {
                "binary" => Some(Protocol::Binary),
                "compact" => Some(Protocol::Compact),
                _ => None,
            },
            service: options.0.get(SERVICE.name).map_or_else(|| Arc::from(""), |service| Arc::from(service.as_str())),
        })
    }
}

impl Codec for Thrift {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn capabilities(&self) -> Capabilities {
        let ordering = match self.transport {
            Some(Transport::Header | Transport::TtHeader) => Ordering::Multiplexed,
            _ => Ordering::Ordered,
        };
        let mut capabilities = Capabilities::new(ordering);
        if !matches!(self.transport, Some(Transport::Framed | Transport::Unframed)) {
            capabilities.request_mutation = MutationSupport::Headers;
            capabilities.reply_mutation = MutationSupport::Headers;
        }
        capabilities.rewrites_id = true;
        capabilities.one_way = true;
        capabilities
    }

    fn connect(&self, _: Peer, limits: &Limits) -> Box<dyn Connection> {
        Box::new(ThriftConnection::new(self.clone(), *limits))
    }

    fn probe(&self, head: &[u8]) -> Probe {
        match detect::transport(head) {
            Detected::Transport(found) | Detected::Guess(found) if self.transport.is_none_or(|only| only == found) => {
                Probe::Match
            }
            Detected::Transport(_) | Detected::Guess(_) => Probe::NoMatch,
            Detected::NeedMore(needed) => Probe::NeedMore(needed),
            Detected::Nothing => Probe::NoMatch,
        }
    }
}
