//! What the other end must not do, and what we must not do to it, frame by frame.

use super::*;
use crate::h2::{connection::MAX_STREAMS, hpack::HeaderWriter as Writer};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(flags: u8, stream: u32, list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        Writer::new(&mut block).push(name.as_bytes(), value.as_bytes());
    }
    frame(1, 4 | flags, stream, &block)
}

/// A client with so many requests without end on their way, whose server has said nothing but its settings.
fn client(requests: usize) -> Connection {
    let mut client = Connection::client(&Settings::default());
    feed(&mut client, &EMPTY_SETTINGS, 9, &mut Seen::default()).unwrap();
    for _ in 0..requests {
        client.open(&mut |to| to.push(b":method", b"POST"), false).unwrap();
    }
    client.output().clear();
    client
}

fn server() -> Connection {
    let mut server = Connection::server(&Settings::default());
    feed(&mut server, &[PREFACE, &EMPTY_SETTINGS].concat(), 64, &mut Seen::default()).unwrap();
    server.output().clear();
    server
}

/// Lengths of the DATA frames in some output.
fn data_lengths(mut output: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [l2, l1, l0, kind, _, _, _, _, _, rest @ ..] = output {
        let length = u32::from_be_bytes([0, *l2, *l1, *l0]) as usize;
        if *kind == 0 {
            lengths.push(length);
        }
        output = &rest[length..];
    }
    lengths
}

#[test]
fn rules_of_the_connection_are_kept() {
    let head = |length: u8, kind: u8, flags: u8, stream: u8| [0, 0, length, kind, flags, 0, 0, 0, stream].to_vec();
    let cases: Vec<(Vec<u8>, ErrorCode)> = vec![
        (vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1], ErrorCode::FrameSize),
        (head(0, 9, 4, 1), ErrorCode::Protocol),
        ([head(1, 1, 0, 1), vec![0x82], head(0, 6, 0, 0)].concat(), ErrorCode::Protocol),
        ([head(1, 1, 0, 1), vec![0x82], head(0, 9, 0, 1)].concat(), ErrorCode::EnhanceYourCalm),
        (head(0, 0, 0, 9), ErrorCode::Protocol),
        ([head(4, 8, 0, 0), vec![0, 0, 0, 0]].concat(), ErrorCode::Protocol),
        ([head(4, 8, 0, 0), vec![0x7f, 0xff, 0xff, 0xff]].concat(), ErrorCode::FlowControl),
        ([head(6, 4, 0, 0), vec![0, 4, 0xff, 0, 0, 0]].concat(), ErrorCode::FlowControl),
        ([head(5, 4, 0, 0), vec![0; 5]].concat(), ErrorCode::FrameSize),
        (head(7, 6, 0, 0), ErrorCode::FrameSize),
        ([head(1, 1, 4, 1), vec![0xff]].concat(), ErrorCode::Compression),
        (head(0, 5, 0, 1), ErrorCode::Protocol),
        (head(4, 3, 0, 5), ErrorCode::Protocol),
    ];
    for (bytes, code) in cases {
        let mut server = Connection::server(&Settings::default());
        let start = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &bytes, &[0; 8]].concat();
        let error = feed(&mut server, &start, 3, &mut Seen::default()).unwrap_err();
        assert_eq!(error.code, code, "{bytes:?}: {error}");
    }
}

#[test]
fn a_peer_that_only_asks_is_cut_off() {
    let mut client = Connection::client(&Settings::default());
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let begin = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    feed(&mut client, &begin, 9, &mut Seen::default()).unwrap();
    let flood: Vec<u8> = ping.iter().copied().cycle().take(ping.len() * 100_000).collect();
    assert_eq!(feed(&mut client, &flood, 4096, &mut Seen::default()).unwrap_err().code, ErrorCode::EnhanceYourCalm);
}

#[test]
fn rules_of_a_stream_end_the_stream_alone() {
    let ok = headers(0, 1, &[(":status", "200")]);
    let cases: Vec<(Vec<u8>, ErrorCode)> = vec![
        (frame(0, 0, 1, b"early"), ErrorCode::Protocol),
        (headers(0, 1, &[("no-status", "")]), ErrorCode::Protocol),
        (headers(0, 1, &[("a", ""), (":status", "200")]), ErrorCode::Protocol),
        (headers(0, 1, &[(":status", "200"), ("Upper", "")]), ErrorCode::Protocol),
        (headers(1, 1, &[(":status", "100")]), ErrorCode::Protocol),
        ([ok.clone(), headers(0, 1, &[("endless", "")])].concat(), ErrorCode::Protocol),
        ([ok.clone(), headers(1, 1, &[(":status", "200")])].concat(), ErrorCode::Protocol),
        ([headers(1, 1, &[(":status", "200")]), frame(0, 1, 1, b"late")].concat(), ErrorCode::StreamClosed),
        (frame(8, 0, 1, &[0; 4]), ErrorCode::Protocol),
        (frame(8, 0, 1, &[0x7f, 0xff, 0xff, 0xff]), ErrorCode::FlowControl),
    ];
    for (bytes, code) in cases {
        let (mut client, mut seen) = (client(2), Seen::default());
        feed(&mut client, &bytes, 4, &mut seen).unwrap();
        assert_eq!(seen.resets, [(1, code as u32)], "{bytes:?}");
        assert_eq!(*client.output(), frame(3, 0, 1, &(code as u32).to_be_bytes()));
        feed(&mut client, &headers(0, 3, &[(":status", "204")]), 4, &mut seen).unwrap();
        assert_eq!((seen.headers[&3][0].1.as_str(), client.open_streams()), ("204", 1));
    }
}

