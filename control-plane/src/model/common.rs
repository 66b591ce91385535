use std::{collections::BTreeMap, fmt, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// What every object says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// Its name.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
    /// Its namespace; `default` if absent.
    #[serde(deserialize_with = "default_namespace")]
    pub namespace: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self {
            name: String::new(),
            namespace: "default".to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }
}

/// Kubernetes writes lists and maps that are empty as `null`, and people leave keys without a value behind.
pub(super) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn default_namespace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let given: Option<String> = Option::deserialize(deserializer)?;
    Ok(given.filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| Metadata::default().namespace))
}

/// A duration as Kubernetes and protobuf write it: `1.5s`, `20ms`, `1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_span(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format!(
                "`{text}` is not a duration; write a number and a unit, such as 1.5s, 20ms or 1m"
            ))
        })
    }
}

fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let unit_length = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_length);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let value: f64 = number.parse().ok()?;
        // Rounded to microseconds, so that 0.1s is 100 ms and not a little less.
        let micros = (value * seconds * 1e6).round();
        if !(0.0..1e15).contains(&micros) {
            return None;
        }
        sum = sum.checked_add(Duration::from_micros(micros as u64))?;
        rest = behind;
    }
    Some(sum)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A share of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Percent {
    /// 0 to 100.
    pub value: f64,
}

/// How a value is matched. Literals are compared with regard to case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct StringMatch {
    /// The whole value.
    pub exact: Option<String>,
    /// Its beginning.
    pub prefix: Option<String>,
    /// Its end.
    pub suffix: Option<String>,
    /// The whole value, as an RE2 expression.
    pub regex: Option<String>,
    /// An integer in a range.
    pub range: Option<Range>,
    /// The header is there (`true`) or not (`false`).
    pub present: Option<bool>,
    /// Matches if the rest does not.
    pub invert: bool,
    /// Literals are compared without regard to case.
    pub ignore_case: bool,
}

/// Integers from `start` (included) to `end` (excluded).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first.
    pub start: i64,
    /// The one behind the last.
    pub end: i64,
}

impl StringMatch {
    /// The names of the conditions that are given; more than one is an error, none means "present".
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("exact", self.exact.is_some()),
            ("prefix", self.prefix.is_some()),
            ("suffix", self.suffix.is_some()),
            ("regex", self.regex.is_some()),
            ("range", self.range.is_some()),
            ("present", self.present.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(parse_span("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_span("0.1s"), Some(Duration::from_millis(100)));
        assert_eq!(parse_span("20ms"), Some(Duration::from_millis(20)));
        assert_eq!(parse_span("1m30s"), Some(Duration::from_secs(90)));
        for bad in ["", "5", "s", "-1s", "1x", "1.2.3s", "99999999999h"] {
            assert_eq!(parse_span(bad), None, "{bad}");
        }
    }
}
