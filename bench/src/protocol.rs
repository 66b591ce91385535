//! Requests and replies by hand: the generator must not depend on what it measures.

use clap::ValueEnum;

const METHOD: &[u8] = b"echo";
/// Framed strict binary Thrift up to the first field: frame length, version and kind, name, sequence number.
const THRIFT_HEAD: usize = 4 + 4 + 4 + METHOD.len() + 4;
const DUBBO_HEAD: usize = 16;
const HTTP2_FRAME_HEAD: usize = 9;

/// What is spoken. There is no server for HTTP/2: its clients are for idle connections only. Of frames in HTTP there are only
/// servers: they answer an inlet as the router does behind which there is an outlet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    Thrift,
    Dubbo,
    Http1,
    Http2,
    ThriftInHttp1,
    DubboInHttp1,
}

impl Protocol {
    /// A call with a payload of this many bytes.
    pub(crate) fn request(self, payload: usize) -> Vec<u8> {
        let payload = vec![b'x'; payload];
        match self {
            Self::Thrift => thrift_request(&payload),
            Self::Dubbo => dubbo_request(&payload),
            Self::Http1 => http1_request(&payload),
            Self::Http2 => http2_request(),
            Self::ThriftInHttp1 => http1_request(&thrift_request(&payload)),
            Self::DubboInHttp1 => http1_request(&dubbo_request(&payload)),
        }
    }

    /// The reply to a whole request, with the request's payload.
    pub(crate) fn reply(self, request: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Thrift => {
                let start = out.len();
                out.extend_from_slice(request);
                // Kind REPLY (2) and field 0: all else of an echo is as in the request.
                set(out, start + 7, 2);
                set(out, start + THRIFT_HEAD + 2, 0);
            }
            Self::Dubbo => dubbo_reply(request, out),
            Self::Http1 | Self::Http2 => http1_reply("", http1_body(request), out),
            Self::ThriftInHttp1 => Self::Thrift.reply_in_http1(request, out),
            Self::DubboInHttp1 => Self::Dubbo.reply_in_http1(request, out),
        }
    }

    /// The reply to a frame that came in HTTP, with the outlet's mark.
    fn reply_in_http1(self, request: &[u8], out: &mut Vec<u8>) {
        let mut reply = Vec::new();
        self.reply(http1_body(request), &mut reply);
        http1_reply("x-meltemi-reply: ok\r\n", &reply, out);
    }

    /// Length of the first message of `buffer`; `None` if it is not there yet.
    pub(crate) fn message_length(self, buffer: &[u8]) -> Option<usize> {
        let length = match self {
            Self::Thrift => 4 + number(buffer, 0)?,
            Self::Dubbo => DUBBO_HEAD + number(buffer, 12)?,
            Self::Http1 | Self::ThriftInHttp1 | Self::DubboInHttp1 => http1_length(buffer)?,
            Self::Http2 => http2_length(buffer)?,
        };
        (buffer.len() >= length).then_some(length)
    }

    /// The reply says that the call succeeded.
    pub(crate) fn succeeded(self, reply: &[u8]) -> bool {
        match self {
            Self::Thrift => reply.get(7) == Some(&2),
            Self::Dubbo => reply.get(3) == Some(&20),
            Self::Http1 | Self::ThriftInHttp1 | Self::DubboInHttp1 => reply.starts_with(b"HTTP/1.1 200"),
            Self::Http2 => !reply.is_empty(),
        }
    }
}

fn thrift_request(payload: &[u8]) -> Vec<u8> {
    let body = [
        &[0x80, 0x01, 0, 1][..],
        &length(METHOD),
        METHOD,
        &[0, 0, 0, 1],
        // A string as field 1, then the end of the struct.
        &[11, 0, 1],
        &length(payload),
        payload,
        &[0],
    ]
    .concat();
    [&length(&body)[..], &body].concat()
}

fn dubbo_request(payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for text in [&b"2.0.2"[..], b"peer.Demo", b"0.0.0", METHOD, b"Ljava/lang/String;", payload] {
        hessian_string(text, &mut body);
    }
    body.push(b'H');
    for text in [&b"path"[..], b"peer.Demo", b"interface", b"peer.Demo", b"version", b"0.0.0"] {
        hessian_string(text, &mut body);
    }
    body.push(b'Z');
    // Two-way request in hessian2 (serialization 2).
    [&[0xda, 0xbb, 0xc2, 0][..], &1u64.to_be_bytes(), &length(&body), &body].concat()
}

