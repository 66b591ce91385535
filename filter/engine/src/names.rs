//! How metadata and HTTP headers correspond: the contract between inlet, outlet and the routes that the control plane
//! writes.
//!
//! | metadata | HTTP |
//! |---|---|
//! | service, method | `:path` = `/service/method` (`/method` without a service), and [`SERVICE`], [`METHOD`] |
//! | header with a safe name and a safe value | its name in lower case, its value |
//! | any other header | [`META_PREFIX`] + escaped name, escaped value |
//!
//! *Safe* names are HTTP tokens without `%` that are not [reserved](is_reserved); safe values are printable ASCII and
//! tabs without white space at the ends. *Escaped* is percent-encoding with lower-case digits; in names upper-case
//! letters are escaped as well, so that nothing is lost to HTTP's lower case.

use std::borrow::Cow;

/// Everything that is ours starts with this, in both directions, and never enters a frame.
pub const PREFIX: &str = "x-meltemi-";
/// Request: the codec's name.
pub const PROTOCOL: &str = "x-meltemi-protocol";
/// Request: the service, escaped if it is no safe value.
pub const SERVICE: &str = "x-meltemi-service";
/// Request: the method, escaped if it is no safe value.
pub const METHOD: &str = "x-meltemi-method";
/// Request: `one-way` if no reply is wanted; absent otherwise.
pub const KIND: &str = "x-meltemi-kind";
/// Value of [`KIND`].
pub const ONE_WAY: &str = "one-way";
/// Request: the host's name for the client's connection; absent if the host gives it none.
pub const CONNECTION: &str = "x-meltemi-connection";
/// Response made by the outlet: `ok`, `exception`, or the name of a [`FailureKind`](meltemi_core::FailureKind).
/// Absent on replies that Envoy made.
pub const REPLY: &str = "x-meltemi-reply";
/// Response: present on replies of the outlet whose connection must not be used again; the inlet resets the stream.
pub const RETIRE: &str = "x-meltemi-retire";
/// Response made by Envoy, added by `local_reply_config`: `%RESPONSE_CODE_DETAILS%`.
pub const DETAILS: &str = "x-meltemi-details";
/// Response made by Envoy, added by `local_reply_config`: `%RESPONSE_FLAGS%`.
pub const FLAGS: &str = "x-meltemi-flags";
/// Prefix of metadata whose name or value is not safe as it is; the rest of the name and the value are escaped.
pub const META_PREFIX: &str = "x-meltemi-meta-";

/// Names that metadata must not take and that never enter a frame, unless the configuration passes them on purpose:
/// what HTTP and Envoy give a meaning to.
const RESERVED: &[&str] = &[
    "accept-encoding",
    "authorization",
    "baggage",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "server",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-client-trace-id",
    "x-request-id",
];

/// Prefixes of reserved names.
const RESERVED_PREFIXES: &[&str] = &[
    "x-meltemi-",
    "x-envoy-",
    "x-forwarded-",
    "x-b3-",
    "x-ot-",
    "x-cloud-trace-",
    "x-istio-",
    "traceparent",
    "tracestate",
];

/// The header's name is one that HTTP, Envoy, Istio or we give a meaning to. `name` is in lower case.
pub fn is_reserved(name: &[u8]) -> bool {
    RESERVED.binary_search_by(|probe| probe.as_bytes().cmp(name)).is_ok()
        || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// The name, put into lower case, can be an HTTP header without being escaped.
pub fn is_safe_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && name.iter().all(|byte| is_token_byte(*byte) && *byte != b'%')
        && !is_reserved_any_case(name)
}

/// The value can be an HTTP header value without being escaped.
pub fn is_safe_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    value.iter().all(|byte| matches!(byte, 0x20..=0x7e | b'\t')) && !blank(value.first()) && !blank(value.last())
}

fn is_reserved_any_case(name: &[u8]) -> bool {
    // Every reserved name or prefix begins with one of these: spares the copy for all others.
    if !matches!(name.first().map(u8::to_ascii_lowercase), Some(b'a'..=b'h' | b'k' | b'p' | b's'..=b'x')) {
        return false;
    }
    let mut lower = [0u8; 256];
    match lower.get_mut(..name.len()) {
        Some(lower) => {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            is_reserved(lower)
        }
        None => true,
    }
}

const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
        | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn escape_into(bytes: &[u8], out: &mut Vec<u8>, plain: impl Fn(u8) -> bool) {
    for &byte in bytes {
        if plain(byte) {
            out.push(byte);
        } else {
            let digit = |n: u8| HEX.get(usize::from(n)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0x0f)]);
        }
    }
}

/// Appends `name` as it stands behind [`META_PREFIX`].
pub fn escape_name_into(name: &[u8], out: &mut Vec<u8>) {
    escape_into(name, out, |byte| is_token_byte(byte) && byte != b'%' && !byte.is_ascii_uppercase());
}

/// Appends `value` as it stands in an escaped header.
pub fn escape_value_into(value: &[u8], out: &mut Vec<u8>) {
    escape_into(value, out, |byte| matches!(byte, 0x21..=0x7e) && byte != b'%');
}

/// Appends one segment of `:path`. A segment of dots alone is escaped, so that no path normalisation eats it.
pub fn escape_segment_into(segment: &[u8], out: &mut Vec<u8>) {
    let dots = segment.iter().all(|byte| *byte == b'.');
    escape_into(segment, out, |byte| {
        (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'$' | b'.')) && !(dots && byte == b'.')
    });
}

