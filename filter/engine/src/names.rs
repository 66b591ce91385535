//! How metadata and HTTP headers correspond: the contract between inlet, outlet and the routes that the control plane
//! writes.
//!
//! | metadata | HTTP |
//! |---|---|
//! | service, method | `:path` = `/service/method` (`/method` without a service), and [`SERVICE`], [`METHOD`] with the value escaped |
//! | header with a safe name | its name in lower case, its value escaped |
//! | header with any other name | [`META_PREFIX`] + escaped name, its value escaped |
//!
//! *Safe* names are HTTP tokens without `%` that are not [reserved](is_reserved). So the header that carries a value depends
//! on nothing but the name: a policy that looks at it cannot be avoided by an odd value.
//!
//! *Escaped* is percent-encoding with lower-case digits, of no more than must be. In values: `%`, all bytes but printable
//! ASCII and tabs, and blanks at either end; blanks inside stay. In names: all but token bytes, `%`, and upper-case letters,
//! so that nothing is lost to HTTP's lower case. No two values are escaped to the same text. Matches by regular expression,
//! range, or consistent hash see the escaped value, here as in Envoy.

use std::borrow::Cow;

/// Filter state that access logs can read: the service of the inlet's last request, or of the call by which the relay's
/// connection was routed.
pub const SERVICE_STATE: &str = "meltemi.service";
/// Filter state that access logs can read: the method of the same.
pub const METHOD_STATE: &str = "meltemi.method";
/// Filter state of a connection that an inlet has taken: its protocol.
pub const INLET_STATE: &str = "meltemi.inlet";

/// Everything that is ours starts with this, in both directions, and never enters a frame.
pub const PREFIX: &str = "x-meltemi-";
/// Request: the codec's name.
pub const PROTOCOL: &str = "x-meltemi-protocol";
/// Request: the service, escaped.
pub const SERVICE: &str = "x-meltemi-service";
/// Request: the method, escaped.
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
/// Response made by the outlet: present if the reply's metadata is too large for HTTP headers and is left out. Then nothing
/// can change it, and the client gets the server's bytes.
pub const UNSHOWN: &str = "x-meltemi-unshown";
/// Response made by Envoy, added by `local_reply_config`: `%RESPONSE_CODE_DETAILS%`.
pub const DETAILS: &str = "x-meltemi-details";
/// Response made by Envoy, added by `local_reply_config`: `%RESPONSE_FLAGS%`.
pub const FLAGS: &str = "x-meltemi-flags";
/// Prefix of metadata whose name is not safe as it is; the rest of the name is escaped, as is the value.
pub const META_PREFIX: &str = "x-meltemi-meta-";

/// Names that metadata must not take and that never enter a frame, unless the configuration passes them on purpose:
/// what HTTP gives a meaning to, and what Envoy, its filters and its tracers read, add or remove by themselves.
const RESERVED: &[&str] = &[
    "accept",
    "accept-encoding",
    "alt-svc",
    "authorization",
    "b3",
    "baggage",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "elastic-apm-traceparent",
    "etag",
    "expect",
    "forwarded",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-status-details-bin",
    "grpc-tags-bin",
    "grpc-timeout",
    "grpc-trace-bin",
    "host",
    "http2-settings",
    "jaeger-baggage",
    "jaeger-debug-id",
    "keep-alive",
    "newrelic",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "proxy-status",
    "referer",
    "server",
    "set-cookie",
    "sw8",
    "te",
    "trailer",
    "transfer-encoding",
    "uber-trace-id",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "x-client-trace-id",
    "x-request-id",
];

/// Prefixes of reserved names.
const RESERVED_PREFIXES: &[&str] = &[
    "accept-",
    "access-control-",
    "ot-tracer-",
    "sw8-",
    "traceparent",
    "tracestate",
    "uberctx-",
    "x-amzn-",
    "x-b3-",
    "x-cloud-trace-",
    "x-datadog-",
    "x-envoy-",
    "x-forwarded-",
    "x-instana-",
    "x-istio-",
    "x-meltemi-",
    "x-ot-",
    "x-ratelimit-",
];

