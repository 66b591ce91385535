//! Attachments changed, everything else kept.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use meltemi::{
    Codec, Decoded, EncodeError, Limits, Mutation, NothingInFlight, Options, Peer, testing::decode_in_pieces,
};
use meltemi_codecs::dubbo::Dubbo;

const HESSIAN2: &[u8] = include_bytes!("../corpus/dubbo/hessian2.client.bin");
const HESSIAN2_REPLIES: &[u8] = include_bytes!("../corpus/dubbo/hessian2.server.bin");
const FASTJSON2: &[u8] = include_bytes!("../corpus/dubbo/fastjson2.client.bin");
const FASTJSON2_REPLIES: &[u8] = include_bytes!("../corpus/dubbo/fastjson2.server.bin");

type Headers = Vec<(Vec<u8>, Vec<u8>)>;

fn codec() -> Dubbo {
    Dubbo::new(&Options::default()).unwrap()
}

fn frames(peer: Peer, stream: &[u8]) -> Vec<Vec<u8>> {
    decode_in_pieces(&codec(), peer, &Limits::default(), stream, &[]).bytes
}

fn headers(peer: Peer, frame: &[u8]) -> Headers {
    let mut connection = codec().connect(peer, &Limits::default());
    let Ok(Decoded::Frame(frame)) = connection.decode(frame, &NothingInFlight) else { panic!("no frame") };
    let mut headers = Vec::new();
    frame.metadata.for_each_header(|name, value| headers.push((name.to_vec(), value.to_vec())));
    headers
}

fn rewrite(frame: &[u8], mutation: &Mutation, id: Option<u64>) -> Result<Vec<u8>, EncodeError> {
    let mut out = b"before".to_vec();
    let result = codec().connect(Peer::Server, &Limits::default()).rewrite(frame, mutation, id, &mut out);
    assert_eq!(&out[..6], b"before");
    match result {
        Ok(()) => Ok(out.split_off(6)),
        Err(error) => {
            assert_eq!(out.len(), 6, "nothing is appended");
            Err(error)
        }
    }
}

fn mutation(changes: &[(&str, Option<&str>)]) -> Mutation {
    let mut mutation = Mutation::new();
    for (name, value) in changes {
        match value {
            Some(value) => mutation.set(name.as_bytes(), value.as_bytes()),
            None => mutation.remove(name.as_bytes()),
        }
    }
    mutation
}

fn text(headers: &Headers, name: &str) -> Vec<String> {
    let of =
        |(n, value): &(Vec<u8>, Vec<u8>)| (n == name.as_bytes()).then(|| String::from_utf8_lossy(value).into_owned());
    headers.iter().filter_map(of).collect()
}

#[test]
fn attachments_are_set_added_and_removed() {
    let changes = mutation(&[("env", Some("blue")), ("batchId", None), ("new", Some("ü")), ("missing", None)]);
    for (peer, stream) in [(Peer::Client, HESSIAN2), (Peer::Client, FASTJSON2)] {
        for frame in &frames(peer, stream)[..6] {
            let (old, out) = (headers(peer, frame), rewrite(frame, &changes, Some(7)).unwrap());
            let new = headers(peer, &out);
            let had = text(&old, "batchId").len();
            assert_eq!((text(&new, "env"), text(&new, "batchId")), (vec!["blue".to_owned()], vec![]));
            assert_eq!(text(&new, "new"), ["ü"]);
            assert_eq!(new.len(), old.len() + 1 - had + usize::from(text(&old, "env").is_empty()));
            assert_eq!(&out[4..12], 7u64.to_be_bytes());
            let body = u32::from_be_bytes(out[12..16].try_into().unwrap());
            assert_eq!(body as usize + 16, out.len());
        }
    }
}

