use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Which codec a protocol name in a port stands for, and how its ports are proxied (`ApplicationProtocol`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationProtocol {
    /// The name in `tcp-metaprotocol-<protocol>` and `appProtocol: meltemi.dev/<protocol>`.
    pub protocol: String,
    /// The codec, such as `thrift`; Aeraki's `aeraki.meta_protocol.codec.<codec>` is understood. The protocol's name if
    /// absent.
    #[serde(default)]
    pub codec: String,
    /// The codec's options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Who routes, and what. A port can differ by the annotation `meltemi.dev/mode.<port>` of its service.
    #[serde(default)]
    pub mode: Mode,
    /// Bytes of one frame at most; 16 MiB if absent, no more than 32 MiB.
    #[serde(default)]
    pub max_frame_bytes: Option<u32>,
    /// Names of headers with a meaning in HTTP, such as `traceparent` or `x-request-id`, that frames may carry: a caller's
    /// reach Envoy and its tracers, and what these make of them reaches the server. In request mode, of protocols whose
    /// frames have headers.
    #[serde(default)]
    pub pass_headers: Vec<String>,
}

/// Who routes, and what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Envoy's HTTP connection manager routes every request.
    #[default]
    Request,
    /// Our route table routes each connection by its first request.
    Connection,
}

impl ApplicationProtocol {
    /// The codec's short name.
    pub fn codec_name(&self) -> &str {
        match self.codec.rsplit('.').next().unwrap_or_default() {
            "" => &self.protocol,
            name => name,
        }
    }
}
