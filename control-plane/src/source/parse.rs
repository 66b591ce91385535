//! YAML files into objects, with the line of everything that is wrong.

use std::sync::Arc;

use serde::{Deserialize, de::DeserializeOwned};
use serde_yaml_ng::{Deserializer, Value};

use super::ignored;
use crate::{
    istio::LOOKED_AT,
    lines,
    model::{
        AnyObject, ApiGateway, ApplicationProtocol, DestinationRule, EndpointSlice, Gateway, IstioGateway, MetaRouter,
        Metadata, Object, Service, ServiceEntry,
    },
    problem::{Key, Kind, Origin, Problem, Severity},
};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) objects: Vec<AnyObject>,
    pub(super) problems: Vec<Problem>,
    /// Objects of kinds that are not read here. One of them may be a misspelt one of ours.
    pub(super) passed_over: Vec<Key>,
    /// Those among them that are looked at for a mesh.
    pub(super) others: Vec<Arc<Object<serde_json::Value>>>,
    /// It has no object at all, not even a wrong one.
    pub(super) is_blank: bool,
}

impl File {
    /// Something in it is wrong, so that it does not tell what is missing from it.
    pub(super) fn is_broken(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Reads a text of one or more YAML documents.
pub(super) fn parse(text: &str, file: &Origin) -> File {
    let mut all = File::default();
    // Lists are taken apart, and what comes of them read next.
    let mut documents: Vec<(usize, String)> =
        documents(text).into_iter().rev().map(|(line, document)| (line, document.to_owned())).collect();
    all.is_blank = documents.is_empty();
    while let Some((line, document)) = documents.pop() {
        match parse_document(&document, line, file, &mut all.problems) {
            Ok(Found::Object(object)) => all.objects.push(*object),
            Ok(Found::List(items)) => documents.extend(items.into_iter().rev()),
            Ok(Found::PassedOver(key, other)) => {
                all.passed_over.push(key);
                all.others.extend(other);
            }
            Err(problem) => all.problems.push(*problem),
        }
    }
    all
}

/// Reads a document that began in a certain line of a file, if it is one object without a mistake.
pub(super) fn parse_at(document: &str, line: usize, file: &Origin) -> Option<AnyObject> {
    match parse_document(document, line, file, &mut Vec::new()) {
        Ok(Found::Object(object)) => Some(*object),
        _ => None,
    }
}

/// Cuts a file at its `---` lines; gives the first line's number of each piece. What stands behind `---` in its line is
/// of the piece.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    let (mut start, mut start_line, mut position) = (0, 1, 0usize);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        if line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            all.push((start_line, text.get(start..position).unwrap_or_default()));
            start = position.saturating_add(3);
            start_line = index.saturating_add(1);
        }
        position = position.saturating_add(line.len());
    }
    all.push((start_line, text.get(start..).unwrap_or_default()));
    all.retain(|(_, document)| document.lines().any(|line| !is_idle(line)));
    all
}