#[test]
fn replies_have_attachments_too() {
    let changes = mutation(&[("served-by", Some("p2")), ("new", Some("x"))]);
    for stream in [HESSIAN2_REPLIES, FASTJSON2_REPLIES] {
        // A value, an object, an exception with its stack.
        for frame in &frames(Peer::Server, stream)[..3] {
            let new = headers(Peer::Server, &rewrite(frame, &changes, None).unwrap());
            assert_eq!((text(&new, "served-by"), text(&new, "new")), (vec!["p2".to_owned()], vec!["x".to_owned()]));
            assert_eq!(text(&new, "dubbo"), ["2.0.2"]);
        }
    }
    let failed = include_bytes!("../corpus/dubbo/errors.server.bin");
    assert!(matches!(rewrite(failed, &changes, None), Err(EncodeError::Unsupported(_))));
    let event = frames(Peer::Server, include_bytes!("../corpus/dubbo/burst-stop.server.bin")).remove(6);
    assert!(matches!(rewrite(&event, &changes, None), Err(EncodeError::Unsupported(_))));
}

#[test]
fn all_before_the_map_is_copied() {
    for stream in [HESSIAN2, FASTJSON2] {
        let frame = frames(Peer::Client, stream).remove(1);
        // The first attachment is the path.
        let map = frame.windows(5).rposition(|w| w == b"\x04path" || w == b"\x4dpath").unwrap();
        let out = rewrite(&frame, &mutation(&[("env", Some("a much longer value than it was"))]), None).unwrap();
        // But for the length of the body, and of the item in fastjson2.
        let item = if frame[2] & 0x1f == 23 { 5 } else { 0 };
        assert_eq!(frame[16..map - item], out[16..map - item]);
        assert_ne!(frame, out);
    }
}

