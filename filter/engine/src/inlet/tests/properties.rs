//! Random conversations against a naive inlet.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Call {
        id: u8,
        size: usize,
    },
    OneWay {
        size: usize,
    },
    /// A request larger than the limit.
    TooLarge {
        id: u8,
    },
    Heartbeat(u8),
    /// The n-th oldest open request is answered: by the server, or in Envoy.
    Answer {
        which: usize,
        how: u8,
    },
    Reads(bool),
}

#[derive(Debug, Clone, Copy)]
enum End {
    No,
    HalfClose,
    /// HCM takes no more.
    GoAway,
    HcmCloses,
}

fn script() -> impl Strategy<Value = (Vec<Step>, End)> {
    let step = prop_oneof![
        6 => (0u8..4, 0usize..300).prop_map(|(id, size)| Step::Call { id, size }),
        1 => (0usize..300).prop_map(|size| Step::OneWay { size }),
        1 => (0u8..4).prop_map(|id| Step::TooLarge { id }),
        2 => (0u8..6).prop_map(Step::Heartbeat),
        6 => (0usize..8, 0u8..5).prop_map(|(which, how)| Step::Answer { which, how }),
        1 => any::<bool>().prop_map(Step::Reads),
    ];
    let end =
        prop_oneof![2 => Just(End::No), 1 => Just(End::HalfClose), 1 => Just(End::GoAway), 1 => Just(End::HcmCloses)];
    (prop::collection::vec(step, 1..50), end)
}

/// A frame of the client on its way through the oracle.
#[derive(Clone)]
struct Item {
    id: u32,
    step: Step,
    frame: Vec<u8>,
    /// What the client gets, once that is known; nothing for one-way calls.
    reply: Option<Vec<u8>>,
}

/// The oracle: two lists, looked through from the start at every step.
struct Naive {
    ordering: Ordering,
    room: usize,
    reads: bool,
    refusing: bool,
    /// Not decoded yet.
    waiting: Vec<Item>,
    /// Decoded, not ended.
    line: Vec<Item>,
    got: Vec<u8>,
}

fn is_one_way(item: &Item) -> bool {
    matches!(item.step, Step::OneWay { .. })
}

impl Naive {
    fn run(&mut self) {
        loop {
            let ordered = self.ordering == Ordering::Ordered;
            let free = (0..self.line.len()).find(|index| {
                let item = &self.line[*index];
                let mut earlier = self.line[..*index].iter().filter(|other| !is_one_way(other));
                item.reply.is_some() && (is_one_way(item) || !earlier.any(|other| ordered || other.id == item.id))
            });
            if let Some(free) = free {
                let item = self.line.remove(free);
                self.got.extend(item.reply.unwrap());
            } else if self.reads && self.line.len() < self.room && !self.waiting.is_empty() {
                let mut item = self.waiting.remove(0);
                match item.step {
                    Step::Heartbeat(_) if !ordered || self.line.is_empty() => {
                        self.got.extend(heartbeat_reply(item.id));
                        continue;
                    }
                    Step::Heartbeat(_) => item.reply = Some(heartbeat_reply(item.id)),
                    Step::TooLarge { .. } => item.reply = Some(failed(item.id, "", FailureKind::TooLarge)),
                    Step::OneWay { .. } if self.refusing => item.reply = Some(Vec::new()),
                    _ if self.refusing => item.reply = Some(failed(item.id, "a.b", FailureKind::Draining)),
                    _ => {}
                }
                self.line.push(item);
            } else {
                return;
            }
        }
    }

    fn answer(&mut self, which: usize, how: u8) -> Option<Vec<u8>> {
        let open: Vec<usize> = (0..self.line.len()).filter(|index| self.line[*index].reply.is_none()).collect();
        let item = &mut self.line[*open.get(which % open.len().max(1))?];
        let failed = |kind| failed(item.id, "a.b", kind);
        let reply = match how {
            0 | 1 => echo(&item.frame),
            2 => failed(FailureKind::Timeout),
            3 => failed(FailureKind::UpstreamReset),
            _ => failed(FailureKind::NoRoute),
        };
        item.reply = Some(if is_one_way(item) { Vec::new() } else { reply });
        Some(item.frame.clone())
    }
}