/// Appends `:path` for a service (may be empty) and a method.
pub fn path_into(service: &[u8], method: &[u8], out: &mut Vec<u8>) {
    out.push(b'/');
    if !service.is_empty() {
        escape_segment_into(service, out);
        out.push(b'/');
    }
    escape_segment_into(method, out);
}

/// Undoes [`escape_name_into`] and [`escape_value_into`]; `None` if it is not such a text.
pub fn unescape(escaped: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !escaped.contains(&b'%') {
        return Some(Cow::Borrowed(escaped));
    }
    let mut out = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|d| char::from(*d).to_digit(16));
        let value = digit()?.checked_mul(16)?.checked_add(digit()?)?;
        out.push(u8::try_from(value).ok()?);
    }
    Some(Cow::Owned(out))
}

fn text(bytes: Vec<u8>) -> String {
    // Only called with the output of the escape functions, which is ASCII.
    String::from_utf8(bytes).unwrap_or_default()
}

/// The HTTP header under which a route finds metadata `key`, and `value` as it stands there. Without a value (prefix,
/// regex, presence) the header for safe values is named.
///
/// `key` is `service`, `method`, or the name of a header.
pub fn match_header(key: &str, value: Option<&str>) -> (String, Option<String>) {
    let fixed = match key {
        "service" => Some(SERVICE),
        "method" => Some(METHOD),
        _ => None,
    };
    let value_is_safe = value.is_none_or(|value| is_safe_value(value.as_bytes()));
    let escaped_value = || {
        value.map(|value| {
            let mut out = Vec::new();
            escape_value_into(value.as_bytes(), &mut out);
            text(out)
        })
    };
    match fixed {
        Some(name) if value_is_safe => (name.to_owned(), value.map(str::to_owned)),
        Some(name) => (name.to_owned(), escaped_value()),
        None if value_is_safe && is_safe_name(key.as_bytes()) => (key.to_ascii_lowercase(), value.map(str::to_owned)),
        None => (meta_name(key), escaped_value()),
    }
}

/// The HTTP header that a route sets or removes to change metadata `key` to `value` in the frame. Upper-case letters of
/// a new name survive, so `batchId` arrives as it was written.
pub fn mutation_header(key: &str, value: &str) -> (String, String) {
    let plain = is_safe_name(key.as_bytes())
        && is_safe_value(value.as_bytes())
        && !key.bytes().any(|byte| byte.is_ascii_uppercase());
    if plain {
        return (key.to_owned(), value.to_owned());
    }
    let mut escaped = Vec::new();
    escape_value_into(value.as_bytes(), &mut escaped);
    (meta_name(key), text(escaped))
}

/// [`META_PREFIX`] + escaped `key`.
pub fn meta_name(key: &str) -> String {
    let mut name = META_PREFIX.as_bytes().to_vec();
    escape_name_into(key.as_bytes(), &mut name);
    text(name)
}

/// `:path` of a service (may be empty) and a method.
pub fn path(service: &str, method: &str) -> String {
    let mut out = Vec::new();
    path_into(service.as_bytes(), method.as_bytes(), &mut out);
    text(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_sorted_for_the_search() {
        assert!(RESERVED.is_sorted());
        assert!(RESERVED.iter().all(|name| is_reserved(name.as_bytes()) && !is_safe_name(name.as_bytes())));
        assert!(is_reserved(b"x-envoy-retry-on") && !is_reserved(b"env") && !is_reserved(b"remote.application"));
        assert!(!is_safe_name(b"X-Request-ID") && !is_safe_name(b"TraceParent") && is_safe_name(b"batchId"));
    }

    #[test]
    fn metadata_finds_its_header() {
        let found = |key, value| {
            let (name, value) = match_header(key, value);
            (name, value.unwrap_or_default())
        };
        assert_eq!(found("batchId", Some("b-1")), ("batchid".into(), "b-1".into()));
        assert_eq!(found("host", Some("a")), ("x-meltemi-meta-host".into(), "a".into()));
        assert_eq!(found("名", Some("v")), ("x-meltemi-meta-%e5%90%8d".into(), "v".into()));
        assert_eq!(found("env", Some(" grün")), ("x-meltemi-meta-env".into(), "%20gr%c3%bcn".into()));
        assert_eq!(found("method", None), (METHOD.into(), String::new()));
        assert_eq!(mutation_header("batchId", "1"), ("x-meltemi-meta-batch%49d".into(), "1".into()));
    }

    #[test]
    fn paths_cannot_be_bent() {
        assert_eq!(path("peer.Demo", "hello"), "/peer.Demo/hello");
        assert_eq!(path("", "hello"), "/hello");
        assert_eq!(path("..", "a/b?c#d%2f"), "/%2e%2e/a%2fb%3fc%23d%252f");
    }

    #[test]
    fn escaping_is_undone() {
        let all: Vec<u8> = (0..=255).collect();
        let mut escaped = Vec::new();
        escape_value_into(&all, &mut escaped);
        assert!(is_safe_value(&escaped));
        assert_eq!(unescape(&escaped).as_deref(), Some(all.as_slice()));
        assert_eq!(unescape(b"%4"), None);
        assert_eq!(unescape(b"%zz"), None);
    }
}
