//! Regular expressions that match a whole value.

/// Memory that a compiled expression may take: hostile ones are refused when the table is made.
const SIZE_LIMIT: usize = 1024 * 1024;

#[cfg(not(target_family = "wasm"))]
use regex::{Regex, RegexBuilder};
/// In Wasm the tables of a whole `regex` would be most of what an Envoy loads: there it is `regex-lite`, which does not know
/// Unicode classes (`\p{L}`). Values are ASCII anyway, see [`names`](crate::names).
#[cfg(target_family = "wasm")]
use regex_lite::{Regex, RegexBuilder};

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// If it is no expression, or too large; says why.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let whole = RegexBuilder::new(&format!("^(?:{text})$")).size_limit(SIZE_LIMIT).build();
        whole.map(Self).map_err(|error| error.to_string())
    }

    /// All of `value`, which stands as in a header, is what the expression describes.
    pub(super) fn matches(&self, value: &[u8]) -> bool {
        str::from_utf8(value).is_ok_and(|text| self.0.is_match(text))
    }
}