/// A call without arguments, and these bytes as attachments.
fn call(attachments: &[u8]) -> Vec<u8> {
    let body = [&b"\x052.0.2\x01s\x051.2.3\x01m\x00"[..], attachments].concat();
    [&[0xda, 0xbb, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

#[test]
fn a_missing_map_is_made() {
    for none in [&b""[..], b"N"] {
        let frame = call(none);
        assert_eq!(text(&headers(Peer::Client, &frame), "version"), ["1.2.3"], "from the body");
        assert_eq!(rewrite(&frame, &mutation(&[("k", Some("v"))]), None).unwrap(), call(b"H\x01k\x01vZ"));
    }
}

#[test]
fn typed_maps_keep_their_type() {
    let frame = call(b"M\x05a.Map\x01a\x01bZ");
    let out = rewrite(&frame, &mutation(&[("k", Some("v"))]), None).unwrap();
    assert_eq!(out, call(b"M\x05a.Map\x01a\x01b\x01k\x01vZ"));
}

#[test]
fn names_that_come_twice_are_set_once() {
    let frame = call(b"H\x01k\x01a\x01x\x01y\x01k\x01bZ");
    assert_eq!(rewrite(&frame, &mutation(&[("k", Some("c"))]), None).unwrap(), call(b"H\x01x\x01y\x01k\x01cZ"));
}

#[test]
fn values_that_are_no_text_are_kept() {
    // An integer, a boolean, a null, a list.
    let frame = call(b"H\x01i\x95\x01b\x54\x01n\x4e\x01l\x79\x91\x01s\x01tZ");
    let seen = headers(Peer::Client, &frame);
    assert_eq!((text(&seen, "b"), text(&seen, "s")), (vec!["true".to_owned()], vec!["t".to_owned()]));
    assert_eq!(seen.len(), 4, "and the version and the serialization");
    let out = rewrite(&frame, &mutation(&[("s", None)]), None).unwrap();
    assert_eq!(out, call(b"H\x01i\x95\x01b\x54\x01n\x4e\x01l\x79\x91Z"));
    // The list goes: nothing behind it counts on it.
    let out = rewrite(&frame, &mutation(&[("l", Some("v"))]), None).unwrap();
    assert_eq!(out, call(b"H\x01i\x95\x01b\x54\x01n\x4e\x01s\x01t\x01l\x01vZ"));
}

#[test]
fn references_are_not_disturbed() {
    // An object of a class, a text, and a reference to the object.
    let frame = call(b"H\x01oC\x03a.B\x91\x01f\x60\x90\x01s\x01t\x01rQ\x91Z");
    let seen = headers(Peer::Client, &frame);
    assert_eq!(text(&seen, "s"), ["t"]);
    let out = rewrite(&frame, &mutation(&[("s", Some("u"))]), None).unwrap();
    assert_eq!(out, call(b"H\x01oC\x03a.B\x91\x01f\x60\x90\x01rQ\x91\x01s\x01uZ"));
    for change in [None, Some("v")] {
        let result = rewrite(&frame, &mutation(&[("o", change)]), None);
        assert!(matches!(result, Err(EncodeError::Unsupported(_))), "{result:?}");
    }
    // The one who refers may go, and both may.
    assert!(rewrite(&frame, &mutation(&[("r", None)]), None).is_ok());
    assert_eq!(rewrite(&frame, &mutation(&[("o", None), ("r", None)]), None).unwrap(), call(b"H\x01s\x01tZ"));
}

#[test]
fn classes_of_arguments_are_known_to_attachments() {
    let body = b"\x052.0.2\x01s\x00\x01m\x05La/B;C\x03a.B\x91\x01f\x60\x90H\x01o\x60\x91\x01s\x01tZ";
    let head = [0xda, 0xbb, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let frame = [&head[..], &(body.len() as u32).to_be_bytes(), body].concat();
    assert_eq!(text(&headers(Peer::Client, &frame), "s"), ["t"]);
    assert!(rewrite(&frame, &mutation(&[("s", Some("u"))]), None).is_ok());
}

#[test]
fn values_that_cannot_be_written_are_refused() {
    let mut changes = Mutation::new();
    changes.set(b"k", b"\xff");
    for stream in [HESSIAN2, FASTJSON2] {
        let frame = frames(Peer::Client, stream).remove(0);
        assert!(matches!(rewrite(&frame, &changes, None), Err(EncodeError::Unsupported(_))));
        let long = "x".repeat(70_000);
        let result = rewrite(&frame, &mutation(&[("k", Some(&long))]), None);
        assert_eq!(result.is_err(), stream == HESSIAN2, "one chunk of hessian2 has 65,535 characters");
    }
    let limits = Limits { max_frame: 210, ..Limits::default() };
    let frame = frames(Peer::Client, HESSIAN2).remove(0);
    let mut out = Vec::new();
    let result =
        codec().connect(Peer::Server, &limits).rewrite(&frame, &mutation(&[("k", Some("12345"))]), None, &mut out);
    assert!(matches!(result, Err(EncodeError::TooLarge(_))));
    assert!(out.is_empty());
}

#[test]
fn a_frame_that_cannot_be_read_is_refused_for_its_reason() {
    let changes = mutation(&[("k", Some("v"))]);
    // The method in chunks: a valid call, but of no use to rules.
    let body = b"\x052.0.2\x01s\x00R\x00\x01a\x01b\x00HZ";
    let frame = [&[0xda, 0xbb, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &(body.len() as u32).to_be_bytes(), body].concat();
    assert!(matches!(rewrite(&frame, &changes, None), Err(EncodeError::Unsupported(_))));
    let deep = call(&[&b"H\x01a"[..], &[b'W'; 100]].concat());
    assert!(matches!(rewrite(&deep, &changes, None), Err(EncodeError::TooLarge(_))));
    assert!(matches!(rewrite(&call(b"\x91"), &changes, None), Err(EncodeError::Malformed(_))));
}

#[test]
fn path_and_version_are_set_in_the_body_too() {
    let changes = mutation(&[("version", Some("2.0")), ("path", Some("other"))]);
    let frame = call(b"H\x04path\x01s\x07version\x051.2.3Z");
    let out = rewrite(&frame, &changes, None).unwrap();
    let body = b"\x052.0.2\x05other\x032.0\x01m\x00H\x07version\x032.0\x04path\x05otherZ";
    assert_eq!(&out[16..], body);
    assert_eq!(text(&headers(Peer::Client, &out), "version"), ["2.0"]);
    for stream in [HESSIAN2, FASTJSON2] {
        let out = rewrite(&frames(Peer::Client, stream)[0], &mutation(&[("version", Some("2.0"))]), None).unwrap();
        assert_eq!(text(&headers(Peer::Client, &out), "version"), ["2.0"]);
        assert_eq!(out.windows(5).filter(|w| w == b"0.0.0").count(), 0, "in neither place");
    }
    assert!(matches!(rewrite(&frame, &mutation(&[("version", None)]), None), Err(EncodeError::Unsupported(_))));
}

#[test]
fn headers_that_no_attachment_says_cannot_be_changed() {
    for name in ["parameter-types", "serialization"] {
        for value in [Some("x"), None] {
            let result = rewrite(&call(b"HZ"), &mutation(&[(name, value)]), None);
            assert!(matches!(result, Err(EncodeError::Unsupported(_))), "{name}");
        }
    }
}

#[test]
fn supplementary_characters_are_surrogate_pairs() {
    let frame = call(b"HZ");
    let out = rewrite(&frame, &mutation(&[("k", Some("😀"))]), None).unwrap();
    assert_eq!(out, call(b"H\x01k\x02\xed\xa0\xbd\xed\xb8\x80Z"), "as Java writes it");
    // And what was read so can be written again.
    let mut changes = Mutation::new();
    changes.set(b"j", b"\xed\xa0\xbd\xed\xb8\x80");
    let out = rewrite(&frame, &changes, None).unwrap();
    assert_eq!(out, call(b"H\x01j\x02\xed\xa0\xbd\xed\xb8\x80Z"));
}

#[test]
fn only_whole_frames_are_rewritten() {
    let frame = call(b"HZ");
    for bad in [&frame[..frame.len() - 1], &frame[..10], b"GET"] {
        assert!(matches!(rewrite(bad, &Mutation::new(), Some(1)), Err(EncodeError::Malformed(_))));
    }
}

#[test]
fn protobuf_calls_are_read_and_changed() {
    let delimited = |message: &[u8]| [&[message.len() as u8], message].concat();
    let string = |text: &str| delimited(&[&[0x0a], &delimited(text.as_bytes())[..]].concat());
    let entry = |name: &str, value: &str| {
        let both = [&[0x0a], &delimited(name.as_bytes())[..], &[0x12], &delimited(value.as_bytes())].concat();
        [&[0x0a], &delimited(&both)[..]].concat()
    };
    let frame = |map: &[u8]| {
        let body = [
            string("2.0.2"),
            string("a.S"),
            string("0.0.0"),
            string("hi"),
            string("La/Req;"),
            delimited(&[0x08, 0x01]),
            delimited(map),
        ]
        .concat();
        [&[0xda, 0xbb, 0xd6, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], &(body.len() as u32).to_be_bytes(), &body].concat()
    };
    let before = frame(&[entry("env", "gray"), entry("a", "b")].concat());
    let mut connection = codec().connect(Peer::Client, &Limits::default());
    let Ok(Decoded::Frame(seen)) = connection.decode(&before, &NothingInFlight) else { panic!("no frame") };
    assert_eq!((seen.metadata.service, seen.metadata.method), (&b"a.S"[..], &b"hi"[..]));
    assert_eq!(seen.metadata.header(b"env"), Some(&b"gray"[..]));
    let after = frame(&[entry("a", "b"), entry("env", "blue")].concat());
    assert_eq!(rewrite(&before, &mutation(&[("env", Some("blue"))]), None).unwrap(), after);
}
