use proptest::prelude::*;

use super::*;

proptest! {
    /// Any bodies, any cutting, any windows: every body arrives whole and once, and nothing is left over.
    #[test]
    fn everything_arrives(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 1..8),
        piece in 1usize..20_000,
        window in 1u32..50_000,
    ) {
        let settings = Settings { initial_window: window, ..Settings::default() };
        let mut both = Both::new(settings, settings, piece);
        for body in &bodies {
            both.request("/", body);
        }
        both.settle();
        for (index, body) in bodies.iter().enumerate() {
            let id = index as u32 * 2 + 1;
            let got = both.server_saw.bodies.get(&id).cloned().unwrap_or_default();
            prop_assert_eq!(&got, body);
            both.server.send_headers(StreamId(id), &mut |to| to.push(b":status", b"200"), false);
            both.server.send_data(StreamId(id), body, true);
        }
        both.settle();
        for (index, body) in bodies.iter().enumerate() {
            prop_assert_eq!(&both.client_saw.bodies[&(index as u32 * 2 + 1)], body);
        }
        prop_assert_eq!((both.client.open_streams(), both.server.open_streams()), (0, 0));
        prop_assert_eq!((both.client.unsent(), both.server.unsent()), (0, 0));
    }

    #[test]
    fn no_bytes_bring_it_down(noise in prop::collection::vec(any::<u8>(), 0..600), at in 0usize..300, piece in 1usize..50) {
        let mut both = Both::new(Settings::default(), small(), usize::MAX);
        both.request("/path", &[1; 100]);
        let mut bytes = core::mem::take(both.client.output());
        let at = at.min(bytes.len());
        bytes.splice(at..(at + noise.len() / 2).min(bytes.len()), noise);
        let _ = feed(&mut both.server, &bytes, piece, &mut Seen::default());
    }

    /// Any bytes of one end changed, in any cutting: an error at most.
    #[test]
    fn no_change_of_a_good_stream_brings_it_down(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        piece in 1usize..60,
        to_client in any::<bool>(),
    ) {
        let mut both = Both::new(small(), small(), usize::MAX);
        let mut bytes = [Vec::new(), Vec::new()];
        let stream = both.request("/path", &[1; 300]);
        for round in 0..6 {
            let (up, down) = (core::mem::take(both.client.output()), core::mem::take(both.server.output()));
            feed(&mut both.server, &up, 64, &mut both.server_saw).unwrap();
            feed(&mut both.client, &down, 64, &mut both.client_saw).unwrap();
            bytes[0].extend(up);
            bytes[1].extend(down);
            if round == 2 {
                both.server.send_headers(stream, &mut |to| to.push(b":status", b"200"), false);
                both.server.send_data(stream, &[2; 300], false);
                both.server.send_headers(stream, &mut |to| to.push(b"trailer", b"yes"), true);
            }
        }
        let victim = &mut bytes[usize::from(to_client)];
        for (index, byte) in changes {
            let index = index.index(victim.len());
            victim[index] = byte;
        }
        let mut reader = if to_client { Connection::client(&small()) } else { Connection::server(&small()) };
        if to_client {
            reader.open(&mut |to| to.push(b":method", b"POST"), true).unwrap();
        }
        let _ = feed(&mut reader, victim, piece, &mut Seen::default());
    }

    /// Whatever the two ends do in whatever order: what was not reset arrives whole and ends once, what was reset
    /// arrives as far as it came, and nothing is left over.
    #[test]
    fn any_interleaving(steps in prop::collection::vec(step(), 1..120), window in 1u32..3_000) {
        let settings = Settings { initial_window: window, connection_window: 65_535, ..Settings::default() };
        let mut run = Run::new(settings);
        for step in steps {
            run.step(step);
        }
        run.finish();
        for (id, call) in &run.calls {
            let up = run.both.server_saw.bodies.get(id).cloned().unwrap_or_default();
            let down = run.both.client_saw.bodies.get(id).cloned().unwrap_or_default();
            if call.reset {
                prop_assert!(call.request.starts_with(&up) && call.reply.starts_with(&down));
            } else {
                prop_assert_eq!((&up, &down), (&call.request, &call.reply));
                for seen in [&run.both.server_saw, &run.both.client_saw] {
                    prop_assert_eq!(seen.ended.iter().filter(|ended| *ended == id).count(), 1);
                }
            }
        }
        for end in [&run.both.client, &run.both.server] {
            prop_assert_eq!((end.open_streams(), end.unsent()), (0, 0));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The client asks with a body of so many bytes.
    Ask(usize),
    /// The server answers a call, with trailers or without.
    Answer(prop::sample::Index, usize, bool),
    Reset(prop::sample::Index, bool),
    Hold(bool, bool),
    /// So many bytes travel to the client (`true`) or the server.
    Carry(bool, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..6_000).prop_map(Step::Ask),
        3 => (any::<prop::sample::Index>(), 0usize..6_000, any::<bool>())
            .prop_map(|(call, body, trailers)| Step::Answer(call, body, trailers)),
        1 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(call, client)| Step::Reset(call, client)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(client, hold)| Step::Hold(client, hold)),
        6 => (any::<bool>(), 0usize..4_000).prop_map(|(down, bytes)| Step::Carry(down, bytes)),
    ]
}