/// Names that HTTP/2 itself, or we, could not do without.
const NEVER_PASSED: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A name that a configuration wants to pass between frames and HTTP, in lower case.
///
/// # Errors
/// Why it cannot be passed.
pub fn passed(name: &str) -> Result<String, String> {
    let lower = name.to_ascii_lowercase();
    if !is_token(name.as_bytes()) {
        Err(format!("`{name}` is no HTTP header name"))
    } else if lower.starts_with(PREFIX) || NEVER_PASSED.contains(&lower.as_str()) {
        Err(format!("`{name}` means something to HTTP/2 or to Meltemi and cannot be passed"))
    } else {
        Ok(lower)
    }
}

/// The header's name, in whatever case, is one that HTTP, Envoy, Istio or we give a meaning to.
pub fn is_reserved(name: &[u8]) -> bool {
    let order = |probe: &&str| probe.bytes().cmp(name.iter().map(u8::to_ascii_lowercase));
    RESERVED.binary_search_by(order).is_ok() || RESERVED_PREFIXES.iter().any(|prefix| starts_with(name, prefix))
}

/// `name`, in whatever case, begins with `prefix`.
pub(crate) fn starts_with(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The name, put into lower case, can be an HTTP header without being escaped.
pub fn is_safe_name(name: &[u8]) -> bool {
    name.len() <= 256 && is_token(name) && !name.contains(&b'%') && !is_reserved(name)
}

/// The name can be an HTTP header at all.
pub(crate) fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte))
}

/// The value can be an HTTP header value.
pub(crate) fn is_http_value(value: &[u8]) -> bool {
    value.iter().all(|byte| is_text(*byte))
        && !value.first().is_some_and(is_blank)
        && !value.last().is_some_and(is_blank)
}

/// The value escaped is the value itself.
pub fn is_safe_value(value: &[u8]) -> bool {
    is_http_value(value) && !value.contains(&b'%')
}

const fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

const fn is_text(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e | b'\t')
}

const fn is_token_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
        | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `bytes` with those percent-encoded that are not plain.
fn escaped(bytes: &[u8], plain: impl Fn(u8) -> bool) -> impl Iterator<Item = u8> {
    bytes.iter().flat_map(move |&byte| {
        let digit = |n: u8| HEX.get(usize::from(n)).copied().unwrap_or(b'0');
        let (text, length) =
            if plain(byte) { ([byte, 0, 0], 1) } else { ([b'%', digit(byte >> 4), digit(byte & 0x0f)], 3) };
        text.into_iter().take(length)
    })
}

fn escaped_name(name: &[u8]) -> impl Iterator<Item = u8> {
    escaped(name, |byte| is_token_byte(byte) && byte != b'%' && !byte.is_ascii_uppercase())
}

/// `ends`: whether blanks at the start and at the end of this text are at the ends of the value.
fn escaped_value(value: &[u8], ends: (bool, bool)) -> impl Iterator<Item = u8> {
    let blanks = |asked: bool, count: usize| if asked { count } else { 0 };
    let start = blanks(ends.0, value.iter().take_while(|byte| is_blank(byte)).count());
    let (head, rest) = value.split_at_checked(start).unwrap_or((value, b""));
    let end = blanks(ends.1, rest.iter().rev().take_while(|byte| is_blank(byte)).count());
    let (middle, tail) = rest.split_at_checked(rest.len().saturating_sub(end)).unwrap_or((rest, b""));
    let middle = escaped(middle, |byte| is_text(byte) && byte != b'%');
    escaped(head, |_| false).chain(middle).chain(escaped(tail, |_| false))
}

/// Appends `name` as it stands behind [`META_PREFIX`].
pub fn escape_name_into(name: &[u8], out: &mut Vec<u8>) {
    out.extend(escaped_name(name));
}

/// `text` is [`escape_name_into`] of `name`.
pub(crate) fn is_escaped_name(text: &[u8], name: &[u8]) -> bool {
    text.iter().copied().eq(escaped_name(name))
}

