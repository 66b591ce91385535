//! Steady state: calls over an open HTTP/2 connection allocate nothing.

// Clippy knows tests by their attribute only, not the helpers beside them.
#![allow(clippy::expect_used)]

use allocation_counter::measure;
use meltemi_engine::h2::{Connection, Event, Settings};

/// Both ends in one thread; their bytes change hands without a copy.
struct Both {
    client: Connection,
    server: Connection,
    wire: Vec<u8>,
    body: Vec<u8>,
}

impl Both {
    fn new() -> Self {
        let settings = Settings::default();
        Self {
            client: Connection::client(&settings),
            server: Connection::server(&settings),
            wire: Vec::new(),
            body: vec![7; 5_000],
        }
    }

    /// A call with a body both ways. Gives back how many bytes of bodies arrived.
    fn call(&mut self) -> usize {
        let stream = self.client.open(
            &mut |to| {
                to.push(b":method", b"POST");
                to.push(b":scheme", b"http");
                to.push(b":authority", b"demo:80");
                to.push(b":path", b"/service/method");
                to.push(b"x-meltemi-protocol", b"thrift");
            },
            false,
        );
        self.client.send_data(stream.expect("a stream is free"), &self.body, true);
        let mut arrived = 0;
        core::mem::swap(&mut self.wire, self.client.output());
        let mut input = self.wire.as_slice();
        let mut asked = None;
        while let Some(event) = self.server.next_event(&mut input).expect("a good client") {
            if let Event::Data { stream, data, end_stream } = event {
                arrived += data.len();
                asked = end_stream.then_some(stream).or(asked);
            }
        }
        let asked = asked.expect("a whole request");
        self.server.send_headers(asked, &mut |to| to.push(b":status", b"200"), false);
        self.server.send_data(asked, &self.body, true);
        self.wire.clear();
        core::mem::swap(&mut self.wire, self.server.output());
        let mut input = self.wire.as_slice();
        while let Some(event) = self.client.next_event(&mut input).expect("a good server") {
            if let Event::Data { data, .. } = event {
                arrived += data.len();
            }
        }
        self.wire.clear();
        arrived
    }
}

#[test]
fn a_call_allocates_nothing() {
    let mut both = Both::new();
    for _ in 0..200 {
        assert_eq!(both.call(), 10_000);
    }
    let mut arrived = 0;
    let info = measure(|| {
        for _ in 0..1_000 {
            arrived += both.call();
        }
    });
    assert_eq!(arrived, 10_000_000);
    assert_eq!(info.count_total, 0, "{info:?}");
}