#[test]
fn more_than_a_stream_s_window_ends_it() {
    let settings = Settings { initial_window: 10, ..Settings::default() };
    let (mut client, mut seen) = (Connection::client(&settings), Seen::default());
    client.open(&mut |to| to.push(b":method", b"GET"), true).unwrap();
    let ack = frame(4, 1, 0, b"");
    let start = [&EMPTY_SETTINGS[..], &ack, &headers(0, 1, &[(":status", "200")])].concat();
    feed(&mut client, &start, 64, &mut seen).unwrap();
    client.hold_windows(true);
    feed(&mut client, &frame(0, 0, 1, &[0; 10]), 64, &mut seen).unwrap();
    assert!(seen.resets.is_empty());
    feed(&mut client, &frame(0, 0, 1, &[0; 1]), 64, &mut seen).unwrap();
    assert_eq!(seen.resets, [(1, ErrorCode::FlowControl as u32)]);
}

#[test]
fn a_window_may_shrink_below_zero() {
    let mut client = client(1);
    client.send_data(StreamId(1), &[1; 70_000], true);
    assert_eq!(data_lengths(client.output()).iter().sum::<usize>(), 65_535);
    client.output().clear();
    let mut seen = Seen::default();
    let more = frame(8, 0, 0, &100_000u32.to_be_bytes());
    let shrunk = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let given = frame(8, 0, 1, &65_535u32.to_be_bytes());
    feed(&mut client, &[more, shrunk, given].concat(), 5, &mut seen).unwrap();
    assert_eq!((data_lengths(client.output()), client.unsent()), (vec![], 4_465));
    feed(&mut client, &frame(8, 0, 1, &5u32.to_be_bytes()), 5, &mut seen).unwrap();
    assert_eq!((data_lengths(client.output()), client.unsent()), (vec![5], 4_460));
    feed(&mut client, &frame(4, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]), 5, &mut seen).unwrap();
    assert_eq!((data_lengths(client.output()), client.unsent()), (vec![5, 4_460], 0));
}

#[test]
fn frames_are_as_large_as_the_peer_takes() {
    let mut client = client(2);
    client.send_data(StreamId(1), &[1; 40_000], true);
    assert_eq!(data_lengths(client.output()), [16_384, 16_384, 7_232]);
    client.output().clear();
    feed(&mut client, &frame(4, 0, 0, &[0, 5, 0, 0, 0x50, 0]), 5, &mut Seen::default()).unwrap();
    client.output().clear();
    client.send_data(StreamId(3), &[1; 25_000], true);
    assert_eq!(data_lengths(client.output()), [20_480, 4_520]);
}

#[test]
fn streams_are_opened_as_far_as_the_peer_and_the_numbers_go() {
    let mut client = client(2);
    feed(&mut client, &frame(4, 0, 0, &[0, 3, 0, 0, 0, 2]), 5, &mut Seen::default()).unwrap();
    assert!(!client.can_open());
    client.reset(StreamId(1), ErrorCode::Cancel);
    client.next_stream = 0x7fff_ffff;
    assert_eq!(client.open(&mut |to| to.push(b":method", b"GET"), false), Some(StreamId(0x7fff_ffff)));
    client.reset(StreamId(3), ErrorCode::Cancel);
    assert!(!client.can_open());
    assert_eq!(client.open(&mut |_| unreachable!("no stream, no headers"), false), None);
}

#[test]
fn a_peer_that_leaves_frees_what_it_does_not_take() {
    let mut client = client(3);
    client.send_data(StreamId(5), &[1; 70_000], true);
    let mut seen = Seen::default();
    feed(&mut client, &frame(7, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]), 5, &mut seen).unwrap();
    assert_eq!((client.open_streams(), client.unsent(), client.can_open()), (2, 0, false));
    feed(&mut client, &headers(0, 3, &[(":status", "200")]), 5, &mut seen).unwrap();
    assert!(seen.headers.contains_key(&3));
}

