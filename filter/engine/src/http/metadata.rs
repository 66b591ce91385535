use meltemi_core::{Metadata, Mutation};

use super::{HeaderSource, HeaderStore};
use crate::{config::ConfigError, names};

/// Reserved names that the configuration passes on purpose, in lower case. What they mean in HTTP counts: their values are
/// not escaped, unless HTTP could not carry them.
#[derive(Debug, Default, Clone)]
pub(crate) struct PassHeaders(Vec<Vec<u8>>);

impl PassHeaders {
    /// # Errors
    /// If one of them cannot be an HTTP header, or must not be one.
    pub(crate) fn new(configured: &[String]) -> Result<Self, ConfigError> {
        let check = |(index, name): (usize, &String)| {
            names::passed(name)
                .map(String::into_bytes)
                .map_err(|reason| ConfigError(format!("field `pass_headers[{index}]`: {reason}")))
        };
        Ok(Self(configured.iter().enumerate().map(check).collect::<Result<_, _>>()?))
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|passed| passed.eq_ignore_ascii_case(name))
    }
}

/// How a header of a frame stands in HTTP.
#[derive(Clone, Copy)]
enum Form {
    /// Under its own name, its value as it is.
    Passed,
    /// Under its own name, its value escaped.
    Plain,
    /// Under our prefix, name and value escaped.
    Meta,
}

impl Form {
    fn of(name: &[u8], value: &[u8], pass: &PassHeaders) -> Self {
        if pass.contains(name) {
            if names::is_http_value(value) { Self::Passed } else { Self::Plain }
        } else if names::is_safe_name(name) {
            Self::Plain
        } else {
            Self::Meta
        }
    }

    fn is_name(self, header: &[u8], name: &[u8]) -> bool {
        match self {
            Self::Passed | Self::Plain => header.eq_ignore_ascii_case(name),
            Self::Meta => header
                .strip_prefix(names::META_PREFIX.as_bytes())
                .is_some_and(|header| names::is_escaped_name(header, name)),
        }
    }

    fn is_value(self, header: &[u8], value: &[u8]) -> bool {
        match self {
            Self::Passed => header == value,
            Self::Plain | Self::Meta => names::is_escaped_value(header, value),
        }
    }
}

/// Adds every header of `metadata` to `store` as it stands in HTTP.
pub(crate) fn represent(metadata: &Metadata<'_>, pass: &PassHeaders, store: &mut HeaderStore) {
    metadata.for_each_header(|name, value| {
        let form = Form::of(name, value, pass);
        let put_name = |text: &mut Vec<u8>| match form {
            Form::Passed | Form::Plain => text.extend(name.iter().map(u8::to_ascii_lowercase)),
            Form::Meta => {
                text.extend_from_slice(names::META_PREFIX.as_bytes());
                names::escape_name_into(name, text);
            }
        };
        let put_value = |text: &mut Vec<u8>| match form {
            Form::Passed => text.extend_from_slice(value),
            Form::Plain | Form::Meta => names::escape_value_into(value, text),
        };
        store.push_with(put_name, put_value);
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
    metadata.for_each_header(|name, value| {
        let form = Form::of(name, value, pass);
        match headers.see(|header| form.is_name(header, name), |header| form.is_value(header, value)) {
            Some(None) => {}
            Some(Some(changed)) => set(mutation, name, changed, pass),
            None => mutation.remove(name),
        }
    });
    for (name, value) in headers.unseen() {
        match name.strip_prefix(names::META_PREFIX.as_bytes()).map(names::unescape) {
            None => set(mutation, name, value, pass),
            Some(Some(name)) => set(mutation, &name, value, pass),
            // Not a name that we write: it stands for nothing.
            Some(None) => {}
        }
    }
}

/// A value that somebody else wrote: escaped, or as it is meant.
fn set(mutation: &mut Mutation, name: &[u8], value: &[u8], pass: &PassHeaders) {
    match (!pass.contains(name)).then(|| names::unescape(value)).flatten() {
        Some(value) => mutation.set(name, &value),
        None => mutation.set(name, value),
    }
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
        let pass = PassHeaders::new(&pass.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
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
        let frame = "batchId=b-1;host=evil;名=値;empty=;a=1;a=2;x-request-id=7%; lead= v;pct=5%;esc=%20;in=a b";
        for pass in [&[][..], &["X-Request-Id"]] {
            let passed =
                PassHeaders::new(&pass.iter().map(|name: &&str| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
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
    fn an_odd_value_does_not_hide_its_header() {
        let mut http = HeaderStore::new();
        represent(&metadata("env=gräy;role= admin;host=h\n".as_bytes()), &PassHeaders::default(), &mut http);
        let shown: Vec<_> =
            http.iter().map(|(n, v)| (str::from_utf8(n).unwrap(), str::from_utf8(v).unwrap())).collect();
        assert_eq!(shown, [("env", "gr%c3%a4y"), ("role", "%20admin"), ("x-meltemi-meta-host", "h%0a")]);
    }

    #[test]
    fn changed_values_are_unescaped_if_they_are_escaped() {
        let changed = [("env", "gr%c3%bcn"), ("pct", "100%"), ("new", "a%20b")];
        assert_eq!(changes("env=gräy;pct=5%", &changed, &[]), ["env=grün", "pct=100%", "new=a b"]);
        assert_eq!(changes("", &[("baggage", "a%20b")], &["baggage"]), ["baggage=a%20b"]);
    }

    #[test]
    fn only_what_can_be_passed_may_be_configured() {
        for (name, good) in [
            ("X-Request-Id", true),
            ("b3", true),
            ("", false),
            ("a b", false),
            ("Host", false),
            ("x-meltemi-kind", false),
        ] {
            let result = PassHeaders::new(&[name.to_owned()]);
            assert_eq!(result.is_ok(), good, "{name}");
            assert!(result.err().is_none_or(|error| error.0.starts_with("field `pass_headers[0]`: ")));
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
