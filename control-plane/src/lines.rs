//! Where in a YAML document a field stands. Serde does not tell.

use saphyr_parser::{Event, Marker, Parser};

/// The line, from 1, of the field of this path, or of the innermost field around it that is there.
///
/// Paths are as in problems: `spec.routes[0].route[1].weight`, `metadata.annotations[example.org/key]`.
pub(crate) fn line_of_field(document: &str, field: &str) -> Option<usize> {
    let field = dotted(field);
    let mut best: Option<(usize, usize)> = None;
    walk(document, |path, line| {
        let length = path.len();
        if length > best.map_or(0, |(longest, _)| longest) && is_around(path, &field) {
            best = Some((length, line));
        }
    });
    best.map(|(_, line)| line)
}

/// The items of a `List` as documents of their own, each with the line, from 1, in which it begins.
pub(crate) fn items(document: &str) -> Vec<(usize, String)> {
    let mut all = Vec::new();
    let (mut depth, mut at_key, mut in_items) = (0usize, true, false);
    let mut start: Option<Marker> = None;
    for (event, span) in Parser::new_from_str(document).map_while(Result::ok) {
        let (opens, closes) = (
            matches!(event, Event::MappingStart(..) | Event::SequenceStart(..)),
            matches!(event, Event::MappingEnd | Event::SequenceEnd),
        );
        if closes {
            depth = depth.saturating_sub(1);
        }
        let is_node = opens || closes || matches!(event, Event::Scalar(..) | Event::Alias(_));
        match depth {
            // Keys and values of the outermost mapping take turns.
            1 if is_node => {
                if let (true, Event::Scalar(key, ..)) = (at_key, &event) {
                    in_items = key == "items";
                }
                if !opens {
                    at_key = !at_key;
                }
            }
            2 if is_node && in_items => {
                let begin = if closes { start.take() } else { Some(span.start) };
                if opens {
                    start = begin;
                } else if let Some(begin) = begin {
                    all.push((begin.line(), cut(document, begin, span.end)));
                }
            }
            _ => {}
        }
        if opens {
            depth = depth.saturating_add(1);
        }
    }
    all
}

/// A piece, with its first line as far to the right as it was, so that it fits the others.
fn cut(document: &str, from: Marker, to: Marker) -> String {
    let length = to.index().saturating_sub(from.index());
    " ".repeat(from.col()).chars().chain(document.chars().skip(from.index()).take(length)).collect()
}

/// `a[b/c]` is `a.b/c`; indices stay.
fn dotted(field: &str) -> String {
    let mut out = String::new();
    for part in field.split_inclusive('[') {
        match part.split_once(']') {
            Some((key, rest)) if !key.is_empty() && !key.bytes().all(|b| b.is_ascii_digit()) => {
                out.pop();
                out.push('.');
                out.push_str(key);
                out.push_str(rest);
            }
            _ => out.push_str(part),
        }
    }
    out
}

fn is_around(path: &str, field: &str) -> bool {
    field.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A mapping or sequence that is open.
struct Frame {
    path: String,
    /// Of a sequence: the next index.
    index: Option<usize>,
    /// Of a mapping: the key whose value is next.
    key: Option<String>,
}

/// Tells the path and line of every key and item, up to where the document is no YAML any more.
fn walk(document: &str, mut tell: impl FnMut(&str, usize)) {
    let mut open: Vec<Frame> = Vec::new();
    for (event, span) in Parser::new_from_str(document).map_while(Result::ok) {
        let index = match &event {
            Event::MappingStart(..) => None,
            Event::SequenceStart(..) => Some(0),
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                continue;
            }
            Event::Scalar(..) | Event::Alias(_) => None,
            _ => continue,
        };
        let path = match open.last_mut() {
            None => String::new(),
            Some(Frame { path, index: Some(index), .. }) => {
                let path = format!("{path}[{index}]");
                *index = index.saturating_add(1);
                tell(&path, span.start.line());
                path
            }
            Some(Frame { path, key, .. }) => match (key.take(), &event) {
                (Some(key), _) => join(path, &key),
                (None, Event::Scalar(text, ..)) => {
                    tell(&join(path, text), span.start.line());
                    *key = Some(text.to_string());
                    continue;
                }
                // Keys that are no words have no fields of ours below them.
                (None, _) => {
                    *key = Some("?".to_owned());
                    join(path, "?")
                }
            },
        };
        if matches!(event, Event::MappingStart(..) | Event::SequenceStart(..)) {
            open.push(Frame { path, index, key: None });
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "kind: X # ä
metadata: {name: x, annotations: {example.org/a.b: c}}
spec:
  routes:
  - name: one
    route:
    - {destination: {host: a}}
    -
      weight: 1
      destination:
        host: b
  - &two
    name: two
  text: |
    routes:
  other: *two
  last: 1
";

    #[test]
    fn fields_are_found() {
        for (field, line) in [
            ("kind", 1),
            ("metadata.name", 2),
            ("metadata.annotations[example.org/a.b]", 2),
            ("spec", 3),
            ("spec.routes[0]", 5),
            ("spec.routes[0].route[0].destination.host", 7),
            ("spec.routes[0].route[1].weight", 9),
            ("spec.routes[0].route[1].destination.subset", 10),
            ("spec.routes[1].name", 13),
            ("spec.routes[10]", 4),
            ("spec.last", 17),
        ] {
            assert_eq!(line_of_field(DOCUMENT, field), Some(line), "{field}");
        }
        assert_eq!(line_of_field(DOCUMENT, "nothing"), None);
        assert_eq!(line_of_field("a: 1\nb: [", "b"), Some(2));
    }

    #[test]
    fn items_are_cut_out() {
        let list = "kind: List\nitems:\n- kind: A\n  spec:\n    x: 1\n-   kind: Ä\n    y: [1]\n- {kind: C}\nmetadata: {items: [1]}\n";
        let all = items(list);
        let shown: Vec<(usize, &str)> = all.iter().map(|(line, text)| (*line, text.trim_end())).collect();
        assert_eq!(shown, [(3, "  kind: A\n  spec:\n    x: 1"), (6, "    kind: Ä\n    y: [1]"), (8, "  {kind: C}")]);
        assert_eq!(items("{kind: List, items: [{a: b}, {c: {d: e}}]}").len(), 2);
        assert!(items("kind: List\nitems: null\n").is_empty());
    }
}
