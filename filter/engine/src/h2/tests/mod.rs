mod properties;
mod rules;

use std::collections::BTreeMap;

use super::*;

/// What one end saw of its streams.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Seen {
    headers: BTreeMap<u32, Vec<(String, String)>>,
    bodies: BTreeMap<u32, Vec<u8>>,
    ended: Vec<u32>,
    trailers: usize,
    resets: Vec<(u32, u32)>,
    went_away: Vec<u32>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Feeds `bytes` in pieces of `piece`.
fn feed(connection: &mut Connection, bytes: &[u8], piece: usize, seen: &mut Seen) -> Result<(), Error> {
    for mut input in bytes.chunks(piece.max(1)) {
        while let Some(event) = connection.next_event(&mut input)? {
            match event {
                Event::Headers { stream, headers, end_stream } => {
                    let list = headers.iter().map(|(name, value)| (text(name), text(value))).collect();
                    seen.headers.insert(stream.0, list);
                    seen.ended.extend(end_stream.then_some(stream.0));
                }
                Event::Data { stream, data, end_stream } => {
                    seen.bodies.entry(stream.0).or_default().extend_from_slice(data);
                    seen.ended.extend(end_stream.then_some(stream.0));
                }
                Event::Trailers { stream, headers } => {
                    seen.trailers += headers.first(b"trailer").map_or(0, |_| 1);
                    seen.ended.push(stream.0);
                }
                Event::Reset { stream, code } => seen.resets.push((stream.0, code)),
                Event::GoAway { last_stream, .. } => seen.went_away.push(last_stream.0),
            }
        }
        assert!(input.is_empty());
    }
    Ok(())
}

struct Both {
    client: Connection,
    server: Connection,
    client_saw: Seen,
    server_saw: Seen,
    piece: usize,
}

impl Both {
    fn new(client: Settings, server: Settings, piece: usize) -> Self {
        Self {
            client: Connection::client(&client),
            server: Connection::server(&server),
            client_saw: Seen::default(),
            server_saw: Seen::default(),
            piece,
        }
    }

    /// Carries bytes to and fro until nobody has any more.
    fn settle(&mut self) {
        loop {
            let (up, down) = (core::mem::take(self.client.output()), core::mem::take(self.server.output()));
            if up.is_empty() && down.is_empty() {
                return;
            }
            feed(&mut self.server, &up, self.piece, &mut self.server_saw).unwrap();
            feed(&mut self.client, &down, self.piece, &mut self.client_saw).unwrap();
        }
    }

    fn request(&mut self, path: &str, body: &[u8]) -> StreamId {
        let stream = self
            .client
            .open(
                &mut |to| {
                    to.push(b":method", b"POST");
                    to.push(b":path", path.as_bytes());
                },
                body.is_empty(),
            )
            .unwrap();
        if !body.is_empty() {
            self.client.send_data(stream, body, true);
        }
        stream
    }
}

fn small() -> Settings {
    Settings { initial_window: 10, connection_window: 70_000, max_header_list: 64 * 1024 }
}

#[test]
fn a_call_in_any_pieces() {
    for piece in [1, 2, 3, 7, 64, usize::MAX] {
        let mut both = Both::new(Settings::default(), Settings::default(), piece);
        let stream = both.request("/a", b"hello");
        both.settle();
        assert_eq!(both.server_saw.headers[&1][1], (":path".to_owned(), "/a".to_owned()));
        assert_eq!(both.server_saw.bodies[&1], b"hello");
        assert_eq!(both.server_saw.ended, [1]);
        both.server.send_headers(stream, &mut |to| to.push(b":status", b"100"), false);
        both.server.send_headers(stream, &mut |to| to.push(b":status", b"200"), false);
        both.server.send_data(stream, b"world", false);
        both.server.send_headers(stream, &mut |to| to.push(b"trailer", b"yes"), true);
        both.settle();
        assert_eq!(both.client_saw.bodies[&1], b"world");
        assert_eq!((both.client_saw.ended.as_slice(), both.client_saw.trailers), (&[1][..], 1));
        assert_eq!((both.client.open_streams(), both.server.open_streams()), (0, 0));
    }
}