/// The oracle's view of one call.
#[derive(Debug, Default)]
struct Call {
    request: Vec<u8>,
    reply: Vec<u8>,
    answered: bool,
    reset: bool,
}

struct Run {
    both: Both,
    calls: BTreeMap<u32, Call>,
    up: Vec<u8>,
    down: Vec<u8>,
}

impl Run {
    fn new(settings: Settings) -> Self {
        Self { both: Both::new(settings, settings, 100), calls: BTreeMap::new(), up: Vec::new(), down: Vec::new() }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask(bytes) => {
                let request: Vec<u8> = (0..bytes).map(|at| (at * 7 + self.calls.len()) as u8).collect();
                let id = self.both.request("/", &request).0;
                self.calls.insert(id, Call { request, ..Call::default() });
            }
            Step::Answer(which, bytes, trailers) => {
                // Only what the server knows of can be answered.
                let known: Vec<u32> = self.both.server_saw.headers.keys().copied().collect();
                if known.is_empty() {
                    return;
                }
                self.answer(known[which.index(known.len())], bytes, trailers);
            }
            Step::Reset(which, by_client) => {
                let known: Vec<u32> = match by_client {
                    true => self.calls.keys().copied().collect(),
                    false => self.both.server_saw.headers.keys().copied().collect(),
                };
                if known.is_empty() {
                    return;
                }
                let id = known[which.index(known.len())];
                let end = if by_client { &mut self.both.client } else { &mut self.both.server };
                let before = end.open_streams();
                end.reset(StreamId(id), ErrorCode::Cancel);
                if end.open_streams() < before {
                    self.calls.get_mut(&id).unwrap().reset = true;
                }
            }
            Step::Hold(client, hold) => match client {
                true => self.both.client.hold_windows(hold),
                false => self.both.server.hold_windows(hold),
            },
            Step::Carry(down, bytes) => self.carry(down, bytes),
        }
    }

    fn answer(&mut self, id: u32, bytes: usize, trailers: bool) {
        let call = self.calls.get_mut(&id).unwrap();
        if core::mem::replace(&mut call.answered, true) {
            return;
        }
        call.reply = (0..bytes).map(|at| (at * 3 + id as usize) as u8).collect();
        let (server, id) = (&mut self.both.server, StreamId(id));
        server.send_headers(id, &mut |to| to.push(b":status", b"200"), false);
        server.send_data(id, &call.reply, !trailers);
        if trailers {
            server.send_headers(id, &mut |to| to.push(b"trailer", b"yes"), true);
        }
    }

    fn carry(&mut self, down: bool, bytes: usize) {
        let both = &mut self.both;
        let (from, way, to, seen) = match down {
            true => (&mut both.server, &mut self.down, &mut both.client, &mut both.client_saw),
            false => (&mut both.client, &mut self.up, &mut both.server, &mut both.server_saw),
        };
        way.append(from.output());
        let rest = way.split_off(bytes.min(way.len()));
        feed(to, way, both.piece, seen).unwrap();
        *way = rest;
    }

    /// Everything is let go, answered and carried.
    fn finish(&mut self) {
        self.both.client.hold_windows(false);
        self.both.server.hold_windows(false);
        loop {
            let before = (self.both.client_saw.clone(), self.both.server_saw.clone());
            for down in [false, true] {
                self.carry(down, usize::MAX);
            }
            let known: Vec<u32> = self.both.server_saw.headers.keys().copied().collect();
            for id in known {
                self.answer(id, 10, false);
            }
            let idle = self.both.client.output().is_empty() && self.both.server.output().is_empty();
            if idle && self.up.is_empty() && self.down.is_empty() && before.0 == self.both.client_saw {
                return;
            }
        }
    }
}
