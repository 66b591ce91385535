use core::{cell::RefCell, time::Duration};

use meltemi_core::FailureKind;
use meltemi_engine::inlet::InletStats;

use crate::{
    abi::{self, Metric, MetricKind},
    vm::Context,
};

/// The statistics of inlet and relay in Envoy, by protocol: `wasmcustom.meltemi.<protocol>.<name>`, with the names of the
/// dynamic module. Every worker has a VM of its own, all of which count on the same metrics.
///
/// A call of Envoy costs more than all that we do with a message: what there is to count is put by, and given to it every
/// few milliseconds.
pub(super) struct Metrics {
    counters: [Option<Metric>; InletStats::NAMES.len()],
    in_flight: Option<Metric>,
    duration: Option<Metric>,
    errors: [Option<Metric>; FailureKind::ALL.len()],
    unanswered: Option<Metric>,
    put_by: RefCell<PutBy>,
}

/// What Envoy has not been told yet.
#[derive(Default)]
struct PutBy {
    any: bool,
    stats: InletStats,
    unanswered: u64,
    durations: Vec<Duration>,
}

/// Durations that may be put by: of more calls at once, the memory is given back.
const KEEP: usize = 1024;

/// Calls of one connection that stand on the gauge.
#[derive(Debug, Default)]
pub(super) struct InFlight(i64);

impl Metrics {
    pub(super) fn new(protocol: &str) -> Self {
        let define = |kind, name: &str| abi::define_metric(kind, &format!("meltemi.{protocol}.{name}"));
        let counter = |name: &str| define(MetricKind::Counter, name);
        Self {
            counters: InletStats::NAMES.map(counter),
            in_flight: define(MetricKind::Gauge, "in_flight"),
            duration: define(MetricKind::Histogram, "duration_us"),
            errors: FailureKind::ALL.map(|kind| counter(&format!("errors.{kind}"))),
            unanswered: counter("unanswered"),
            put_by: RefCell::default(),
        }
    }

    /// Takes what happened on a connection since the last time.
    pub(super) fn report(
        &self,
        context: Context,
        stats: &InletStats,
        mut next_duration: impl FnMut() -> Option<Duration>,
        in_flight: &mut InFlight,
    ) {
        if *stats == InletStats::default() {
            return;
        }
        in_flight.0 = in_flight.0.saturating_add(stats.in_flight);
        self.put_by(context, |put_by| {
            put_by.stats.add(stats);
            while let Some(duration) = next_duration() {
                put_by.durations.push(duration);
            }
        });
    }

    /// Takes calls off the gauge whose connection is gone.
    pub(super) fn forget(&self, context: Context, in_flight: &mut InFlight) {
        let gone = core::mem::take(&mut in_flight.0).saturating_neg();
        if gone != 0 {
            self.put_by(context, |put_by| put_by.stats.in_flight = put_by.stats.in_flight.saturating_add(gone));
        }
    }

    /// Counts a connection that was closed in place of an answer.
    pub(super) fn unanswered(&self, context: Context) {
        self.put_by(context, |put_by| put_by.unanswered = put_by.unanswered.saturating_add(1));
    }

    fn put_by(&self, context: Context, work: impl FnOnce(&mut PutBy)) {
        let mut put_by = self.put_by.borrow_mut();
        work(&mut put_by);
        if !core::mem::replace(&mut put_by.any, true) {
            context.tick_later();
        }
    }

    /// Gives Envoy all that was put by; `false` if that is nothing.
    pub(super) fn flush(&self) -> bool {
        let mut put_by = self.put_by.borrow_mut();
        if !core::mem::take(&mut put_by.any) {
            return false;
        }
        let stats = core::mem::take(&mut put_by.stats);
        for (metric, count) in self.counters.iter().zip(stats.counts()) {
            abi::count(*metric, count);
        }
        for (metric, count) in self.errors.iter().zip(stats.errors()) {
            abi::count(*metric, *count);
        }
        abi::count(self.unanswered, core::mem::take(&mut put_by.unanswered));
        for duration in put_by.durations.drain(..) {
            abi::record(self.duration, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
        put_by.durations.shrink_to(KEEP);
        // The gauge last: who sees it fall sees the rest.
        abi::move_gauge(self.in_flight, stats.in_flight);
        true
    }
}
