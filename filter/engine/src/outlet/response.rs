use core::ops::Range;

use meltemi_core::{FailureKind, Outcome};

use crate::{http::HeaderStore, names};

/// What HTTP/2 counts for a header beside its name and value.
const HEADER_OVERHEAD: usize = 32;

/// Bytes of a reply's metadata as headers. The inlet takes 64 KiB; the rest is for what Envoy adds.
const MAX_METADATA: usize = 48 * 1024;

/// The HTTP response to one request.
#[derive(Debug)]
pub struct Response<'a> {
    /// HTTP status.
    pub status: u16,
    /// Headers without `:status`, `content-length` among them.
    pub headers: &'a HeaderStore,
    /// The body: the reply's frame, or nothing.
    pub body: &'a [u8],
    /// `false`: the connection must not be used again. The host sends headers and body without ending the stream, and
    /// the inlet, which sees the mark, resets it: only so does Envoy's pool give the connection up.
    pub end_stream: bool,
}

/// A response in the making.
#[derive(Debug, Default)]
pub(super) struct Built {
    ready: bool,
    status: u16,
    retire: bool,
    headers: HeaderStore,
    body: Range<usize>,
}

impl Built {
    pub(super) fn clear(&mut self) {
        self.ready = false;
        self.headers.clear();
        self.body = 0..0;
    }

    pub(super) fn headers(&mut self) -> &mut HeaderStore {
        &mut self.headers
    }

    /// Leaves the reply's metadata out, if it is more than HTTP headers can carry: a reply is not lost for its headers.
    pub(super) fn cap_headers(&mut self) {
        let size = self.headers.len().saturating_mul(HEADER_OVERHEAD).saturating_add(self.headers.byte_len());
        if size > MAX_METADATA {
            self.headers.clear();
            self.headers.push(names::UNSHOWN.as_bytes(), b"1");
        }
    }

    /// A frame of the server, or nothing for a one-way call.
    pub(super) fn frame(&mut self, outcome: Outcome, body: Range<usize>, retire: bool) {
        let (status, mark) = match outcome {
            Outcome::Ok => (200, "ok"),
            Outcome::Exception => (200, "exception"),
            Outcome::Failure(kind) => (kind.http_status(), kind.as_str()),
        };
        self.headers.push(names::REPLY.as_bytes(), mark.as_bytes());
        self.finish(status, body, retire);
    }

    /// No frame: the inlet will make the error reply.
    pub(super) fn failure(&mut self, kind: FailureKind, retire: bool) {
        self.headers.clear();
        self.headers.push(names::DETAILS.as_bytes(), kind.as_str().as_bytes());
        self.finish(kind.http_status(), 0..0, retire);
    }

    fn finish(&mut self, status: u16, body: Range<usize>, retire: bool) {
        let (mut digits, length) = ([0u8; 20], body.len());
        self.headers.push(b"content-length", decimal(length, &mut digits));
        if retire {
            self.headers.push(names::RETIRE.as_bytes(), b"1");
        }
        *self = Self { ready: true, status, retire, body, headers: core::mem::take(&mut self.headers) };
    }

    pub(super) fn retire(&mut self) {
        if self.ready && !core::mem::replace(&mut self.retire, true) {
            self.headers.push(names::RETIRE.as_bytes(), b"1");
        }
    }

    pub(super) fn take<'a>(&'a mut self, reply: &'a [u8]) -> Option<Response<'a>> {
        if !core::mem::take(&mut self.ready) {
            return None;
        }
        Some(Response {
            status: self.status,
            headers: &self.headers,
            body: reply.get(self.body.clone()).unwrap_or_default(),
            end_stream: !self.retire,
        })
    }
}

/// `number` in decimal digits, without allocation.
pub(crate) fn decimal(mut number: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    for (index, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        start = index;
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}