#[test]
fn windows_hold_bodies_back_and_let_them_go() {
    let mut both = Both::new(Settings::default(), small(), usize::MAX);
    let body: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
    both.settle();
    both.server.hold_windows(true);
    both.request("/big", &body);
    both.settle();
    assert_eq!(both.server_saw.bodies[&1].len(), 10);
    assert_eq!(both.client.unsent(), body.len() - 10);
    both.server.hold_windows(false);
    both.settle();
    assert_eq!(both.server_saw.bodies[&1], body);
    assert_eq!(both.client.unsent(), 0);
    assert_eq!(both.server_saw.ended, [1]);
}

#[test]
fn trailers_wait_for_their_body() {
    let mut both = Both::new(small(), Settings::default(), 5);
    let stream = both.request("/", b"");
    both.settle();
    both.client.hold_windows(true);
    both.server.send_headers(stream, &mut |to| to.push(b":status", b"200"), false);
    both.server.send_data(stream, &[7; 100], false);
    both.server.send_headers(stream, &mut |to| to.push(b"trailer", b"yes"), true);
    both.settle();
    assert!(both.client_saw.ended.is_empty());
    both.client.hold_windows(false);
    both.settle();
    assert_eq!(both.client_saw.bodies[&1], [7; 100]);
    assert_eq!(both.client_saw.ended, [1]);
    assert_eq!(both.server.open_streams(), 0);
}

#[test]
fn large_headers_go_in_pieces() {
    let mut both = Both::new(Settings::default(), Settings::default(), 1000);
    let path = format!("/{}", "x".repeat(40_000));
    both.request(&path, b"");
    both.settle();
    assert_eq!(both.server_saw.headers[&1][1].1, path);
}

#[test]
fn a_reset_stream_frees_what_waited() {
    let mut both = Both::new(Settings::default(), small(), usize::MAX);
    both.settle();
    both.server.hold_windows(true);
    let stream = both.request("/", &[1; 500]);
    both.settle();
    both.server.reset(stream, ErrorCode::RefusedStream);
    both.settle();
    assert_eq!(both.client_saw.resets, [(1, 7)]);
    assert_eq!((both.client.unsent(), both.client.open_streams()), (0, 0));
}

#[test]
fn a_notice_of_leaving_is_not_the_end() {
    let mut both = Both::new(Settings::default(), Settings::default(), usize::MAX);
    both.settle();
    let notice = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    feed(&mut both.client, &notice, 4, &mut both.client_saw).unwrap();
    assert!(both.client.can_open());
    both.server.go_away(ErrorCode::NoError);
    both.settle();
    assert_eq!(both.client_saw.went_away, [0x7fff_ffff, 0]);
    assert!(!both.client.can_open());
}

#[test]
fn padding_and_priority_are_passed_over() {
    let mut server = Connection::server(&Settings::default());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // HEADERS padded by 2 with priority: :method POST.
    bytes.extend([0, 0, 9, 1, 0x4 | 0x8 | 0x20, 0, 0, 0, 1, 2, 0, 0, 0, 0, 16, 0x83, 0, 0]);
    // DATA padded by 3: "ab"; then a DATA of padding alone that ends the stream; and a PRIORITY.
    bytes.extend([0, 0, 6, 0, 0x8, 0, 0, 0, 1, 3, b'a', b'b', 0, 0, 0]);
    bytes.extend([0, 0, 2, 0, 0x8 | 0x1, 0, 0, 0, 1, 1, 0]);
    bytes.extend([0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
    for piece in 1..bytes.len() {
        let mut seen = Seen::default();
        feed(&mut server, &bytes, piece, &mut seen).unwrap();
        assert_eq!((seen.bodies[&1].as_slice(), seen.ended.as_slice()), (&b"ab"[..], &[1][..]));
        server = Connection::server(&Settings::default());
    }
}
