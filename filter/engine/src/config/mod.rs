//! Configuration of the filters, as JSON (`google.protobuf.Struct` in Envoy): the contract between the control plane,
//! which writes it, and the hosts, which read it. Unknown fields are refused.

use std::collections::BTreeMap;

use meltemi_core::{Codec, CodecEntry, Limits, Options};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

pub(crate) mod read;
#[cfg(test)]
mod tests;

pub(crate) use read::readable;
pub use read::{Blank, Read, Wrong};

/// The only version there is.
pub const VERSION: u32 = 1;

/// The largest frame that every Envoy can carry in request mode: 1.38 cannot tell the outlet in how many pieces one comes.
pub const MOST_FRAME_BYTES: u32 = 32 << 20;

/// A configuration that is not taken; the message names the place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Reads a configuration from JSON.
pub fn parse<T: Read + Blank>(json: &[u8]) -> Result<T, ConfigError> {
    let value = serde_json::from_slice(json).map_err(|error| ConfigError(format!("filter configuration: {error}")))?;
    read(&value)
}

/// Reads a configuration from a JSON value.
pub fn read<T: Read + Blank>(value: &Value) -> Result<T, ConfigError> {
    let mut config = T::blank();
    read_into(&mut config, value)?;
    Ok(config)
}

fn read_into(config: &mut dyn Read, value: &Value) -> Result<(), ConfigError> {
    check_version(value)?;
    Ok(config.read(value)?)
}

/// First: the fields of another version are not known here, and are not what is wrong.
fn check_version(value: &Value) -> Result<(), ConfigError> {
    let version = value.get("version").and_then(Value::as_u64).and_then(|version| u32::try_from(version).ok());
    match version {
        Some(other) if other != VERSION => Err(ConfigError(format!(
            "filter configuration: field `version`: this module reads version {VERSION}, not {other}"
        ))),
        _ => Ok(()),
    }
}

/// Which codec, and its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CodecConfig {
    /// The codec's name, e.g. `thrift`.
    pub name: String,
    /// The codec's own options; `meltemi codecs` lists them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

readable!(CodecConfig { name } or { options: BTreeMap::new() });

impl CodecConfig {
    /// The options as the codec reads them.
    pub fn options(&self) -> Options {
        Options(self.options.clone())
    }

    /// Makes the codec from those that a host has.
    ///
    /// # Errors
    /// If there is none of this name, or it does not take the options.
    pub fn build(&self, codecs: &[CodecEntry]) -> Result<Box<dyn Codec>, ConfigError> {
        let Some(entry) = codecs.iter().find(|entry| entry.name == self.name) else {
            let known: Vec<&str> = codecs.iter().map(|entry| entry.name).collect();
            return Err(ConfigError(format!(
                "field `codec.name`: this module has no codec `{}`; it has: {}",
                self.name,
                known.join(", ")
            )));
        };
        (entry.build)(&self.options()).map_err(|error| ConfigError(format!("field `codec.options`: {error}")))
    }
}

/// Upper bounds on what a peer may make the filter hold or walk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes in one frame; in the outlet, on Envoy 1.38, no more than 32 MiB.
    pub max_frame_bytes: u32,
    /// Bytes of all header names and values of one frame.
    pub max_header_bytes: u32,
    /// Number of headers of one frame.
    pub max_headers: u32,
    /// Nesting of values.
    pub max_depth: u32,
    /// Elements walked in one frame.
    pub max_elements: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let limits = Limits::default();
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            max_frame_bytes: clamp(limits.max_frame),
            max_header_bytes: clamp(limits.max_header_bytes),
            max_headers: clamp(limits.max_headers),
            max_depth: clamp(limits.max_depth),
            max_elements: clamp(limits.max_elements),
        }
    }
}

readable!(LimitsConfig {} or {
    max_frame_bytes: Self::default().max_frame_bytes,
    max_header_bytes: Self::default().max_header_bytes,
    max_headers: Self::default().max_headers,
    max_depth: Self::default().max_depth,
    max_elements: Self::default().max_elements
});

impl LimitsConfig {
    /// They need not be said.
    fn are_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&LimitsConfig> for Limits {
    fn from(config: &LimitsConfig) -> Self {
        let widen = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            max_frame: widen(config.max_frame_bytes),
            max_header_bytes: widen(config.max_header_bytes),
            max_headers: widen(config.max_headers),
            max_depth: widen(config.max_depth),
            max_elements: widen(config.max_elements),
        }
    }
}

/// An address that a filter acts on. Connections to other addresses pass untouched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// IP address; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<std::net::IpAddr>,
    /// Port.
    pub port: u16,
    /// `:authority` of requests to this destination; the filter's `authority` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

readable!(Destination { port } or { address: None, authority: None });

/// Configuration of the network filter `inlet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InletConfig {
    /// Schema version: 1.
    pub version: u32,
    /// The protocol clients speak.
    pub codec: CodecConfig,
    /// Bounds on what a client may make us hold.
    #[serde(default, skip_serializing_if = "LimitsConfig::are_default")]
    pub limits: LimitsConfig,
    /// `:authority` of every request; the original destination address and port if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Act only on connections to these; on all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// Requests of one connection that may wait for their replies, of 32 MiB together (or one that is larger); further
    /// ones are not read until one is answered.
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: u32,
    /// Reserved header names (`x-request-id`, `traceparent`, …) that are exchanged between frame and HTTP under
    /// their own name, both ways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_headers: Vec<String>,
}

readable!(InletConfig { version, codec } or {
    limits: LimitsConfig::default(),
    authority: None,
    destinations: Vec::new(),
    max_in_flight: default_max_in_flight(),
    pass_headers: Vec::new()
});

fn default_max_in_flight() -> u32 {
    256
}

impl InletConfig {
    /// Configuration for a codec, everything else default.
    pub fn new(codec: CodecConfig) -> Self {
        Self {
            version: VERSION,
            codec,
            limits: LimitsConfig::default(),
            authority: None,
            destinations: Vec::new(),
            max_in_flight: default_max_in_flight(),
            pass_headers: Vec::new(),
        }
    }
}

/// Configuration of the upstream bridge `outlet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutletConfig {
    /// Schema version: 1.
    pub version: u32,
    /// The protocol servers speak.
    pub codec: CodecConfig,
    /// Bounds on what a server may make us hold.
    #[serde(default, skip_serializing_if = "LimitsConfig::are_default")]
    pub limits: LimitsConfig,
    /// As in the inlet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_headers: Vec<String>,
}

readable!(OutletConfig { version, codec } or { limits: LimitsConfig::default(), pass_headers: Vec::new() });

impl OutletConfig {
    /// Configuration for a codec, everything else default.
    pub fn new(codec: CodecConfig) -> Self {
        Self { version: VERSION, codec, limits: LimitsConfig::default(), pass_headers: Vec::new() }
    }
}

/// Configuration of the listener filter `declare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclareConfig {
    /// Schema version: 1.
    pub version: u32,
    /// Act only on connections to these; on all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// The application protocols to declare.
    #[serde(default = "default_application_protocols")]
    pub application_protocols: Vec<String>,
}

readable!(DeclareConfig { version } or {
    destinations: Vec::new(),
    application_protocols: default_application_protocols()
});

fn default_application_protocols() -> Vec<String> {
    vec!["h2c".to_owned()]
}
