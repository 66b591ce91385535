//! JSON Schemas as pages for people: a table for each type, in the order in which they are first named.

use std::fmt::Write;

use serde_json::{Map, Value};

/// A chapter about `schema` and the types below it. `section` makes the headings of those types unique on the page.
pub(super) fn chapter(schema: &Value, section: &str, out: &mut String) {
    let none = Map::new();
    let definitions = schema.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    let mut names: Vec<String> = Vec::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "## {section}\n\n{}\n", text(schema));
    table(schema, section, &mut names, out);
    let mut next = 0;
    while let Some(name) = names.get(next).cloned() {
        next = next.saturating_add(1);
        let Some(definition) = definitions.get(&name) else { continue };
        let _ = writeln!(out, "### {section}: {name}\n\n{}\n", text(definition));
        table(definition, section, &mut names, out);
    }
}

fn text(schema: &Value) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// The fields of an object, or the variants of an enum.
fn table(schema: &Value, section: &str, names: &mut Vec<String>, out: &mut String) {
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
        let _ = writeln!(out, "| field | type | default | |\n|---|---|---|---|");
        for (name, field) in fields {
            let default = match field.get("default") {
                _ if required.contains(&name.as_str()) => "**required**".to_owned(),
                Some(default) if !default.is_null() && !is_empty(default) => format!("`{default}`"),
                _ => String::new(),
            };
            let kind = kind(field, section, names);
            let _ = writeln!(out, "| `{name}` | {kind} | {default} | {} |", line(text(field)));
        }
        out.push('\n');
    } else if let Some(variants) = schema.get("oneOf").and_then(Value::as_array) {
        let _ = writeln!(out, "One of:\n\n| | type | |\n|---|---|---|");
        for variant in variants {
            let (name, kind) = match variant.get("properties").and_then(Value::as_object).and_then(|p| p.iter().next())
            {
                Some((name, field)) => (name.clone(), kind(field, section, names)),
                None => {
                    (variant.get("const").and_then(Value::as_str).unwrap_or_default().to_owned(), "word".to_owned())
                }
            };
            let _ = writeln!(out, "| `{name}` | {kind} | {} |", line(text(variant)));
        }
        out.push('\n');
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty) || value == ""
}

/// Descriptions are wrapped where the source is; a table has one line for each.
fn line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// The type of a field in words; types with a table of their own are put on the list of `names`.
fn kind(field: &Value, section: &str, names: &mut Vec<String>) -> String {
    if let Some(name) = field.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/")) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
        return format!("[{name}](#{})", anchor(&format!("{section}: {name}")));
    }
    if let Some(any) = field.get("anyOf").and_then(Value::as_array) {
        let kinds = any.iter().filter(|one| one.get("type").and_then(Value::as_str) != Some("null"));
        return kinds.map(|one| kind(one, section, names)).collect::<Vec<_>>().join(" or ");
    }
    let named = match field.get("type") {
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        Some(Value::String(name)) => Some(name.as_str()),
        _ => None,
    };
    match named {
        Some("array") => match (field.get("items"), field.get("prefixItems").and_then(Value::as_array)) {
            (_, Some(items)) => {
                let kinds: Vec<String> = items.iter().map(|item| kind(item, section, names)).collect();
                format!("[{}]", kinds.join(", "))
            }
            (Some(item), None) => format!("list of {}", kind(item, section, names)),
            (None, None) => "list".to_owned(),
        },
        Some("object") => match field.get("additionalProperties") {
            Some(values @ Value::Object(_)) => format!("map of {}", kind(values, section, names)),
            _ => "object".to_owned(),
        },
        Some(name) => match field.get("format").and_then(Value::as_str) {
            Some("ip") => "IP address".to_owned(),
            _ => name.to_owned(),
        },
        None => "any".to_owned(),
    }
}

/// The anchor that renderers of Markdown give to a heading.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}
