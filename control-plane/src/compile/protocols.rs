//! Which codec each port speaks.

use std::collections::HashMap;

use meltemi::{Capabilities, CodecEntry, Options};
use meltemi_engine::{
    config::{CodecConfig, InletConfig, LimitsConfig, MOST_FRAME_BYTES, OutletConfig},
    names,
};

use super::services::taken;
use crate::{
    model::{ApplicationProtocol, Metadata, Mode, Model, Object},
    problem::{Kind, Origin, Problem},
};

/// How port names say that a port is ours: Aeraki's way.
pub(super) const PORT_PREFIX: &str = "tcp-metaprotocol-";
/// How `appProtocol` says it.
const APP_PROTOCOL_PREFIX: &str = "meltemi.dev/";
/// Annotation of a service whose HTTP-named ports carry our protocol, or of a ServiceEntry whose ports say HTTP or nothing:
/// the codec.
pub const CODEC_ANNOTATION: &str = "meltemi.dev/codec";
/// Annotation of a service: `meltemi.dev/mode.<port>: connection`.
const MODE_ANNOTATION: &str = "meltemi.dev/mode.";

/// What is spoken on a port.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// The codec, with its options.
    pub codec: CodecConfig,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Other names of the service in matches.
    pub service_aliases: &'static [&'static str],
    /// Who routes.
    pub mode: Mode,
    /// Bounds.
    pub limits: LimitsConfig,
    /// Headers with a meaning in HTTP that frames may carry.
    pub pass_headers: Vec<String>,
}

impl Protocol {
    /// What its clients' inlet is told.
    pub(crate) fn inlet(&self) -> InletConfig {
        InletConfig {
            limits: self.limits.clone(),
            pass_headers: self.pass_headers.clone(),
            ..InletConfig::new(self.codec.clone())
        }
    }

    /// What its servers' outlet is told.
    pub(crate) fn outlet(&self) -> OutletConfig {
        OutletConfig {
            limits: self.limits.clone(),
            pass_headers: self.pass_headers.clone(),
            ..OutletConfig::new(self.codec.clone())
        }
    }
}

/// What a port says about itself.
pub(super) struct Naming<'n> {
    pub(super) name: &'n str,
    pub(super) app_protocol: Option<&'n str>,
    /// What the field of `app_protocol` is called in the object.
    pub(super) app_protocol_field: &'n str,
    /// Istio goes by that field alone, and finds out what a port speaks that leaves it empty: a ServiceEntry's.
    pub(super) sniffed_if_empty: bool,
}

impl<'n> Naming<'n> {
    /// The protocol that the port or its service says, and the field that says so.
    fn says(&self, metadata: &'n Metadata, field: &str) -> Option<(&'n str, String)> {
        if let Some(protocol) = self.app_protocol.and_then(|protocol| protocol.strip_prefix(APP_PROTOCOL_PREFIX)) {
            return Some((protocol, format!("{field}.{}", self.app_protocol_field)));
        }
        if let Some(rest) = self.name.strip_prefix(PORT_PREFIX) {
            let protocol = rest.split('-').next().filter(|name| !name.is_empty())?;
            return Some((protocol, format!("{field}.name")));
        }
        Some((self.annotated(metadata)?, format!("metadata.annotations[{CODEC_ANNOTATION}]")))
    }

    /// What the service's annotation says of a port that may be HTTP to Istio.
    fn annotated(&self, metadata: &'n Metadata) -> Option<&'n str> {
        let is_http = |name: &str| {
            let before = name.split('-').next().unwrap_or_default();
            ["http", "http2", "grpc"].iter().any(|http| http.eq_ignore_ascii_case(before))
        };
        let http = match self.app_protocol.unwrap_or_default() {
            "" if self.sniffed_if_empty => true,
            "" => is_http(self.name),
            protocol => is_http(protocol),
        };
        metadata.annotations.get(CODEC_ANNOTATION).filter(|_| http).map(String::as_str)
    }
}

/// Which codec each protocol name stands for.
#[derive(Debug)]
pub(super) struct Protocols<'a> {
    declared: HashMap<&'a str, &'a Object<ApplicationProtocol>>,
}

