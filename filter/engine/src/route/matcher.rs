use meltemi_core::Metadata;
use smallvec::SmallVec;

use super::{
    config::{MatchConfig, Test},
    pattern::Pattern,
};
use crate::names;

/// A compiled condition. It looks at a value as it would stand in an HTTP header (see [`names`]), so that a rule means the
/// same in request mode, where Envoy tests headers.
#[derive(Debug)]
pub(super) struct Matcher {
    key: String,
    test: Compiled,
    invert: bool,
    ignore_case: bool,
}

#[derive(Debug)]
enum Compiled {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Regex(Pattern),
    Range(i64, i64),
    Present(bool),
}

impl Matcher {
    pub(super) fn new(config: &MatchConfig) -> Result<Self, String> {
        if config.key.is_empty() {
            return Err("a condition needs a key".to_owned());
        }
        let test = match &config.test {
            None => Compiled::Present(true),
            Some(Test::Present(there)) => Compiled::Present(*there),
            Some(Test::Exact(text)) => Compiled::Exact(names::match_value(text).into_bytes()),
            Some(Test::Prefix(text)) => Compiled::Prefix(names::match_prefix(text).into_bytes()),
            Some(Test::Suffix(text)) => Compiled::Suffix(names::match_suffix(text).into_bytes()),
            Some(Test::Range(start, end)) if start < end => Compiled::Range(*start, *end),
            Some(Test::Range(start, end)) => return Err(format!("the range from {start} to {end} is empty")),
            Some(Test::Regex(text)) => Compiled::Regex(Pattern::new(text)?),
        };
        Ok(Self { key: config.key.clone(), test, invert: config.invert, ignore_case: config.ignore_case })
    }

    pub(super) fn matches(&self, metadata: &Metadata<'_>) -> bool {
        let mut escaped: SmallVec<[u8; 256]> = SmallVec::new();
        let value = value(metadata, &self.key).map(|value| {
            if names::is_safe_value(value) {
                return value;
            }
            escaped.extend(names::escaped_bytes(value));
            escaped.as_slice()
        });
        let holds = match (&self.test, value) {
            (Compiled::Present(wanted), value) => value.is_some() == *wanted,
            // A value that is missing is not the one that is asked for.
            (_, None) => false,
            (Compiled::Exact(text), Some(value)) => self.same(value, text),
            (Compiled::Prefix(text), Some(value)) => value.get(..text.len()).is_some_and(|part| self.same(part, text)),
            (Compiled::Suffix(text), Some(value)) => value
                .len()
                .checked_sub(text.len())
                .and_then(|start| value.get(start..))
                .is_some_and(|part| self.same(part, text)),
            (Compiled::Regex(regex), Some(value)) => regex.matches(value),
            (Compiled::Range(start, end), Some(value)) => core::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok())
                .is_some_and(|number: i64| (*start..*end).contains(&number)),
        };
        holds != self.invert
    }

    fn same(&self, value: &[u8], text: &[u8]) -> bool {
        if self.ignore_case { value.eq_ignore_ascii_case(text) } else { value == text }
    }
}

/// A value of the metadata by its key; an empty service or method is not there.
pub(super) fn value<'a>(metadata: &Metadata<'a>, key: &str) -> Option<&'a [u8]> {
    let there = |value: &'a [u8]| (!value.is_empty()).then_some(value);
    match key {
        "service" => there(metadata.service),
        "method" => there(metadata.method),
        name => metadata.header(name.as_bytes()),
    }
}
