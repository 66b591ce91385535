//! The codec of the guide keeps the contract.

#![allow(clippy::unwrap_used)]

#[path = "../examples/lines.rs"]
mod lines;

use meltemi::{
    Codec, Failure, FailureKind, FrameKind, Limits, Options, Peer, Ticket,
    testing::{decode_in_pieces, split_invariant},
};

fn codec() -> Box<dyn Codec> {
    (lines::ENTRY.build)(&Options::default()).unwrap()
}

#[test]
fn requests_are_found_at_every_split() {
    let found = split_invariant(codec().as_ref(), Peer::Client, b"shop.Cart.add book\nping\nunfinished");
    assert_eq!(found.bytes, [&b"shop.Cart.add book\n"[..], b"ping\n"]);
    assert!(found.frames[0].contains(r#"service: "shop.Cart", method: "add""#), "{:?}", found.frames);
    assert!(found.frames[1].contains(r#"service: "", method: "ping""#), "{:?}", found.frames);
    assert_eq!(found.rest, b"unfinished".len());
}

#[test]
fn replies_say_how_it_went() {
    let found = split_invariant(codec().as_ref(), Peer::Server, b"+done\n-sold out\nwhat\n");
    assert!(found.frames[0].starts_with("Response(Ok)"), "{:?}", found.frames);
    assert!(found.frames[1].starts_with("Response(Exception)"), "{:?}", found.frames);
    assert!(found.error.is_some_and(|error| error.contains("begins with + or -")));
}

#[test]
fn a_line_without_end_is_refused() {
    let limits = Limits { max_frame: 8, ..Limits::default() };
    for pieces in [&[][..], &[1]] {
        let found = decode_in_pieces(codec().as_ref(), Peer::Client, &limits, b"123456789", pieces);
        assert!(found.error.is_some_and(|error| error.contains("longer than the limit")));
    }
}

#[test]
fn an_error_reply_is_a_reply() {
    let mut connection = codec().connect(Peer::Client, &Limits::default());
    let mut reply = Vec::new();
    let failure = Failure { kind: FailureKind::NoRoute, message: "no route to x" };
    connection.error_reply(&Ticket::new(0, FrameKind::Request, b""), &failure, &mut reply).unwrap();
    assert_eq!(reply, b"-no_route: no route to x\n");
    let found = split_invariant(codec().as_ref(), Peer::Server, &reply);
    assert!(found.frames[0].starts_with("Response(Exception)"), "{:?}", found.frames);
}

#[test]
fn an_option_that_is_not_there_is_refused() {
    let options = Options([("colour".to_owned(), "red".to_owned())].into());
    let error = (lines::ENTRY.build)(&options).err().unwrap();
    assert!(error.to_string().contains("colour"), "{error}");
}
