//! Reads configurations out of JSON values, naming the place of what is wrong. By hand: what serde derives for the same types
//! is a fifth of what an Envoy loads as a plugin in Wasm. A test holds it against the published schema.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use serde_json::{Map, Value};

use super::ConfigError;

/// What can be read from a configuration. Read into: what is not said stays as it was.
pub trait Read {
    /// Reads it.
    ///
    /// # Errors
    /// If the value is not of its kind.
    fn read(&mut self, value: &Value) -> Result<(), Box<Wrong>>;
}

/// What one of several is before it is read.
pub trait Blank {
    /// All fields that must be there are empty, the others are what they are by default.
    fn blank() -> Self;
}

/// What is wrong with a value, and where below it.
#[derive(Debug)]
pub struct Wrong {
    place: String,
    reason: String,
}

impl Wrong {
    pub(crate) fn new(reason: String) -> Box<Self> {
        Box::new(Self { place: String::new(), reason })
    }

    /// The value is another than what is taken in its place.
    pub(crate) fn kind(value: &Value, expected: &str) -> Box<Self> {
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "sequence",
            Value::Object(_) => "map",
        };
        Self::new(format!("invalid type: {kind}, expected {expected}"))
    }

    /// The value stands in a field, or is one of several.
    fn under(self, step: &str) -> Box<Self> {
        let dot = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        Box::new(Self { place: format!("{step}{dot}{}", self.place), reason: self.reason })
    }
}

impl From<Box<Wrong>> for ConfigError {
    fn from(wrong: Box<Wrong>) -> Self {
        let Wrong { place, reason } = *wrong;
        let field = if place.is_empty() { String::new() } else { format!("field `{place}`: ") };
        Self(format!("filter configuration: {field}{reason}"))
    }
}

/// A field of an object.
pub(crate) struct Field<'a> {
    name: &'static str,
    must_be: bool,
    place: &'a mut dyn Read,
}

/// A field that must be there.
pub(crate) fn required<'a>(name: &'static str, place: &'a mut dyn Read) -> Field<'a> {
    Field { name, must_be: true, place }
}

/// A field that need not be there.
pub(crate) fn optional<'a>(name: &'static str, place: &'a mut dyn Read) -> Field<'a> {
    Field { name, must_be: false, place }
}

/// Reads the fields of an object; an error if one is missing, or not known.
pub(crate) fn fields(value: &Value, fields: &mut [Field<'_>]) -> Result<(), Box<Wrong>> {
    let object = object(value)?;
    if let Some(other) = object.keys().find(|name| !fields.iter().any(|field| field.name == *name)) {
        let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
        return Err(unknown(other, &known));
    }
    for Field { name, must_be, place } in fields {
        match object.get(*name) {
            Some(value) => place.read(value).map_err(|wrong| wrong.under(name))?,
            None if *must_be => return Err(Wrong::new(format!("missing field `{name}`"))),
            None => {}
        }
    }
    Ok(())
}

/// # Errors
/// If it is no object.
pub(crate) fn object(value: &Value) -> Result<&Map<String, Value>, Box<Wrong>> {
    value.as_object().ok_or_else(|| Wrong::kind(value, "a map"))
}

/// A name that is none of those there are.
pub(crate) fn unknown(name: &str, known: &[&str]) -> Box<Wrong> {
    Wrong::new(format!("unknown field `{name}`, expected one of `{}`", known.join("`, `")))
}

/// Reads a struct by its fields: those that must be there, then those that need not, with what they are instead.
macro_rules! readable {
    ($kind:ident { $($required:ident),* } or { $($optional:ident: $default:expr),* }) => {
        impl $crate::config::Blank for $kind {
            fn blank() -> Self {
                Self { $($required: $crate::config::Blank::blank(),)* $($optional: $default),* }
            }
        }

        impl $crate::config::Read for $kind {
            fn read(&mut self, value: &serde_json::Value) -> Result<(), Box<$crate::config::Wrong>> {
                $crate::config::read::fields(value, &mut [
                    $($crate::config::read::required(stringify!($required), &mut self.$required),)*
                    $($crate::config::read::optional(stringify!($optional), &mut self.$optional)),*
                ])
            }
        }
    };
}
pub(crate) use readable;

/// Reads simple values: by an expression that gives it, if it is of its kind.
macro_rules! simple {
    ($($kind:ty, $blank:expr, $expected:literal, $read:expr;)*) => {$(
        impl Blank for $kind {
            fn blank() -> Self {
                $blank
            }
        }

        impl Read for $kind {
            fn read(&mut self, value: &Value) -> Result<(), Box<Wrong>> {
                *self = $read(value).ok_or_else(|| Wrong::kind(value, $expected))?;
                Ok(())
            }
        }
    )*};
}

simple! {
    bool, false, "a boolean", Value::as_bool;
    String, Self::new(), "a string", |value: &Value| value.as_str().map(Self::from);
    u64, 0, "u64", Value::as_u64;
    u32, 0, "u32", |value: &Value| value.as_u64()?.try_into().ok();
    u16, 0, "u16", |value: &Value| value.as_u64()?.try_into().ok();
    i64, 0, "i64", Value::as_i64;
    IpAddr, Self::V4(Ipv4Addr::UNSPECIFIED), "IP address", |value: &Value| value.as_str()?.parse().ok();
}

impl<T: Read + Blank> Read for Option<T> {
    fn read(&mut self, value: &Value) -> Result<(), Box<Wrong>> {
        *self = None;
        if value.is_null() { Ok(()) } else { self.insert(T::blank()).read(value) }
    }
}

impl<T> Blank for Vec<T> {
    fn blank() -> Self {
        Self::new()
    }
}

impl<T: Read + Blank> Read for Vec<T> {
    fn read(&mut self, value: &Value) -> Result<(), Box<Wrong>> {
        let Value::Array(values) = value else { return Err(Wrong::kind(value, "a sequence")) };
        self.clear();
        for (index, value) in values.iter().enumerate() {
            let mut one = T::blank();
            one.read(value).map_err(|wrong| wrong.under(&format!("[{index}]")))?;
            self.push(one);
        }
        Ok(())
    }
}

impl Read for BTreeMap<String, String> {
    fn read(&mut self, value: &Value) -> Result<(), Box<Wrong>> {
        for (name, value) in object(value)? {
            let mut text = String::new();
            text.read(value).map_err(|wrong| wrong.under(name))?;
            self.insert(name.clone(), text);
        }
        Ok(())
    }
}
