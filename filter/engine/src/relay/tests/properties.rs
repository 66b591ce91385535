//! Random conversations against a naive relay.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A request with this id; it is served, denied, or too large to be taken.
    Call {
        id: u8,
        fate: u8,
    },
    OneWay {
        denied: bool,
    },
    /// The server answers one of the calls it has: which one is its choice only where replies are multiplexed.
    Answer(usize),
    /// The client reads, or does not.
    Reads(bool),
    HalfClose,
    ServerGoes,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0u8..4, 0u8..4).prop_map(|(id, fate)| Step::Call { id, fate }),
        1 => any::<bool>().prop_map(|denied| Step::OneWay { denied }),
        8 => (0usize..8).prop_map(Step::Answer),
        1 => any::<bool>().prop_map(Step::Reads),
    ];
    let end = prop_oneof![3 => Just(None), 1 => Just(Some(Step::HalfClose)), 1 => Just(Some(Step::ServerGoes))];
    (prop::collection::vec(step, 1..50), end).prop_map(|(steps, end)| steps.into_iter().chain(end).collect())
}

/// The oracle: all frames in lists, looked through from the start at every step.
struct Naive {
    ordering: Ordering,
    max_in_flight: usize,
    /// What the client has sent and nobody has looked at.
    waiting: Vec<(u8, u32, Vec<u8>)>,
    /// Unanswered calls: id, whether the server has it, the reply once known.
    line: Vec<(u32, Vec<u8>, Option<Vec<u8>>)>,
    reads: bool,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Naive {
    fn run(&mut self) {
        loop {
            let free = (0..self.line.len()).find(|index| {
                let (id, _, reply) = &self.line[*index];
                let earlier = self.line[..*index].iter();
                reply.is_some()
                    && earlier.filter(|(other, ..)| self.ordering == Ordering::Ordered || other == id).count() == 0
            });
            if let Some(free) = free {
                let reply = self.line.remove(free).2.unwrap();
                self.to_client.extend(reply);
            } else if self.reads && self.line.len() < self.max_in_flight && !self.waiting.is_empty() {
                let (fate, id, frame) = self.waiting.remove(0);
                match fate {
                    2 => self.line.push((id, frame, Some(failed(id, "denied", FailureKind::Denied)))),
                    3 => self.line.push((id, frame, Some(failed(id, "", FailureKind::TooLarge)))),
                    4 => self.to_server.extend(frame),
                    5 => {}
                    _ => {
                        self.to_server.extend(&frame);
                        self.line.push((id, frame, None));
                    }
                }
            } else {
                return;
            }
        }
    }

    /// The call that the server answers, and its reply.
    fn answer(&mut self, which: usize) -> Option<Vec<u8>> {
        let open: Vec<usize> = (0..self.line.len()).filter(|index| self.line[*index].2.is_none()).collect();
        let which = if self.ordering == Ordering::Ordered { 0 } else { which % open.len().max(1) };
        let id = self.line[*open.get(which)?].0;
        // Of those with one id the oldest.
        let index = *open.iter().find(|index| self.ordering == Ordering::Ordered || self.line[**index].0 == id)?;
        let reply = echo(&self.line[index].1);
        self.line[index].2 = Some(reply.clone());
        Some(reply)
    }
}

proptest! {
    /// Equal ids, refusals, frames too large, little room, a slow reader, either end going: every call has one outcome.
    #[test]
    fn any_conversation(script in steps(), ordered in any::<bool>(), piece in 1usize..80, room in 1u32..5) {
        let ordering = if ordered { Ordering::Ordered } else { Ordering::Multiplexed };
        let mut config = RelayConfig { max_in_flight: room, ..config(routes()) };
        config.limits.max_frame_bytes = 200;
        let mut bench = Bench::with(&config, Box::new(TestCodec(ordering)), Cutter::pieces(piece));
        let (line, waiting, max_in_flight) = (Vec::new(), Vec::new(), room as usize);
        let (to_server, to_client) = (Vec::new(), Vec::new());
        let mut naive = Naive { ordering, max_in_flight, waiting, line, reads: true, to_server, to_client };
        let mut calls = 0u64;
        for (number, step) in script.iter().enumerate() {
            match *step {
                Step::Call { id, fate } => {
                    let id = u32::from(id);
                    let method = if fate == 2 { "s.denied" } else { "s.hello" };
                    let size = if fate == 3 { 300 } else { number };
                    let call = request(id, method, &[], &vec![number as u8; size]);
                    bench.send(&call);
                    naive.waiting.push((fate, id, call));
                    calls += u64::from(fate != 3);
                }
                Step::OneWay { denied } => {
                    let call = one_way(9, if denied { "s.denied" } else { "s.hello" }, &[number as u8]);
                    bench.send(&call);
                    naive.waiting.push((if denied { 5 } else { 4 }, 9, call));
                }
                Step::Answer(which) => {
                    if let Some(reply) = naive.answer(which) {
                        bench.answer(&reply);
                    }
                }
                Step::Reads(reads) => {
                    naive.reads = reads;
                    bench.reads(reads);
                }
                Step::HalfClose => {
                    bench.client_ends();
                }
                Step::ServerGoes => {
                    bench.server_ends();
                    (naive.reads, naive.max_in_flight) = (true, usize::MAX);
                    let lost = |id| Some(failed(id, "hello", FailureKind::UpstreamReset));
                    naive.line.iter_mut().for_each(|(id, _, reply)| *reply = reply.take().or_else(|| lost(*id)));
                    for (fate, id, frame) in core::mem::take(&mut naive.waiting) {
                        match fate {
                            4 | 5 => {}
                            3 => naive.line.push((id, frame, Some(failed(id, "", FailureKind::TooLarge)))),
                            2 => naive.line.push((id, frame, Some(failed(id, "denied", FailureKind::UpstreamReset)))),
                            _ => naive.line.push((id, frame, lost(id))),
                        }
                    }
                }
            }
            naive.run();
            bench.take();
            prop_assert_eq!(&bench.server_got, &naive.to_server);
            prop_assert_eq!(&bench.client_got, &naive.to_client);
        }
        naive.reads = true;
        bench.reads(true);
        loop {
            naive.run();
            bench.take();
            prop_assert_eq!(&bench.client_got, &naive.to_client);
            let Some(reply) = naive.answer(0) else { break };
            bench.answer(&reply);
        }
        prop_assert_eq!(&bench.server_got, &naive.to_server);
        let stats = bench.relay.take_stats();
        prop_assert_eq!((stats.in_flight, stats.requests), (0, calls));
        let ended = script.iter().any(|step| matches!(step, Step::HalfClose));
        prop_assert_eq!(bench.relay.ends_sending(), ended && bench.relay.cluster().is_some());
    }
}
