//! The table in `docs/errors.md` says what the codecs do.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use meltemi::{Codec, Decoded, Failure, FailureKind, Limits, NothingInFlight, Options, Peer};

const PAGE: &str = include_str!("../../docs/errors.md");
const THRIFT: &[u8] = include_bytes!("../corpus/thrift/framed-binary.client.bin");
const DUBBO: &[u8] = include_bytes!("../corpus/dubbo/hessian2.client.bin");

fn error_reply(name: &str, request: &[u8], kind: FailureKind) -> Vec<u8> {
    let entry = meltemi_codecs::ALL.iter().find(|entry| entry.name == name).unwrap();
    let codec: Box<dyn Codec> = (entry.build)(&Options::default()).unwrap();
    let mut connection = codec.connect(Peer::Client, &Limits::default());
    let Ok(Decoded::Frame(frame)) = connection.decode(request, &NothingInFlight) else { panic!("no frame") };
    let ticket = frame.ticket();
    let mut out = Vec::new();
    connection.error_reply(&ticket, &Failure { kind, message: "no luck" }, &mut out).unwrap();
    out
}

#[test]
fn each_row_is_as_the_codecs_say() {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (
            cells[1].trim_matches('`'),
            cells[3..6].iter().map(|cell| cell.split(' ').next().unwrap().parse().unwrap()).collect(),
        )
    });
    let rows: Vec<(&str, Vec<u16>)> = rows.collect();
    for kind in FailureKind::ALL {
        // These are what servers say of themselves; no reply of ours tells them.
        if matches!(kind, FailureKind::UnknownService | FailureKind::UnknownMethod | FailureKind::Overloaded) {
            continue;
        }
        let (_, told) = rows.iter().find(|(name, _)| *name == kind.as_str()).unwrap_or_else(|| panic!("no row {kind}"));
        // The last field of a TApplicationException is its type, an i32, and behind it is the byte that ends the struct.
        let thrift = error_reply("thrift", THRIFT, kind);
        let [.., 0, 0, 0, exception, 0] = thrift[..] else { panic!("{thrift:02x?}") };
        // The fourth byte of a Dubbo2 header is the status.
        let dubbo = error_reply("dubbo", DUBBO, kind)[3];
        assert_eq!(*told, [kind.http_status(), exception.into(), dubbo.into()], "{kind}");
    }
    assert_eq!(rows.len(), FailureKind::ALL.len() - 3, "each row is a failure");
}