fn dubbo_reply(request: &[u8], out: &mut Vec<u8>) {
    // The payload is the sixth string of the body.
    let body = request.get(DUBBO_HEAD..).unwrap_or_default();
    let mut at = 0;
    let mut value: &[u8] = &[];
    for _ in 0..6 {
        value = hessian_string_at(body, at);
        at += value.len();
    }
    out.extend_from_slice(&[0xda, 0xbb, 0x02, 20]);
    out.extend_from_slice(request.get(4..12).unwrap_or_default());
    // A value without attachments (1) and the string as it came.
    let size = u32::try_from(value.len() + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&size.to_be_bytes());
    out.push(0x91);
    out.extend_from_slice(value);
}

fn hessian_string(text: &[u8], out: &mut Vec<u8>) {
    let [high, low] = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    match text.len() {
        0..32 => out.push(low),
        32..1024 => out.extend_from_slice(&[0x30 | high, low]),
        _ => out.extend_from_slice(&[b'S', high, low]),
    }
    out.extend_from_slice(text);
}

/// The ASCII string that begins at `at`, with its head.
fn hessian_string_at(body: &[u8], at: usize) -> &[u8] {
    let byte = |offset: usize| usize::from(body.get(at + offset).copied().unwrap_or(0));
    let end = match byte(0) {
        tag @ 0..32 => at + 1 + tag,
        tag @ 0x30..0x34 => at + 2 + ((tag & 3) << 8 | byte(1)),
        _ => at + 3 + (byte(1) << 8 | byte(2)),
    };
    body.get(at..end).unwrap_or_default()
}

/// Preface, empty SETTINGS and one request without a body: GET / of `x`, in HPACK's static table.
fn http2_request() -> Vec<u8> {
    let block = [0x82, 0x86, 0x84, 0x41, 0x01, b'x'];
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    // HEADERS with END_STREAM and END_HEADERS on stream 1.
    let headers = [0, 0, 6, 1, 5, 0, 0, 0, 1];
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &headers, &block, &acknowledged].concat()
}

/// Up to the frame that ends stream 1.
fn http2_length(buffer: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let size = number(buffer, at)? >> 8;
        let (kind, flags) = (*buffer.get(at + 3)?, *buffer.get(at + 4)?);
        at += HTTP2_FRAME_HEAD + size;
        if matches!(kind, 0 | 1) && flags & 1 == 1 {
            return Some(at);
        }
    }
}

fn http1_request(body: &[u8]) -> Vec<u8> {
    let head = format!("POST /echo HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn http1_reply(headers: &str, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
}

fn http1_body(message: &[u8]) -> &[u8] {
    let head_end = find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 4);
    message.get(head_end..).unwrap_or_default()
}

fn http1_length(buffer: &[u8]) -> Option<usize> {
    let head_end = find(buffer, b"\r\n\r\n")? + 4;
    let head = buffer.get(..head_end)?;
    let Some(at) = find(head, b"content-length: ") else { return Some(head_end) };
    let digits = head.get(at + 16..)?.split(|byte| *byte == b'\r').next()?;
    Some(head_end + std::str::from_utf8(digits).ok()?.parse::<usize>().ok()?)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn length(data: &[u8]) -> [u8; 4] {
    u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn number(buffer: &[u8], at: usize) -> Option<usize> {
    let bytes = buffer.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*bytes)).ok()
}

fn set(buffer: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = buffer.get_mut(at) {
        *byte = value;
    }
}

#[cfg(test)]
mod tests {
    use super::Protocol;

    #[test]
    fn a_reply_is_one_message_and_says_success() {
        use Protocol::{Dubbo, DubboInHttp1, Http1, Thrift, ThriftInHttp1};
        for protocol in [Thrift, Dubbo, Http1, ThriftInHttp1, DubboInHttp1] {
            for payload in [0, 10, 31, 32, 100, 1023, 1024, 60_000] {
                let request = protocol.request(payload);
                assert_eq!(protocol.message_length(&request), Some(request.len()), "{protocol:?} {payload}");
                let mut reply = Vec::new();
                protocol.reply(&request, &mut reply);
                assert_eq!(protocol.message_length(&reply), Some(reply.len()), "{protocol:?} {payload}");
                assert!(protocol.succeeded(&reply) && !protocol.succeeded(&request), "{protocol:?}");
                assert!(reply.len() >= payload);
                for cut in [1, 3, reply.len() - 1] {
                    assert_eq!(protocol.message_length(&reply[..cut]), None);
                }
            }
        }
    }

    #[test]
    fn an_http2_reply_ends_with_its_stream() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let headers = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];
        let data = [0, 0, 0, 0, 1, 0, 0, 0, 1];
        let all = [&settings[..], &headers, &data].concat();
        assert_eq!(Protocol::Http2.message_length(&all), Some(all.len()));
        assert_eq!(Protocol::Http2.message_length(&all[..all.len() - 5]), None);
    }
}