#[test]
fn streams_behind_our_go_away_are_passed_over() {
    let (mut server, mut seen) = (server(), Seen::default());
    feed(&mut server, &headers(0, 1, &[(":method", "POST")]), 5, &mut seen).unwrap();
    server.go_away(ErrorCode::NoError);
    server.output().clear();
    let late = [headers(0, 3, &[(":method", "POST")]), frame(0, 1, 3, b"late"), frame(0, 1, 1, b"in time")].concat();
    feed(&mut server, &late, 5, &mut seen).unwrap();
    assert_eq!((seen.headers.len(), seen.bodies.len(), seen.bodies[&1].as_slice()), (1, 1, &b"in time"[..]));
    server.go_away(ErrorCode::NoError);
    assert_eq!(*server.output(), frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]));
}

#[test]
fn more_streams_than_announced_are_refused() {
    let (mut server, mut seen) = (server(), Seen::default());
    let last = MAX_STREAMS * 2 + 1;
    for id in (1..=last).step_by(2) {
        feed(&mut server, &headers(0, id, &[(":method", "POST")]), 64, &mut seen).unwrap();
    }
    assert_eq!((seen.headers.len(), server.open_streams()), (MAX_STREAMS as usize, MAX_STREAMS as usize));
    assert_eq!(*server.output(), frame(3, 0, last, &[0, 0, 0, 7]));
}

#[test]
fn headers_that_are_too_large_end_their_stream_alone_without_a_table() {
    let large = [(":status", "200"), ("large", &"x".repeat(9_000))];
    let mut block = vec![0x20];
    for (name, value) in large {
        Writer::new(&mut block).push(name.as_bytes(), value.as_bytes());
    }
    let settings = Settings { max_header_list: 8_000, ..Settings::default() };
    for (off, resets) in [(true, 1), (false, 0)] {
        let (mut client, mut seen) = (Connection::client(&settings), Seen::default());
        client.open(&mut |to| to.push(b":method", b"GET"), true).unwrap();
        let block = if off { &block[..] } else { &block[1..] };
        let result = feed(&mut client, &[&EMPTY_SETTINGS[..], &frame(1, 4, 1, block)].concat(), 999, &mut seen);
        assert_eq!((result.is_ok(), seen.resets.len()), (off, resets));
    }
}

#[test]
fn nothing_is_read_after_an_error() {
    let mut client = client(1);
    let error = feed(&mut client, &frame(5, 0, 1, b""), 9, &mut Seen::default()).unwrap_err();
    assert_eq!(*client.output(), frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]));
    client.output().clear();
    let again = feed(&mut client, &headers(0, 1, &[(":status", "200")]), 9, &mut Seen::default());
    assert_eq!((again, client.output().is_empty(), client.can_open()), (Err(error), true, false));
}

#[test]
fn floods_are_cut_off_however_many_streams_are_open() {
    let empty_data = frame(0, 0, 1, b"");
    let start = headers(0, 1, &[(":status", "200")]);
    for flooding in [frame(6, 0, 0, &[0; 8]), frame(6, 1, 0, &[0; 8]), EMPTY_SETTINGS.to_vec(), empty_data] {
        let (mut client, mut seen) = (client(1), Seen::default());
        feed(&mut client, &start, 9, &mut seen).unwrap();
        for _ in 0..20 {
            feed(&mut client, &flooding.repeat(1_000), 4096, &mut seen).unwrap();
            // A host that takes the output in between is not flooded.
            client.output().clear();
        }
        let error = feed(&mut client, &flooding.repeat(20_000), 4096, &mut seen).unwrap_err();
        assert_eq!(error.code, ErrorCode::EnhanceYourCalm);
    }
}

#[test]
fn a_queue_that_is_never_empty_does_not_keep_what_it_sent() {
    let mut client = client(1);
    client.send_data(StreamId(1), &[1; 70_000], false);
    for _ in 0..200 {
        let more = [frame(8, 0, 0, &10_000u32.to_be_bytes()), frame(8, 0, 1, &10_000u32.to_be_bytes())].concat();
        client.send_data(StreamId(1), &[1; 10_000], false);
        feed(&mut client, &more, 64, &mut Seen::default()).unwrap();
        client.output().clear();
    }
    let held = client.streams.by_id(StreamId(1)).unwrap().outbox.bytes.len();
    assert_eq!(client.unsent(), 4_465);
    assert!(held < 40_000, "{held} bytes held");
}

#[test]
fn the_first_headers_say_that_there_is_no_table() {
    let mut client = Connection::client(&Settings::default());
    client.output().clear();
    for (stream, block) in [(1, &[0x20, 0x83][..]), (3, &[0x83])] {
        client.open(&mut |to| to.push(b":method", b"POST"), true).unwrap();
        assert_eq!(core::mem::take(client.output()), frame(1, 5, stream, block));
    }
}
