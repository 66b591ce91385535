//! What rules see of a call is what its server takes from it: calls that say two things are refused.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use meltemi::{Codec, DecodeErrorKind, Decoded, Limits, Mutation, NothingInFlight, Options, Peer};
use meltemi_codecs::dubbo::Dubbo;

fn frame(serialization: u8, body: &[u8]) -> Vec<u8> {
    let head = [0xda, 0xbb, 0xc0 | serialization, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    [&head[..], &(body.len() as u32).to_be_bytes(), body].concat()
}

/// A hessian2 call of `s.m` without arguments, and these bytes as attachments.
fn hessian2(attachments: &[u8]) -> Vec<u8> {
    frame(2, &[&b"\x052.0.2\x01s\x051.2.3\x01m\x00"[..], attachments].concat())
}

/// The same in fastjson2.
fn fastjson2(attachments: &[u8]) -> Vec<u8> {
    let item = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
    let parts = [&b"\x4e2.0.2"[..], b"\x4as", b"\x4e1.2.3", b"\x4am", b"\x49", attachments];
    frame(23, &parts.map(item).concat())
}

/// A generic call whose first argument is `name`.
fn generic(types: &str, name: &[u8]) -> Vec<u8> {
    let types = [&[0x30, types.len() as u8], types.as_bytes()].concat();
    frame(2, &[&b"\x052.0.2\x01s\x00\x07$invoke"[..], &types, name, b"\x78\x78HZ"].concat())
}

fn look<T>(frame: &[u8], look: impl FnOnce(Decoded<'_>) -> T) -> T {
    let codec = Dubbo::new(&Options::default()).unwrap();
    look(codec.connect(Peer::Client, &Limits::default()).decode(frame, &NothingInFlight).unwrap())
}

fn refusal(frame: &[u8]) -> Option<DecodeErrorKind> {
    look(frame, |decoded| match decoded {
        Decoded::Frame(_) => None,
        Decoded::Rejected(rejected) => Some(rejected.error.kind),
        Decoded::Incomplete { .. } => panic!("whole"),
    })
}

fn headers(frame: &[u8]) -> Vec<(String, Vec<u8>)> {
    look(frame, |decoded| {
        let Decoded::Frame(frame) = decoded else { panic!("{decoded:?}") };
        let mut headers = Vec::new();
        frame.metadata.for_each_header(|name, value| {
            headers.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
        });
        headers
    })
}

const MALFORMED: Option<DecodeErrorKind> = Some(DecodeErrorKind::Malformed);
const UNSUPPORTED: Option<DecodeErrorKind> = Some(DecodeErrorKind::Unsupported);

#[test]
fn another_path_in_the_attachments_is_refused() {
    assert_eq!(refusal(&hessian2(b"H\x04path\x01sZ")), None);
    for value in [&b"\x01t"[..], b"\x91", b"N"] {
        assert_eq!(refusal(&hessian2(&[&b"H\x04path"[..], value, b"Z"].concat())), MALFORMED);
    }
    assert_eq!(refusal(&fastjson2(b"\xa6\x4dpath\x4as\xa5")), None);
    assert_eq!(refusal(&fastjson2(b"\xa6\x4dpath\x4at\xa5")), MALFORMED);
    assert_eq!(refusal(&hessian2(b"H\x07version\x91Z")), UNSUPPORTED);
}

#[test]
fn generic_calls_are_never_shown_as_invoke() {
    const TYPES: &str = "Ljava/lang/String;[Ljava/lang/String;[Ljava/lang/Object;";
    let method = |types: &str, name: &[u8]| {
        look(&generic(types, name), |decoded| match decoded {
            Decoded::Frame(frame) => Ok(String::from_utf8_lossy(frame.metadata.method).into_owned()),
            Decoded::Rejected(rejected) => Err(rejected.error.kind),
            Decoded::Incomplete { .. } => panic!("whole"),
        })
    };
    assert_eq!(method(TYPES, b"\x03pay"), Ok("pay".to_owned()));
    assert_eq!(method(TYPES, b"\x06 pay\n\x00"), Ok("pay".to_owned()), "Java trims it");
    let others = TYPES.replacen("String", "Object", 1);
    assert_eq!(method(&others, b"\x03pay"), Ok("pay".to_owned()), "Java tells by the number of arguments");
    for hidden in [&b"R\x00\x02pa\x01y"[..], b"\x91", b"\x78"] {
        assert_eq!(method(TYPES, hidden), Err(DecodeErrorKind::Unsupported));
    }
}

#[test]
fn attachments_that_cannot_be_shown_are_refused() {
    // A name in chunks, a value in chunks, a number for a name.
    for hidden in [&b"HR\x00\x02en\x01v\x04blueZ"[..], b"H\x03envR\x00\x02bl\x02ueZ", b"H\x91\x01vZ"] {
        assert_eq!(refusal(&hessian2(hidden)), UNSUPPORTED);
    }
    // A symbol for a name, one for a value, ASCII in UTF-16.
    for hidden in [
        &b"\xa6\x7f\x4cenv\x00\x4dblue\xa5"[..],
        b"\xa6\x4cenv\x7f\x4dblue\x00\xa5",
        b"\xa6\x4cenv\x7c\x08b\0l\0u\0e\0\xa5",
        // An array.
        b"\x95\x4dblue",
    ] {
        assert_eq!(refusal(&fastjson2(hidden)), UNSUPPORTED);
    }
}

#[test]
fn names_that_come_twice_are_refused() {
    assert_eq!(refusal(&hessian2(b"H\x03env\x01a\x03env\x01bZ")), MALFORMED);
    assert_eq!(refusal(&hessian2(b"H\x03env\x01a\x03env\x91Z")), MALFORMED, "a rule sees the first, Java the last");
    assert_eq!(refusal(&hessian2(b"H\x03env\x01a\x03ENV\x01bZ")), MALFORMED, "rules do not see case");
    assert_eq!(refusal(&fastjson2(b"\xa6\x4cenv\x4aa\x4cenv\x4ab\xa5")), MALFORMED);
}

#[test]
fn every_kind_of_jsonb_value_leaves_those_behind_it_visible() {
    let kinds: [&[u8]; 16] = [
        b"\x90\x38\x63",
        b"\x92\x4aT\x00\xa6\x7f\x4aa\x01\x01\x7f\x01\x02\xa5",
        b"\x92\x01\x94",
        b"\x92\x7f\x01\x94",
        b"\x93\x4a$",
        b"\xa7\x01\x02\x03\x04",
        b"\xa8\x07\xea\x0b\x18\x01\x02\x03\x00",
        b"\xa9\x07\xea\x0b\x18",
        b"\xaa\x07\xea\x0b\x18\x01\x02\x03\x04\x4aZ",
        b"\xab\0\0\0\0\0\0\0\x05",
        b"\xac\0\0\0\x05",
        b"\xad\0\0\0\x05",
        b"\xae\xbf\x49\x96\x02\xd2\x38\x7b",
        b"\x91\x02ab",
        b"\xb9\x02\xbb\x02ab",
        b"\xa4\x02\x00\x01",
    ];
    for kind in kinds {
        let call = fastjson2(&[&b"\xa6\x4av"[..], kind, b"\x4cenv\x4dblue\xa5"].concat());
        assert!(headers(&call).contains(&("env".to_owned(), b"blue".to_vec())), "{kind:02x?}");
    }
}

#[test]
fn typed_attachments_are_seen_and_keep_their_type() {
    let call = fastjson2(b"\x92\x50TreeMap\x00\xa6\x4cenv\x4dblue\xa5");
    assert!(headers(&call).contains(&("env".to_owned(), b"blue".to_vec())));
    let mut mutation = Mutation::new();
    mutation.set(b"env", b"gray");
    let codec = Dubbo::new(&Options::default()).unwrap();
    let mut out = Vec::new();
    codec.connect(Peer::Server, &Limits::default()).rewrite(&call, &mutation, None, &mut out).unwrap();
    assert_eq!(out, fastjson2(b"\x92\x50TreeMap\x00\xa6\x4cenv\x4dgray\xa5"));
}

#[test]
fn text_of_other_encodings_is_present_in_its_own_bytes() {
    let call = fastjson2(b"\xa6\x4cenv\x7c\x02\x22\x6f\xa5");
    assert!(headers(&call).contains(&("env".to_owned(), b"\x22\x6f".to_vec())));
}

#[test]
fn attachments_cannot_pass_for_headers_of_ours() {
    let call = hessian2(b"H\x0dSerialization\x04none\x0fparameter-types\x01I\x01a\x01bZ");
    let seen = headers(&call);
    assert_eq!(
        seen,
        [("serialization", "hessian2"), ("version", "1.2.3"), ("a", "b")]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    );
}

#[test]
fn instances_of_classes_behind_many_arguments_are_refused() {
    let argument = |length: usize| [&b"B"[..], &(length as u16).to_be_bytes(), &vec![0; length]].concat();
    let call = |length: usize, attachments: &[u8]| {
        let head = b"\x052.0.2\x01s\x00\x01m\x07[BLa/B;";
        frame(2, &[&head[..], &argument(length), b"C\x03a.B\x91\x01f\x60\x90", attachments].concat())
    };
    // An instance of the argument's class: every look at a header walks the whole body.
    let shared = b"H\x01o\x60\x91\x01s\x01tZ";
    assert!(headers(&call(10, shared)).contains(&("s".to_owned(), b"t".to_vec())));
    assert_eq!(refusal(&call(50_000, shared)), UNSUPPORTED);
    // Of a class of its own: the arguments need not be walked again.
    let own = b"H\x01oC\x03a.C\x91\x01f\x61\x91\x01s\x01tZ";
    assert!(headers(&call(50_000, own)).contains(&("s".to_owned(), b"t".to_vec())));
    // Nor may what is passed over in the attachments be larger than headers may.
    let large = [&b"H\x01o"[..], &argument(50_000), b"\x01s\x01tZ"].concat();
    assert_eq!(refusal(&call(10, &large)), Some(DecodeErrorKind::TooLarge));
}
