//! Definitions of our kinds, from the types that are read, with what a schema can say about them.

use kube_core::schema::{OptionalEnum, StructuralSchemaRewriter};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::kinds::Watched;
use crate::model::{ApplicationProtocol, MetaRouter};

/// Definitions of all our kinds.
fn crds() -> Vec<Value> {
    vec![application_protocol(), meta_router()]
}

/// All of them as one file.
///
/// # Errors
/// None that is known.
pub fn crds_yaml() -> anyhow::Result<String> {
    let mut text = String::from("# Made by `meltemi crds`.\n");
    for crd in crds() {
        text.push_str("---\n");
        text.push_str(&serde_yaml_ng::to_string(&crd)?);
    }
    Ok(text)
}

fn meta_router() -> Value {
    let mut spec = schema::<MetaRouter>();
    for (path, rules) in META_ROUTER {
        validate(&mut spec, path, rules);
    }
    for (path, bound) in BOUNDS {
        at(&mut spec, path, |schema| _ = schema.insert("maxItems".to_owned(), json!(bound)));
    }
    definition(
        Watched::MetaRouter,
        &["mr"],
        "Namespaced",
        &json!({"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts"}),
        spec,
    )
}

fn application_protocol() -> Value {
    let mut spec = schema::<ApplicationProtocol>();
    for (path, rules) in APPLICATION_PROTOCOL {
        validate(&mut spec, path, rules);
    }
    definition(
        Watched::ApplicationProtocol,
        &[],
        "Cluster",
        &json!({"name": "Protocol", "type": "string", "jsonPath": ".spec.protocol"}),
        spec,
    )
}

/// A rule in CEL, and what it says to who breaks it.
type Rule = (&'static str, &'static str);

/// Rules of a `MetaRouter`, by the path of the schema that they stand in; `[]` is an element of a list, `{}` a value of a
/// map.
const META_ROUTER: &[(&str, &[Rule])] = &[
    ("", &[("has(self.hosts) && self.hosts.size() == 1 && self.hosts[0] != ''", "hosts must name exactly one host")]),
    (
        "routes[]",
        &[
            (
                "!has(self.route) || self.route.size() < 2 || self.route.all(w, has(w.weight))",
                "every destination needs a weight if there are several",
            ),
            ("!has(self.mirrorPercentage) || has(self.mirror)", "mirrorPercentage is of no meaning without mirror"),
        ],
    ),
    ("routes[].match.attributes{}", STRING_MATCH),
    ("localRateLimit.conditions[].match.attributes{}", STRING_MATCH),
    ("globalRateLimit.match.attributes{}", STRING_MATCH),
    ("routes[].route[].destination", DESTINATION),
    ("routes[].mirror", DESTINATION),
    ("routes[].mirrorPercentage", PERCENT),
    ("routes[].fault.delay.percentage", PERCENT),
    ("routes[].fault.abort.percentage", PERCENT),
    ("routes[].localRateLimit", TOKEN_BUCKET),
    ("localRateLimit.tokenBucket", TOKEN_BUCKET),
    ("localRateLimit.conditions[].tokenBucket", TOKEN_BUCKET),
];

const APPLICATION_PROTOCOL: &[(&str, &[Rule])] = &[(
    "",
    &[
        ("self.protocol != ''", "protocol must have a name"),
        ("!has(self.maxFrameBytes) || self.maxFrameBytes > 0", "maxFrameBytes must be more than 0"),
        (
            "!has(self.maxFrameBytes) || self.maxFrameBytes <= 33554432",
            "maxFrameBytes must be at most 33554432 (32 MiB)",
        ),
    ],
)];

const STRING_MATCH: &[Rule] = &[(
    "[has(self.exact), has(self.prefix), has(self.suffix), has(self.regex), has(self.range), has(self.present)]\
     .filter(given, given).size() <= 1",
    "only one of exact, prefix, suffix, regex, range and present can be given",
)];
const DESTINATION: &[Rule] = &[("has(self.host) && self.host != ''", "host must name a service")];
const PERCENT: &[Rule] = &[("self.value >= 0.0 && self.value <= 100.0", "value must be from 0 to 100")];
const TOKEN_BUCKET: &[Rule] = &[
    ("has(self.maxTokens) && self.maxTokens > 0", "maxTokens must be more than 0"),
    ("!has(self.tokensPerFill) || self.tokensPerFill > 0", "tokensPerFill must be more than 0"),
];

