//! Replies: what they say, and those of our own.

use meltemi::{DecodeError, EncodeError, FailureKind, Limits, Marks, Metadata, Outcome};

use super::{
    body::{FASTJSON, Form, GSON, HESSIAN2, PROTOBUF_JSON, Place, Walk},
    header::{self, Header},
    request::visit_entries,
    text,
};

/// The status under which a client is told of a failure. Java clients see 31 as a timeout and every other one as a
/// remoting error with the text of the body; both may be retried on another provider. 35 is Dubbo's own word for a channel
/// that was lost under a call, and what tells a caller's proxy that the server behind ours is gone.
pub(super) const fn status(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Timeout => SERVER_TIMEOUT,
        FailureKind::ConnectFailure | FailureKind::UpstreamReset | FailureKind::Draining => CHANNEL_INACTIVE,
        FailureKind::TooLarge | FailureKind::Malformed => BAD_REQUEST,
        FailureKind::BadReply => BAD_RESPONSE,
        FailureKind::NoRoute | FailureKind::UnknownService => SERVICE_NOT_FOUND,
        FailureKind::Denied | FailureKind::UnknownMethod => SERVICE_ERROR,
        FailureKind::Overflow | FailureKind::RateLimited | FailureKind::Overloaded => POOL_EXHAUSTED,
        _ => SERVER_ERROR,
    }
}

/// What a status other than 20 says.
const fn failure(status: u8) -> FailureKind {
    match status {
        CLIENT_TIMEOUT | SERVER_TIMEOUT => FailureKind::Timeout,
        CHANNEL_INACTIVE => FailureKind::UpstreamReset,
        BAD_REQUEST => FailureKind::Malformed,
        BAD_RESPONSE => FailureKind::BadReply,
        SERVICE_NOT_FOUND => FailureKind::UnknownService,
        POOL_EXHAUSTED => FailureKind::Overloaded,
        _ => FailureKind::Internal,
    }
}

/// How the call went that this reply answers.
pub(super) fn outcome(header: &Header, frame: &[u8], limits: &Limits) -> Outcome {
    if header.status != header::OK {
        return Outcome::Failure(failure(header.status));
    }
    let Some(form) = Form::of(header.serialization()) else { return Outcome::Ok };
    match Walk::new(form, frame, header::LENGTH, limits).number() {
        Ok(EXCEPTION | EXCEPTION_WITH_ATTACHMENTS) => Outcome::Exception,
        Ok(VALUE | NULL | VALUE_WITH_ATTACHMENTS | NULL_WITH_ATTACHMENTS) => Outcome::Ok,
        Ok(_) | Err(_) => Outcome::Failure(FailureKind::BadReply),
    }
}

/// The metadata of a reply with a result: its attachments, which nobody looks for until they are asked for.
pub(super) fn metadata<'a>(header: &Header, frame: &'a [u8], limits: &Limits) -> Metadata<'a> {
    if header.status != header::OK || Form::of(header.serialization()).is_none() {
        return Metadata::EMPTY;
    }
    let mark = |limit: usize| u32::try_from(limit).unwrap_or(u32::MAX);
    let marks = [
        mark(limits.max_depth),
        mark(limits.max_elements),
        mark(limits.max_header_bytes),
        mark(limits.max_headers),
        0,
        0,
    ];
    Metadata::EMPTY.with_headers(frame, marks, walk_headers)
}

/// A reply's body up to its attachments.
pub(super) struct Answer<'a> {
    /// Where the attachments start.
    pub(super) map: usize,
    /// What is there.
    pub(super) place: Place,
    /// In the map if there is one.
    pub(super) walk: Walk<'a>,
}

impl<'a> Answer<'a> {
    /// Passes over the result; `None` if the kind of the reply has no attachments.
    pub(super) fn read(frame: &'a [u8], form: Form, limits: &Limits) -> Result<Option<Self>, DecodeError> {
        let mut walk = Walk::new(form, frame, header::LENGTH, limits);
        match walk.number()? {
            EXCEPTION_WITH_ATTACHMENTS | VALUE_WITH_ATTACHMENTS => walk.skip()?,
            NULL_WITH_ATTACHMENTS => {}
            _ => return Ok(None),
        }
        let map = walk.position();
        let place = walk.enter()?;
        Ok(Some(Self { map, place, walk }))
    }
}

/// The serialization of a reply with a status other than 20, for a request in `serialization`. Java clients read a reply
/// as its own header says: those of encodings that we do not write get hessian2, which all of them know.
pub(super) const fn message_serialization(serialization: u8) -> u8 {
    match (Form::of(serialization), serialization) {
        (Some(_), _) | (None, FASTJSON | GSON | PROTOBUF_JSON) => serialization,
        (None, _) => HESSIAN2,
    }
}

/// Appends the body of a reply with a status other than 20: one bare text.
pub(super) fn put_message(serialization: u8, message: &str, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match Form::of(serialization) {
        Some(form) => text::put_item(form, message.as_bytes(), out),
        None => {
            text::put_json_line(message, out);
            Ok(())
        }
    }
}

/// The headers of a reply: none if they are above the limits, since a reply must reach its client whatever it carries.
fn walk_headers<'b>(frame: &'b [u8], marks: &Marks, visit: &mut dyn FnMut(&'b [u8], &'b [u8])) {
    let [max_depth, max_elements, max_bytes, max_headers, ..] = marks.map(|mark| mark as usize);
    let Some(form) = frame.get(2).and_then(|flags| Form::of(flags & 0x1f)) else { return };
    let limits = Limits { max_depth, max_elements, ..Limits::default() };
    let Ok(Some(Answer { map, place: Place::Map, mut walk })) = Answer::read(frame, form, &limits) else { return };
    let again = walk.outer_classes().unwrap_or_default();
    let (mut headers, mut bytes) = (0usize, 0usize);
    while let Ok(Some(entry)) = walk.entry() {
        headers = headers.saturating_add(1);
        bytes = bytes.saturating_add(entry.size());
        if headers > max_headers || bytes > max_bytes {
            return;
        }
    }
    let read = match walk.outer_classes() {
        Some(_) => {
            let mut walk = Walk::at_map(form, frame, map, again, &limits);
            walk.enter().map(|_| walk)
        }
        None => match Answer::read(frame, form, &limits) {
            Ok(Some(answer)) => Ok(answer.walk),
            _ => return,
        },
    };
    if let Ok(walk) = read {
        visit_entries(walk, visit);
    }
}

// The first number of a body with status 20.
const EXCEPTION: i64 = 0;
const VALUE: i64 = 1;
const NULL: i64 = 2;
const EXCEPTION_WITH_ATTACHMENTS: i64 = 3;
const VALUE_WITH_ATTACHMENTS: i64 = 4;
const NULL_WITH_ATTACHMENTS: i64 = 5;

// Statuses, as `org.apache.dubbo.remoting.exchange.Response` names them.
const CLIENT_TIMEOUT: u8 = 30;
const SERVER_TIMEOUT: u8 = 31;
const CHANNEL_INACTIVE: u8 = 35;
const BAD_REQUEST: u8 = 40;
const BAD_RESPONSE: u8 = 50;
const SERVICE_NOT_FOUND: u8 = 60;
const SERVICE_ERROR: u8 = 70;
const SERVER_ERROR: u8 = 80;
const POOL_EXHAUSTED: u8 = 100;