impl<'a> Protocols<'a> {
    pub(super) fn new(model: &'a Model, problems: &mut Vec<Problem>) -> Self {
        let mut declared: HashMap<&str, &Object<ApplicationProtocol>> = HashMap::new();
        for object in &model.application_protocols {
            let spec = &object.spec;
            if let Err((field, reason)) = entry_of(spec.codec_name()).and_then(|entry| {
                (entry.build)(&Options(spec.options.clone()))
                    .map_err(|error| (format!("spec.options.{}", error.name), error.reason))
            }) {
                problems.push(object.origin.error(field, reason));
                continue;
            }
            if let Some(bytes) = spec.max_frame_bytes.filter(|bytes| !(1..=MOST_FRAME_BYTES).contains(bytes)) {
                let reason = format!("must be more than 0 and at most {MOST_FRAME_BYTES} (32 MiB), not {bytes}");
                problems.push(object.origin.error("spec.maxFrameBytes", reason));
                continue;
            }
            let mut passed = spec.pass_headers.iter().map(|name| names::passed(name)).enumerate();
            if let Some((index, reason)) = passed.find_map(|(index, passed)| Some((index, passed.err()?))) {
                problems.push(object.origin.error(format!("spec.passHeaders[{index}]"), reason));
                continue;
            }
            if let Some(first) = declared.get(spec.protocol.as_str()) {
                problems.push(object.origin.error("spec.protocol", taken(&first.origin)).of(Kind::Conflict));
                continue;
            }
            declared.insert(&spec.protocol, object);
        }
        Self { declared }
    }

    /// What a port speaks; `None` if it is not ours.
    pub(super) fn of(
        &self,
        naming: &Naming<'_>,
        metadata: &Metadata,
        number: u16,
        origin: &Origin,
        field: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Protocol> {
        let (name, said_at) = naming.says(metadata, field)?;
        let mut protocol = match self.named(name) {
            Ok(protocol) => protocol,
            Err(reason) => {
                problems.push(origin.error(said_at, reason));
                return None;
            }
        };
        let annotation = format!("{MODE_ANNOTATION}{number}");
        match metadata.annotations.get(&annotation).map(String::as_str) {
            None => {}
            Some("request") => protocol.mode = Mode::Request,
            Some("connection") => protocol.mode = Mode::Connection,
            Some(other) => {
                let reason = format!("`{other}` is neither `request` nor `connection`");
                problems.push(origin.error(format!("metadata.annotations[{annotation}]"), reason));
            }
        }
        Some(protocol)
    }

    /// The protocol of this name, or why there is none.
    pub(super) fn named(&self, name: &str) -> Result<Protocol, String> {
        let declared = self.declared.get(name).map(|object| &object.spec);
        let codec = declared.map_or(name, |spec| spec.codec_name());
        let options = declared.map(|spec| spec.options.clone()).unwrap_or_default();
        let entry = entry_of(codec).map_err(|(_, reason)| reason)?;
        let built = (entry.build)(&Options(options.clone())).map_err(|error| error.reason)?;
        let mut limits = LimitsConfig::default();
        if let Some(bytes) = declared.and_then(|spec| spec.max_frame_bytes) {
            limits.max_frame_bytes = bytes;
        }
        Ok(Protocol {
            codec: CodecConfig { name: codec.to_owned(), options },
            capabilities: built.capabilities(),
            service_aliases: entry.service_aliases,
            mode: declared.map(|spec| spec.mode).unwrap_or_default(),
            limits,
            pass_headers: declared.map(|spec| spec.pass_headers.clone()).unwrap_or_default(),
        })
    }
}

fn entry_of(codec: &str) -> Result<&'static CodecEntry, (String, String)> {
    meltemi_codecs::ALL.iter().find(|entry| entry.name == codec).ok_or_else(|| {
        let known: Vec<&str> = meltemi_codecs::ALL.iter().map(|entry| entry.name).collect();
        ("spec.codec".to_owned(), format!("there is no codec `{codec}`; there are: {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::tests::model;

    #[test]
    fn filters_are_told_what_a_protocol_says() {
        let (model, problems) = model(
            "apiVersion: meltemi.dev/v1alpha1\nkind: ApplicationProtocol\nmetadata: {name: x}\n\
             spec: {protocol: x, codec: thrift, maxFrameBytes: 1000, passHeaders: [traceparent, X-Request-Id]}",
        );
        assert_eq!(problems, []);
        let protocol = Protocols::new(&model, &mut Vec::new()).named("x").unwrap();
        let (inlet, outlet) = (protocol.inlet(), protocol.outlet());
        assert_eq!(inlet.pass_headers, ["traceparent", "X-Request-Id"]);
        assert_eq!((inlet.limits.max_frame_bytes, inlet.codec.name.as_str()), (1000, "thrift"));
        assert_eq!((inlet.pass_headers, inlet.limits, inlet.codec), (outlet.pass_headers, outlet.limits, outlet.codec));
    }
}
