//! Our HTTP/2 against the `h2` crate, as client and as server, over an in-memory pipe.

// Clippy knows tests by their attribute only, not the helpers beside them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use meltemi_engine::h2::{Connection, ErrorCode, Event, Settings, StreamId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// Windows, frame sizes and cuttings under which the same calls must have the same outcome.
#[derive(Debug, Clone, Copy)]
struct Case {
    ours: Settings,
    window: u32,
    max_frame: u32,
    max_streams: u32,
    piece: usize,
}

fn cases() -> Vec<Case> {
    let ours = Settings::default();
    let tight = Settings { initial_window: 1_000, connection_window: 65_535, max_header_list: 64 * 1024 };
    vec![
        Case { ours, window: 65_535, max_frame: 16_384, max_streams: 100, piece: 65_536 },
        Case { ours, window: 100, max_frame: 16_384, max_streams: 3, piece: 1_000 },
        Case { ours: tight, window: 1 << 20, max_frame: 1 << 20, max_streams: 1, piece: 17 },
        Case { ours: tight, window: 10_000, max_frame: 20_000, max_streams: 1_000, piece: 4_096 },
    ]
}

/// Length of a call's body, and of a header it carries.
const CALLS: [(usize, usize); 9] =
    [(0, 1), (1, 10), (16_384, 200), (70_000, 3), (5, 20_000), (200_000, 0), (999, 40_000), (1_000, 5), (65_536, 100)];

fn body(call: usize) -> Vec<u8> {
    let length = CALLS.get(call).map_or(0, |(length, _)| *length);
    (0..length).map(|at| (at * 31 + call) as u8).collect()
}

fn header(call: usize) -> String {
    let length = CALLS.get(call).map_or(0, |(_, length)| *length);
    (0..length).map(|at| char::from(b'!' + ((at + call) % 90) as u8)).collect()
}

/// What our end saw of a stream.
#[derive(Debug, Default)]
struct Seen {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    trailers: BTreeMap<String, String>,
    ended: usize,
    reset: Option<u32>,
}

/// Our end of the pipe.
struct End {
    connection: Connection,
    io: DuplexStream,
    piece: usize,
    seen: BTreeMap<StreamId, Seen>,
    went_away: Vec<u32>,
}

impl End {
    fn new(connection: Connection, io: DuplexStream, piece: usize) -> Self {
        Self { connection, io, piece, seen: BTreeMap::new(), went_away: Vec::new() }
    }

    async fn write(&mut self) {
        let out = core::mem::take(self.connection.output());
        self.io.write_all(&out).await.unwrap();
    }

    /// Writes what there is, then reads once; `false` if the peer has closed.
    async fn turn(&mut self) -> bool {
        self.write().await;
        let mut bytes = vec![0; self.piece];
        let length = self.io.read(&mut bytes).await.unwrap();
        let mut input = &bytes[..length];
        while let Some(event) = self.connection.next_event(&mut input).unwrap() {
            let texts = |headers: meltemi_engine::h2::Headers<'_>| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                headers.iter().map(|(name, value)| (text(name), text(value))).collect()
            };
            match event {
                Event::Headers { stream, headers, end_stream } => {
                    let seen = self.seen.entry(stream).or_default();
                    seen.headers = texts(headers);
                    seen.ended += usize::from(end_stream);
                }
                Event::Data { stream, data, end_stream } => {
                    let seen = self.seen.entry(stream).or_default();
                    seen.body.extend_from_slice(data);
                    seen.ended += usize::from(end_stream);
                }
                Event::Trailers { stream, headers } => {
                    let seen = self.seen.entry(stream).or_default();
                    seen.trailers = texts(headers);
                    seen.ended += 1;
                }
                Event::Reset { stream, code } => self.seen.entry(stream).or_default().reset = Some(code),
                Event::GoAway { last_stream, .. } => self.went_away.push(last_stream.0),
            }
        }
        length > 0
    }

    fn ask(&mut self, call: usize) -> Option<StreamId> {
        let (body, header) = (body(call), header(call));
        let stream = self.connection.open(
            &mut |to| {
                to.push(b":method", b"POST");
                to.push(b":scheme", b"http");
                to.push(b":authority", b"demo:80");
                to.push(b":path", b"/service/method");
                to.push(b"x-call", header.as_bytes());
            },
            body.is_empty(),
        )?;
        if !body.is_empty() {
            self.connection.send_data(stream, &body, true);
        }
        Some(stream)
    }

    /// Sends a request's header and body back, with trailers.
    fn echo(&mut self, stream: StreamId) {
        let seen = &self.seen[&stream];
        let header = seen.headers["x-call"].clone();
        let answer = &mut |to: &mut meltemi_engine::h2::HeaderWriter<'_>| {
            to.push(b":status", b"200");
            to.push(b"x-call", header.as_bytes());
        };
        self.connection.send_headers(stream, answer, false);
        self.connection.send_data(stream, &seen.body, false);
        self.connection.send_headers(stream, &mut |to| to.push(b"x-end", b"yes"), true);
    }
}

