//! Conditions on metadata → conditions on the headers that the inlet makes of it.

use envoy_types::pb::envoy::{
    config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    r#type::{
        matcher::v3::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
        v3::Int64Range,
    },
};
use meltemi_engine::names::{match_header, match_prefix, match_suffix, match_value};

use super::re2;
use crate::model::{RouteMatch, StringMatch};

/// A field that is wrong, below the match, and why.
pub(super) type Wrong = (String, String);

/// Matchers for all conditions of a match, in the order of their names. `aliases` are other names for the service.
pub(super) fn headers(conditions: &RouteMatch, aliases: &[&str]) -> Result<Vec<HeaderMatcher>, Wrong> {
    conditions
        .attributes
        .iter()
        .map(|(key, condition)| {
            header(key, condition.as_ref(), aliases).map_err(|reason| (format!("attributes.{key}"), reason))
        })
        .collect()
}

fn header(key: &str, condition: Option<&StringMatch>, aliases: &[&str]) -> Result<HeaderMatcher, String> {
    if key.is_empty() {
        return Err("a condition needs a name".to_owned());
    }
    let condition = condition.cloned().unwrap_or_default();
    let given = condition.given();
    if given.len() > 1 {
        return Err(format!("only one of {} can be given", given.join(", ")));
    }
    let key = metadata_key(key, aliases);
    let plain = |pattern| {
        HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(pattern),
            ignore_case: condition.ignore_case,
        })
    };
    let name = match_header(key, None).0;
    let specifier = if let Some(exact) = &condition.exact {
        plain(MatchPattern::Exact(match_value(exact)))
    } else if let Some(prefix) = &condition.prefix {
        plain(MatchPattern::Prefix(match_prefix(not_empty(prefix)?)))
    } else if let Some(suffix) = &condition.suffix {
        plain(MatchPattern::Suffix(match_suffix(not_empty(suffix)?)))
    } else if let Some(regex) = condition.regex.as_ref().filter(|regex| *regex != ANYTHING) {
        check_regex(regex, condition.ignore_case)?;
        plain(MatchPattern::SafeRegex(RegexMatcher { regex: regex.clone(), ..RegexMatcher::default() }))
    } else if let Some(range) = condition.range {
        if range.start >= range.end {
            return Err(format!("the range from {} to {} is empty", range.start, range.end));
        }
        HeaderMatchSpecifier::RangeMatch(Int64Range { start: range.start, end: range.end })
    } else {
        HeaderMatchSpecifier::PresentMatch(condition.present.unwrap_or(true))
    };
    let presence = matches!(specifier, HeaderMatchSpecifier::PresentMatch(_));
    Ok(HeaderMatcher {
        name,
        invert_match: condition.invert,
        // "Not this value" is also true of a header that is missing.
        treat_missing_header_as_empty: condition.invert && !presence,
        header_match_specifier: Some(specifier),
    })
}

/// Finds why Envoy would refuse an expression.
pub(crate) fn check_regex(regex: &str, ignore_case: bool) -> Result<(), String> {
    re2::check(regex).map_err(|reason| format!("regex: {reason}"))?;
    if ignore_case {
        return Err("ignoreCase is for literals; write (?i) in the expression".to_owned());
    }
    Ok(())
}

/// `interface` of Dubbo is the service.
pub(crate) fn metadata_key<'k>(key: &'k str, aliases: &[&str]) -> &'k str {
    if aliases.contains(&key) { "service" } else { key }
}

/// Envoy refuses an empty literal.
fn not_empty(literal: &str) -> Result<&str, String> {
    if literal.is_empty() {
        Err("an empty text begins and ends everything; write `present: true`".to_owned())
    } else {
        Ok(literal)
    }
}

/// Aeraki's way to say "present"; no expression by itself.
pub(super) const ANYTHING: &str = "*";