/// Lengths of lists. The API server allows rules only where it can tell how often they are run at most.
const BOUNDS: &[(&str, usize)] = &[
    ("hosts", 1),
    ("routes", 500),
    ("routes[].route", 32),
    ("routes[].requestMutation", 64),
    ("routes[].responseMutation", 64),
    ("routes[].hashPolicy", 16),
    ("localRateLimit.conditions", 100),
    ("globalRateLimit.descriptors", 32),
];
/// Entries of maps with rules.
const ATTRIBUTES: usize = 32;

/// The type's schema in the form that Kubernetes takes.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let settings = settings.with_transform(StructuralSchemaRewriter).with_transform(OptionalEnum);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("title");
    }
    schema
}

/// Takes out what Kubernetes would write back into every object (defaults) or does not take.
fn tidy(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    fields.remove("default");
    // Formats that only Rust has; the numbers' bounds stay.
    if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        fields.remove("format");
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(key) {
            tidy(inner);
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        fields.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(tidy);
    }
    fields
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
        .for_each(|(_, value)| tidy(value));
}

fn validate(schema: &mut Value, path: &str, rules: &[Rule]) {
    let rules: Vec<Value> = rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect();
    if let Some(map) = path.strip_suffix("{}") {
        at(schema, map, |schema| _ = schema.insert("maxProperties".to_owned(), json!(ATTRIBUTES)));
    }
    at(schema, path, |schema| _ = schema.insert("x-kubernetes-validations".to_owned(), json!(rules)));
}

/// Changes the schema at a path. A path that is not there is found by a test: then nothing is changed.
fn at(schema: &mut Value, path: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let mut here = Some(schema);
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let (name, inner) = match step.strip_suffix("[]").or_else(|| step.strip_suffix("{}")) {
            Some(name) => (name, Some(if step.ends_with("[]") { "items" } else { "additionalProperties" })),
            None => (step, None),
        };
        here = here.and_then(|schema| schema.get_mut("properties")?.get_mut(name));
        if let Some(inner) = inner {
            here = here.and_then(|schema| schema.get_mut(inner));
        }
    }
    if let Some(schema) = here.and_then(Value::as_object_mut) {
        change(schema);
    }
}

fn definition(watched: Watched, short: &[&str], scope: &str, column: &Value, spec: Value) -> Value {
    let resource = watched.resource();
    let condition = |kind: &str| {
        json!({
            "name": kind,
            "type": "string",
            "jsonPath": format!(".status.conditions[?(@.type==\"{kind}\")].status"),
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{}", resource.plural, resource.group),
            // Removing the chart takes nobody's routes away.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": resource.group,
            "names": {
                "kind": resource.kind,
                "listKind": format!("{}List", resource.kind),
                "plural": resource.plural,
                "singular": resource.kind.to_lowercase(),
                "shortNames": short,
                "categories": ["meltemi"],
            },
            "scope": scope,
            "versions": [{
                "name": resource.version,
                "served": true,
                "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column,
                    condition("Accepted"),
                    condition("Programmed"),
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {"spec": spec, "status": status()},
                }},
            }],
        },
    })
}

fn status() -> Value {
    json!({
        "type": "object",
        "description": "What the control plane says about the object.",
        "properties": {
            "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation it is about."},
            "conditions": {
                "type": "array",
                "description": "Accepted, ResolvedRefs, Programmed.",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
                    "properties": {
                        "type": {"type": "string"},
                        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                        "observedGeneration": {"type": "integer", "format": "int64"},
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                        "reason": {"type": "string"},
                        "message": {"type": "string"},
                    },
                },
            },
        },
    })
}

#[cfg(test)]
#[path = "crd_tests.rs"]
mod tests;