/// The `h2` crate's server: sends header and body back, with trailers.
async fn echo_server(io: DuplexStream, case: Case) {
    let mut server = h2::server::Builder::new()
        .initial_window_size(case.window)
        .max_frame_size(case.max_frame)
        .max_concurrent_streams(case.max_streams)
        .max_header_list_size(64 * 1024)
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    while let Some(request) = server.accept().await {
        let (request, mut respond) = request.unwrap();
        tokio::spawn(async move {
            let header = request.headers()["x-call"].clone();
            let body = read(request.into_body()).await.unwrap().0;
            let response = Response::builder().header("x-call", header).body(()).unwrap();
            let mut stream = respond.send_response(response, false).unwrap();
            stream.send_data(body.into(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("x-end", "yes".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
        });
    }
}

async fn read(mut body: h2::RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, body.trailers().await?))
}

#[tokio::test]
async fn our_client_calls_their_server() {
    for case in cases() {
        let (io, theirs) = duplex(1 << 22);
        tokio::spawn(echo_server(theirs, case));
        let mut end = End::new(Connection::client(&case.ours), io, case.piece);
        // Their limit of streams holds once we have seen, and so acknowledged, their settings.
        while end.turn().await && end.connection.output().is_empty() {}
        let mut streams = Vec::new();
        while streams.len() < CALLS.len()
            || streams.iter().any(|stream| end.seen.get(stream).is_none_or(|s| s.ended == 0))
        {
            while streams.len() < CALLS.len() && end.connection.can_open() {
                streams.extend(end.ask(streams.len()));
            }
            assert!(end.connection.open_streams() <= case.max_streams as usize);
            assert!(end.turn().await);
        }
        for (call, stream) in streams.iter().enumerate() {
            let seen = &end.seen[stream];
            assert_eq!((seen.headers[":status"].as_str(), &seen.headers["x-call"]), ("200", &header(call)));
            assert!(seen.body == body(call), "call {call} of {case:?}");
            assert_eq!((seen.trailers["x-end"].as_str(), seen.ended, seen.reset), ("yes", 1, None));
        }
        assert_eq!((end.connection.open_streams(), end.connection.unsent()), (0, 0));
    }
}

#[tokio::test]
async fn their_client_calls_our_server() {
    for case in cases() {
        let (io, theirs) = duplex(1 << 22);
        let client = tokio::spawn(async move {
            let (send, connection) = h2::client::Builder::new()
                .initial_window_size(case.window)
                .max_frame_size(case.max_frame)
                .max_header_list_size(64 * 1024)
                .handshake::<_, Bytes>(theirs)
                .await
                .unwrap();
            let connection = tokio::spawn(connection);
            let mut calls = Vec::new();
            for call in 0..CALLS.len() {
                let mut send = send.clone().ready().await.unwrap();
                calls.push(tokio::spawn(async move {
                    let request = Request::post("http://demo:80/service/method").header("x-call", header(call));
                    let (response, mut stream) = send.send_request(request.body(()).unwrap(), false).unwrap();
                    stream.send_data(body(call).into(), true).unwrap();
                    let response = response.await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    assert_eq!(response.headers()["x-call"], header(call));
                    let (echoed, trailers) = read(response.into_body()).await.unwrap();
                    assert!(echoed == body(call), "call {call} of {case:?}");
                    assert_eq!(trailers.unwrap()["x-end"], "yes");
                }));
            }
            for call in calls {
                call.await.unwrap();
            }
            drop(send);
            connection.await.unwrap().unwrap();
        });
        let mut end = End::new(Connection::server(&case.ours), io, case.piece);
        let mut answered = Vec::new();
        while end.turn().await {
            let whole: Vec<StreamId> = end
                .seen
                .iter()
                .filter(|(id, seen)| seen.ended > 0 && !answered.contains(*id))
                .map(|(id, _)| *id)
                .collect();
            for stream in whole {
                end.echo(stream);
                answered.push(stream);
            }
        }
        client.await.unwrap();
        assert_eq!((answered.len(), end.connection.open_streams(), end.connection.unsent()), (CALLS.len(), 0, 0));
    }
}

#[tokio::test]
async fn resets_reach_the_other_end() {
    let (io, theirs) = duplex(1 << 22);
    let client = tokio::spawn(async move {
        let (mut send, connection) = h2::client::handshake(theirs).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = || Request::post("http://demo:80/").body(()).unwrap();
        let (response, mut stream) = send.send_request(request(), false).unwrap();
        stream.send_data(Bytes::from_static(b"begun"), false).unwrap();
        let refused = response.await.unwrap_err();
        assert_eq!(refused.reason(), Some(h2::Reason::REFUSED_STREAM));
        drop(stream);
        let (response, mut stream) = send.send_request(request(), false).unwrap();
        stream.send_data(Bytes::from_static(b"begun"), false).unwrap();
        let mut answer = response.await.unwrap().into_body();
        assert_eq!(answer.data().await.unwrap().unwrap(), "half");
        stream.send_reset(h2::Reason::CANCEL);
        drop((send, stream, answer));
        connection.await.unwrap().unwrap();
    });
    let mut end = End::new(Connection::server(&Settings::default()), io, 64);
    let (first, second) = (StreamId(1), StreamId(3));
    while end.turn().await {
        if end.seen.get(&first).is_some_and(|seen| seen.body == b"begun") {
            end.connection.reset(first, ErrorCode::RefusedStream);
        }
        if end.seen.get(&second).is_some_and(|seen| seen.body == b"begun" && seen.reset.is_none()) {
            end.connection.send_headers(second, &mut |to| to.push(b":status", b"200"), false);
            end.connection.send_data(second, b"half", false);
            end.seen.get_mut(&second).unwrap().body.clear();
        }
    }
    client.await.unwrap();
    assert_eq!(end.seen[&second].reset, Some(h2::Reason::CANCEL.into()));
    assert_eq!(end.connection.open_streams(), 0);
}

#[tokio::test]
async fn their_server_leaves_in_peace() {
    let (io, theirs) = duplex(1 << 22);
    let server = tokio::spawn(async move {
        let mut server = h2::server::handshake(theirs).await.unwrap();
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        server.graceful_shutdown();
        respond.send_response(Response::new(()), true).unwrap();
        assert!(server.accept().await.is_none());
    });
    let mut end = End::new(Connection::client(&Settings::default()), io, 64);
    let stream = end.ask(0).unwrap();
    while end.went_away.len() < 2 && end.turn().await {}
    assert_eq!(end.went_away, [0x7fff_ffff, stream.0]);
    assert!(!end.connection.can_open());
    while end.seen.get(&stream).is_none_or(|seen| seen.ended == 0) {
        assert!(end.turn().await);
    }
    drop(end);
    server.await.unwrap();
}

#[tokio::test]
async fn our_server_leaves_in_peace() {
    let (io, theirs) = duplex(1 << 22);
    let client = tokio::spawn(async move {
        let (mut send, connection) = h2::client::handshake(theirs).await.unwrap();
        let connection = tokio::spawn(connection);
        let (response, _) = send.send_request(Request::post("http://demo:80/").body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 204);
        // The connection ends by itself, though it could be asked for more.
        connection.await.unwrap().unwrap();
        assert!(send.ready().await.is_err());
    });
    let mut end = End::new(Connection::server(&Settings::default()), io, 64);
    while end.turn().await {
        if end.seen.contains_key(&StreamId(1)) && end.connection.open_streams() == 1 {
            end.connection.go_away(ErrorCode::NoError);
            end.connection.send_headers(StreamId(1), &mut |to| to.push(b":status", b"204"), true);
        }
    }
    client.await.unwrap();
}