/// HCM answers the request with this body.
fn answer(pair: &mut Pair, wanted: Vec<u8>, how: u8) {
    let mut done = false;
    pair.router = Box::new(move |request| {
        if request.body != wanted || core::mem::replace(&mut done, true) {
            return Routed::Later;
        }
        match how {
            0 | 1 => Routed::Forward(Vec::new()),
            2 => Routed::Local(504, "response_timeout"),
            3 => Routed::Reset,
            _ => Routed::Local(404, "route_not_found"),
        }
    });
    pair.hcm_tick();
    pair.router = Box::new(|_| Routed::Later);
}

proptest! {
    /// Equal ids, frames too large, little room, a slow reader, either end going: every call has one outcome, in its turn.
    #[test]
    fn any_interleaving((script, end) in script(), ordered in any::<bool>(), piece in 1usize..200, room in 1u32..6) {
        let ordering = if ordered { Ordering::Ordered } else { Ordering::Multiplexed };
        let mut config = inlet_config();
        (config.max_in_flight, config.limits.max_frame_bytes) = (room, 500);
        let mut pair = Pair::with(&config, ordering, piece);
        pair.router = Box::new(|_| Routed::Later);
        let (waiting, line, got) = (Vec::new(), Vec::new(), Vec::new());
        let mut naive = Naive { ordering, room: room as usize, reads: true, refusing: false, waiting, line, got };
        let mut began = false;
        for (number, step) in script.into_iter().enumerate() {
            let body = |size: usize| [vec![0; size], (number as u32).to_be_bytes().to_vec()].concat();
            let (id, frame) = match step {
                Step::Call { id, size } => (u32::from(id), request(u32::from(id), "a.b", &[], &body(size))),
                Step::OneWay { size } => (9, one_way(9, "a.b", &body(size))),
                Step::TooLarge { id } => (u32::from(id), request(u32::from(id), "a.b", &[], &body(600))),
                Step::Heartbeat(id) => (u32::from(id), heartbeat(u32::from(id))),
                Step::Answer { which, how } => {
                    if let Some(frame) = naive.answer(which, how) {
                        answer(&mut pair, frame, how);
                    }
                    naive.run();
                    prop_assert_eq!(&pair.client_got, &naive.got);
                    continue;
                }
                Step::Reads(reads) => {
                    naive.reads = reads;
                    pair.inlet.on_client_writable(pair.now, reads);
                    pair.settle();
                    naive.run();
                    prop_assert_eq!(&pair.client_got, &naive.got);
                    continue;
                }
            };
            pair.send(&frame);
            naive.waiting.push(Item { id, step, frame, reply: None });
            naive.run();
            began |= !pair.hcm_got_nothing();
            prop_assert_eq!(&pair.client_got, &naive.got);
        }
        naive.reads = true;
        pair.inlet.on_client_writable(pair.now, true);
        pair.settle();
        naive.run();
        match end {
            End::HalfClose => {
                pair.half_close();
            }
            End::GoAway if began => {
                pair.hcm_goes_away(true);
                naive.refusing = true;
                naive.got.extend(if pair.signals { drain() } else { Vec::new() });
            }
            End::HcmCloses => {
                pair.hcm_closes();
                (naive.refusing, naive.room) = (true, usize::MAX);
                for item in &mut naive.line {
                    let gone = if is_one_way(item) { Vec::new() } else { failed(item.id, "a.b", FailureKind::Draining) };
                    item.reply.get_or_insert(gone);
                }
            }
            End::No | End::GoAway => {}
        }
        loop {
            naive.run();
            prop_assert_eq!(&pair.client_got, &naive.got);
            let Some(frame) = naive.answer(0, 0) else { break };
            answer(&mut pair, frame, 0);
        }
        prop_assert_eq!(pair.inlet.take_stats().in_flight, 0);
        prop_assert!(naive.line.is_empty() && naive.waiting.is_empty());
        let ends = matches!(end, End::HalfClose | End::HcmCloses) || matches!(end, End::GoAway if began);
        prop_assert_eq!(pair.inlet.close(), ends.then_some(Close::Flush));
    }
}