/// Empty, a comment, or a directive.
fn is_idle(line: &str) -> bool {
    let words = line.trim_start_matches('\u{feff}').trim();
    words.is_empty() || words == "..." || words.starts_with('#') || line.starts_with('%')
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

enum Found {
    Object(Box<AnyObject>),
    /// Documents of its items.
    List(Vec<(usize, String)>),
    /// With what it says, if it is looked at for a mesh.
    PassedOver(Key, Option<Arc<Object<serde_json::Value>>>),
}

type Result<T> = std::result::Result<T, Box<Problem>>;

fn parse_document(document: &str, line: usize, file: &Origin, problems: &mut Vec<Problem>) -> Result<Found> {
    // From the first line with words: that is the object's line.
    let idle = document.split_inclusive('\n').take_while(|line| is_idle(line));
    let (skipped, bytes) =
        idle.fold((0usize, 0usize), |(lines, bytes), line| (lines.saturating_add(1), bytes.saturating_add(line.len())));
    let document = document.get(bytes..).unwrap_or_default();
    let mut origin = Origin { line: Some(line.saturating_add(skipped)), ..file.clone() };
    origin.document = Some(Arc::from(document));
    let head: Head = read(document, &origin, &mut Vec::new())?;
    let group = head.api_version.rsplit_once('/').map(|(group, _)| group).unwrap_or_default();
    if (group, head.kind.as_str()) == ("", "List") {
        let first = origin.line.unwrap_or_default();
        let items = lines::items(document).into_iter();
        return Ok(Found::List(
            items.map(|(line, text)| (first.saturating_add(line).saturating_sub(1), text)).collect(),
        ));
    }
    origin.kind = head.kind.clone();
    origin.group = group.to_owned();
    origin.name = format!("{}/{}", head.metadata.namespace, head.metadata.name);
    let name = head.metadata.name.clone();
    let object = Document { text: document, origin: origin.clone(), metadata: head.metadata, ignored: Vec::new() };
    let (object, ignored) = match (group, head.kind.as_str()) {
        _ if name.is_empty() && is_ours(group, &head.kind) => {
            return Err(Box::new(origin.error("metadata.name", "missing")));
        }
        ("", "Service") => object.spec(|object: Object<Service>| object.into())?,
        ("discovery.k8s.io", "EndpointSlice") => object.flat(|object: Object<EndpointSlice>| object.into())?,
        ("networking.istio.io", "ServiceEntry") => object.spec(|object: Object<ServiceEntry>| object.into())?,
        ("networking.istio.io", "DestinationRule") => object.spec(|object: Object<DestinationRule>| object.into())?,
        ("networking.istio.io", "Gateway") => {
            object.spec(|gateway: Object<IstioGateway>| gateway.map(|_, spec| Gateway::from(spec)).into())?
        }
        ("gateway.networking.k8s.io", "Gateway") => object
            .spec(|gateway: Object<ApiGateway>| gateway.map(|metadata, spec| spec.named(&metadata.name)).into())?,
        ("meltemi.dev", "MetaRouter") => object.spec(|object: Object<MetaRouter>| object.into())?,
        ("metaprotocol.aeraki.io", "MetaRouter") => {
            object.spec(|router: Object<MetaRouter>| router.map(|_, spec| spec.from_aeraki()).into())?
        }
        ("meltemi.dev" | "metaprotocol.aeraki.io", "ApplicationProtocol") => {
            object.spec(|object: Object<ApplicationProtocol>| object.into())?
        }
        (_, "") => return Err(Box::new(origin.error("kind", "missing: this is no Kubernetes object"))),
        ("meltemi.dev" | "metaprotocol.aeraki.io", kind) => {
            let reason = format!("`{kind}` is none of MetaRouter, ApplicationProtocol");
            return Err(Box::new(origin.error("kind", reason)));
        }
        _ => {
            let reason = format!("objects of `{}` are not read here, and were passed over", head.api_version);
            let is_of_mesh = LOOKED_AT.contains(&(group, head.kind.as_str()));
            let about = if is_of_mesh { Kind::Standalone } else { Kind::default() };
            problems.push(origin.warning("", reason).of(about));
            let other = if is_of_mesh { Some(object.untyped()?) } else { None };
            return Ok(Found::PassedOver(origin.key(), other));
        }
    };
    problems.extend(ignored::warnings(&object, &ignored));
    Ok(Found::Object(Box::new(object)))
}

fn is_ours(group: &str, kind: &str) -> bool {
    match group {
        "" => kind == "Service",
        "discovery.k8s.io" => kind == "EndpointSlice",
        "networking.istio.io" => matches!(kind, "ServiceEntry" | "DestinationRule" | "Gateway"),
        "gateway.networking.k8s.io" => kind == "Gateway",
        group => matches!(group, "meltemi.dev" | "metaprotocol.aeraki.io"),
    }
}

struct Document<'a> {
    text: &'a str,
    origin: Origin,
    metadata: Metadata,
    /// Paths of fields that nobody read.
    ignored: Vec<String>,
}

impl Document<'_> {
    fn spec<T: DeserializeOwned>(
        mut self,
        kind: impl FnOnce(Object<T>) -> AnyObject,
    ) -> Result<(AnyObject, Vec<String>)> {
        let WithSpec { spec } = read(self.text, &self.origin, &mut self.ignored)?;
        Ok((kind(Object { origin: self.origin, metadata: self.metadata, spec }), self.ignored))
    }

    /// Whatever it says.
    fn untyped(self) -> Result<Arc<Object<serde_json::Value>>> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Untyped {
            spec: serde_json::Value,
        }
        let Untyped { spec } = read(self.text, &self.origin, &mut Vec::new())?;
        Ok(Arc::new(Object { origin: self.origin, metadata: self.metadata, spec }))
    }

    fn flat<T: DeserializeOwned>(
        mut self,
        kind: impl FnOnce(Object<T>) -> AnyObject,
    ) -> Result<(AnyObject, Vec<String>)> {
        let spec = read(self.text, &self.origin, &mut self.ignored)?;
        Ok((kind(Object { origin: self.origin, metadata: self.metadata, spec }), self.ignored))
    }
}

/// Reads a document, or says which field is wrong and in which line of the file.
fn read<T: DeserializeOwned>(document: &str, origin: &Origin, ignored: &mut Vec<String>) -> Result<T> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(Deserializer::from_str(document), &mut track);
    let result = serde_ignored::deserialize(tracked, |path| ignored.push(ignored::shown(&path)));
    result.map_err(|error: serde_yaml_ng::Error| {
        let path = track.path().to_string();
        let syntax = serde_yaml_ng::from_str::<Value>(document).is_err();
        let field = if syntax || path == "." || path == "?" { String::new() } else { path };
        let mut origin = origin.clone();
        if let (true, Some(location), Some(first)) = (field.is_empty(), error.location(), origin.line) {
            origin.line = Some(first.saturating_add(location.line()).saturating_sub(1));
        }
        // The parser's own words for the place would count from the document.
        let reason = error.to_string();
        let reason = reason.split(" at line ").next().unwrap_or(&reason);
        let reason = reason.strip_prefix(&format!("{field}: ")).unwrap_or(reason);
        let reason = if syntax { format!("not YAML: {reason}") } else { reason.to_owned() };
        Box::new(origin.error(field, reason))
    })
}
