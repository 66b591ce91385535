//! YAML files into objects, with the line of everything that is wrong.

use std::path::Path;

use serde::{Deserialize, de::DeserializeOwned};
use serde_yaml_ng::{Deserializer, Value};

use crate::{
    model::{
        ApplicationProtocol, DestinationRule, EndpointSlice, MetaRouter, Metadata, Model, Object, Service, ServiceEntry,
    },
    problem::{Origin, Problem},
};

/// An object of a kind that we read.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// Kubernetes.
    Service(Object<Service>),
    /// Kubernetes.
    EndpointSlice(Object<EndpointSlice>),
    /// Istio.
    ServiceEntry(Object<ServiceEntry>),
    /// Istio.
    DestinationRule(Object<DestinationRule>),
    /// Ours, or Aeraki's.
    MetaRouter(Object<MetaRouter>),
    /// Ours, or Aeraki's.
    ApplicationProtocol(Object<ApplicationProtocol>),
}

impl Parsed {
    /// Where it comes from.
    pub const fn origin(&self) -> &Origin {
        match self {
            Self::Service(object) => &object.origin,
            Self::EndpointSlice(object) => &object.origin,
            Self::ServiceEntry(object) => &object.origin,
            Self::DestinationRule(object) => &object.origin,
            Self::MetaRouter(object) => &object.origin,
            Self::ApplicationProtocol(object) => &object.origin,
        }
    }

    /// Kind and `namespace/name`.
    pub fn key(&self) -> (String, String) {
        (self.origin().kind.clone(), self.origin().name.clone())
    }

    /// Puts it where it belongs.
    pub fn add_to(self, model: &mut Model) {
        match self {
            Self::Service(object) => model.services.push(object),
            Self::EndpointSlice(object) => model.endpoint_slices.push(object),
            Self::ServiceEntry(object) => model.service_entries.push(object),
            Self::DestinationRule(object) => model.destination_rules.push(object),
            Self::MetaRouter(object) => model.meta_routers.push(object),
            Self::ApplicationProtocol(object) => model.application_protocols.push(object),
        }
    }
}

/// Reads a file of one or more YAML documents.
pub fn parse_file(file: &Path) -> (Vec<Parsed>, Vec<Problem>) {
    let origin = Origin { file: Some(file.to_path_buf()), ..Origin::default() };
    match std::fs::read_to_string(file) {
        Ok(text) => parse(&text, &origin),
        Err(error) => (Vec::new(), vec![origin.error("", format!("cannot read the file: {error}"))]),
    }
}

fn parse(text: &str, file: &Origin) -> (Vec<Parsed>, Vec<Problem>) {
    let (mut objects, mut problems) = (Vec::new(), Vec::new());
    for (line, document) in documents(text) {
        match parse_document(document, line, file) {
            Ok(None) => {}
            Ok(Some(object)) => objects.push(object),
            Err(problem) => problems.push(*problem),
        }
    }
    (objects, problems)
}

/// Cuts a file at its `---` lines; gives the first line's number of each piece.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    let (mut start, mut start_line, mut position) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            all.push((start_line, text.get(start..position).unwrap_or_default()));
            start = position.saturating_add(line.len());
            start_line = index.saturating_add(2);
        }
        position = position.saturating_add(line.len());
    }
    all.push((start_line, text.get(start..).unwrap_or_default()));
    all.retain(|(_, document)| {
        document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    all
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
}

/// An object with its specification under `spec`.
#[derive(Deserialize)]
struct WithSpec<T> {
    spec: T,
}

type Result<T> = std::result::Result<T, Box<Problem>>;

fn parse_document(document: &str, line: usize, file: &Origin) -> Result<Option<Parsed>> {
    let mut origin = Origin { line: Some(line), ..file.clone() };
    let head: Head = read(document, line, &origin)?;
    origin.kind = head.kind.clone();
    origin.name = format!("{}/{}", head.metadata.namespace, head.metadata.name);
    // The first line with words, not the separator or a comment.
    let skipped = document.lines().take_while(|line| line.trim().is_empty() || line.starts_with('#')).count();
    origin.line = Some(line.saturating_add(skipped));
    if head.metadata.name.is_empty() {
        return Err(Box::new(origin.error("metadata.name", "missing")));
    }
    let group = head.api_version.split('/').next().unwrap_or_default();
    let object = Document { text: document, line, origin, metadata: head.metadata };
    let parsed = match (group, head.kind.as_str()) {
        ("v1", "Service") => Parsed::Service(object.spec()?),
        ("discovery.k8s.io", "EndpointSlice") => Parsed::EndpointSlice(object.flat()?),
        ("networking.istio.io", "ServiceEntry") => Parsed::ServiceEntry(object.spec()?),
        ("networking.istio.io", "DestinationRule") => Parsed::DestinationRule(object.spec()?),
        ("meltemi.dev" | "metaprotocol.aeraki.io", "MetaRouter") => Parsed::MetaRouter(object.spec()?),
        ("meltemi.dev" | "metaprotocol.aeraki.io", "ApplicationProtocol") => {
            Parsed::ApplicationProtocol(object.spec()?)
        }
        ("meltemi.dev", kind) if !kind.is_empty() => {
            let reason = format!("`{kind}` is none of MetaRouter, ApplicationProtocol");
            return Err(Box::new(object.origin.error("kind", reason)));
        }
        (_, "") => return Err(Box::new(object.origin.error("kind", "missing: this is no Kubernetes object"))),
        _ => {
            let reason = format!("objects of `{}` are not read here, and were passed over", head.api_version);
            return Err(Box::new(object.origin.warning("", reason)));
        }
    };
    Ok(Some(parsed))
}

struct Document<'a> {
    text: &'a str,
    line: usize,
    origin: Origin,
    metadata: Metadata,
}

impl Document<'_> {
    fn spec<T: DeserializeOwned>(self) -> Result<Object<T>> {
        let WithSpec { spec } = read(self.text, self.line, &self.origin)?;
        Ok(Object { origin: self.origin, metadata: self.metadata, spec })
    }

    fn flat<T: DeserializeOwned>(self) -> Result<Object<T>> {
        let spec = read(self.text, self.line, &self.origin)?;
        Ok(Object { origin: self.origin, metadata: self.metadata, spec })
    }
}

/// Reads a document, or says which field is wrong and in which line of the file.
fn read<T: DeserializeOwned>(document: &str, line: usize, origin: &Origin) -> Result<T> {
    serde_path_to_error::deserialize(Deserializer::from_str(document)).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." || path == "?" { String::new() } else { path };
        let inner = error.into_inner();
        let mut origin = origin.clone();
        if let Some(location) = inner.location() {
            origin.line = Some(line.saturating_add(location.line()).saturating_sub(1));
        }
        // The parser's own words for the place would count from the document.
        let reason = inner.to_string();
        let reason = reason.split(" at line ").next().unwrap_or(&reason);
        let reason = reason.strip_prefix(&format!("{field}: ")).unwrap_or(reason);
        let syntax = serde_yaml_ng::from_str::<Value>(document).is_err();
        let reason = if syntax { format!("not YAML: {reason}") } else { reason.to_owned() };
        Box::new(origin.error(if syntax { String::new() } else { field }, reason))
    })
}