/// Appends `value` as it stands in a header.
pub fn escape_value_into(value: &[u8], out: &mut Vec<u8>) {
    if is_safe_value(value) {
        out.extend_from_slice(value);
    } else {
        out.extend(escaped_value(value, (true, true)));
    }
}

/// The bytes of `value` as they stand in a header.
pub(crate) fn escaped_bytes(value: &[u8]) -> impl Iterator<Item = u8> {
    escaped_value(value, (true, true))
}

/// `text` is [`escape_value_into`] of `value`.
pub(crate) fn is_escaped_value(text: &[u8], value: &[u8]) -> bool {
    if is_safe_value(value) { text == value } else { text.iter().copied().eq(escaped_value(value, (true, true))) }
}

/// Appends one segment of `:path`. A segment of dots alone is escaped, so that no path normalisation eats it.
pub fn escape_segment_into(segment: &[u8], out: &mut Vec<u8>) {
    let dots = segment.iter().all(|byte| *byte == b'.');
    out.extend(escaped(segment, |byte| {
        (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'$' | b'.')) && !(dots && byte == b'.')
    }));
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

/// The HTTP header under which a route finds metadata `key`, whatever its value, and `value` as it stands there.
///
/// `key` is `service`, `method`, or the name of a header.
pub fn match_header(key: &str, value: Option<&str>) -> (String, Option<String>) {
    let name = match key {
        "service" => SERVICE.to_owned(),
        "method" => METHOD.to_owned(),
        _ if is_safe_name(key.as_bytes()) => key.to_ascii_lowercase(),
        _ => meta_name(key),
    };
    (name, value.map(match_value))
}

/// `value` as it stands in a header.
pub fn match_value(value: &str) -> String {
    text(escaped_value(value.as_bytes(), (true, true)).collect())
}

/// What the header of a value that begins with `prefix` begins with. Blanks at the prefix's end are taken to be inside the
/// value.
pub fn match_prefix(prefix: &str) -> String {
    text(escaped_value(prefix.as_bytes(), (true, false)).collect())
}

/// What the header of a value that ends with `suffix` ends with. Blanks at the suffix's start are taken to be inside the
/// value.
pub fn match_suffix(suffix: &str) -> String {
    text(escaped_value(suffix.as_bytes(), (false, true)).collect())
}

/// The HTTP header that a route sets or removes to change metadata `key` to `value` in the frame. Upper-case letters of
/// a new name survive, so `batchId` arrives as it was written.
pub fn mutation_header(key: &str, value: &str) -> (String, String) {
    let plain = is_safe_name(key.as_bytes()) && !key.bytes().any(|byte| byte.is_ascii_uppercase());
    (if plain { key.to_owned() } else { meta_name(key) }, match_value(value))
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
        assert!(
            is_reserved(b"x-envoy-retry-on")
                && is_reserved(b"Referer")
                && !is_reserved(b"env")
                && !is_reserved(b"remote.application")
        );
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
        assert_eq!(found("env", Some(" grün 5%")), ("env".into(), "%20gr%c3%bcn 5%25".into()));
        assert_eq!((match_prefix(" a "), match_suffix(" a ")), ("%20a ".into(), " a%20".into()));
        assert_eq!(mutation_header("env", "5%"), ("env".into(), "5%25".into()));
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
        assert!(is_http_value(&escaped) && is_escaped_value(&escaped, &all));
        assert_eq!(unescape(&escaped).as_deref(), Some(all.as_slice()));
        for value in [&b""[..], b" ", b"\t \t", b" a b ", b"a\tb", b"%", b"%20", b"a%2", b"\r\n", b"\xff"] {
            let text: Vec<u8> = escaped_bytes(value).collect();
            assert!(is_http_value(&text) && is_escaped_value(&text, value), "{value:?}");
            assert_eq!(unescape(&text).as_deref(), Some(value));
        }
        assert_eq!(unescape(b"%4"), None);
        assert_eq!(unescape(b"%zz"), None);
    }
}
