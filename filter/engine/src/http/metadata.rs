use meltemi_core::{Metadata, Mutation};

use super::{HeaderSource, HeaderStore};
use crate::names;

/// Reserved names that the configuration passes on purpose, in lower case.
#[derive(Debug, Default, Clone)]
pub(crate) struct PassHeaders(Vec<Vec<u8>>);

impl PassHeaders {
    pub(crate) fn new(configured: &[String]) -> Self {
        Self(configured.iter().map(|name| name.to_ascii_lowercase().into_bytes()).collect())
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|passed| passed.eq_ignore_ascii_case(name))
    }
}

/// Adds every header of `metadata` to `store` as it stands in HTTP.
pub(crate) fn represent(metadata: &Metadata<'_>, pass: &PassHeaders, store: &mut HeaderStore) {
    metadata.for_each_header(|name, value| {
        if is_plain(name, value, pass) {
            store.push_with(
                |text| text.extend(name.iter().map(u8::to_ascii_lowercase)),
                |text| text.extend_from_slice(value),
            );
        } else {
            store.push_with(
                |text| {
                    text.extend_from_slice(names::META_PREFIX.as_bytes());
                    names::escape_name_into(name, text);
                },
                |text| names::escape_value_into(value, text),
            );
        }
    });
}

/// Adds those of `headers` to `store` that stand for metadata: all but pseudo headers and reserved names.
pub(crate) fn candidates(headers: &dyn HeaderSource, pass: &PassHeaders, store: &mut HeaderStore) {
    headers.for_each(&mut |name, value| {
        let ours = name.starts_with(names::META_PREFIX.as_bytes());
        if ours || pass.contains(name) || !(name.starts_with(b":") || names::is_reserved(name)) {
            store.push(name, value);
        }
    });
}

/// The mutation that turns the frame's `metadata` into what `headers` (as [`candidates`] left them) say.
pub(crate) fn diff(metadata: &Metadata<'_>, headers: &mut HeaderStore, pass: &PassHeaders, mutation: &mut Mutation) {
    let mut escaped = Vec::new();
    metadata.for_each_header(|name, value| {
        let found = if is_plain(name, value, pass) {
            headers.see(|header| header.eq_ignore_ascii_case(name), |header| header == value)
        } else {
            escaped.clear();
            names::escape_name_into(name, &mut escaped);
            let name = |header: &[u8]| header.strip_prefix(names::META_PREFIX.as_bytes()) == Some(escaped.as_slice());
            headers.see(name, |header| names::unescape(header).as_deref() == Some(value))
        };
        match found {
            Some(None) => {}
            Some(Some(changed)) => set(mutation, name, changed, !is_plain(name, value, pass)),
            None => mutation.remove(name),
        }
    });
    for (name, value) in headers.unseen() {
        match name.strip_prefix(names::META_PREFIX.as_bytes()).map(names::unescape) {
            None => mutation.set(name, value),
            Some(Some(name)) => set(mutation, &name, value, true),
            // Not a name that we write: it stands for nothing.
            Some(None) => {}
        }
    }
}

fn set(mutation: &mut Mutation, name: &[u8], value: &[u8], escaped: bool) {
    match escaped.then(|| names::unescape(value)).flatten() {
        Some(value) => mutation.set(name, &value),
        None => mutation.set(name, value),
    }
}

fn is_plain(name: &[u8], value: &[u8], pass: &PassHeaders) -> bool {
    names::is_safe_value(value) && (names::is_safe_name(name) || pass.contains(name))
}

#[cfg(test)]
mod tests {
    use meltemi_core::Change;

    use super::*;

    /// Headers as `name=value` separated by `;`.
    fn walk<'b>(block: &'b [u8], _: &meltemi_core::Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
        for header in block.split(|byte| *byte == b';').filter(|header| !header.is_empty()) {
            let mut parts = header.splitn(2, |byte| *byte == b'=');
            visit(parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        }
    }

    fn metadata(block: &[u8]) -> Metadata<'_> {
        Metadata::new(b"s", b"m").with_headers(block, [0; 6], walk)
    }

    fn store(headers: &[(&str, &str)]) -> HeaderStore {
        let mut all = HeaderStore::new();
        for (name, value) in headers {
            all.push(name.as_bytes(), value.as_bytes());
        }
        all
    }

    fn changes(frame: &str, headers: &[(&str, &str)], pass: &[&str]) -> Vec<String> {
        let pass = PassHeaders::new(&pass.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let (mut kept, mut mutation) = (HeaderStore::new(), Mutation::new());
        candidates(&store(headers), &pass, &mut kept);
        diff(&metadata(frame.as_bytes()), &mut kept, &pass, &mut mutation);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        mutation
            .iter()
            .map(|change| match change {
                Change::Set(name, value) => format!("{}={}", text(name), text(value)),
                Change::Remove(name) => format!("-{}", text(name)),
            })
            .collect()
    }

    #[test]
    fn what_went_in_and_came_back_is_no_mutation() {
        let frame = "batchId=b-1;host=evil;名=値;empty=;a=1;a=2;x-request-id=7; lead= v";
        for pass in [&[][..], &["X-Request-Id"]] {
            let passed = PassHeaders::new(&pass.iter().map(|name: &&str| (*name).to_owned()).collect::<Vec<_>>());
            let mut http = HeaderStore::new();
            represent(&metadata(frame.as_bytes()), &passed, &mut http);
            let text: Vec<_> =
                http.iter().map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect();
            let headers: Vec<(&str, &str)> = text.iter().map(|(n, v)| (n.as_ref(), v.as_ref())).collect();
            assert!(headers.iter().all(|(name, value)| *name == name.to_ascii_lowercase() && value.is_ascii()));
            assert_eq!(changes(frame, &headers, pass), Vec::<String>::new());
        }
    }

    #[test]
    fn changes_become_a_mutation() {
        let added = [("env", "gray"), ("batchid", "b-2"), ("x-meltemi-meta-trace%49d", "a%20b")];
        assert_eq!(changes("batchId=b-1;debug=1", &added, &[]), ["batchId=b-2", "-debug", "env=gray", "traceId=a b"]);
    }

    #[test]
    fn what_envoy_adds_stays_out() {
        let envoy = [
            (":path", "/"),
            ("x-request-id", "1"),
            ("x-envoy-attempt-count", "1"),
            ("content-length", "3"),
            ("x-meltemi-service", "s"),
        ];
        assert_eq!(changes("", &envoy, &[]), Vec::<String>::new());
        assert_eq!(changes("", &envoy, &["x-request-id"]), ["x-request-id=1"]);
    }
}
