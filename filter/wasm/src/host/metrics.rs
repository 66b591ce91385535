use core::time::Duration;

use meltemi_core::FailureKind;
use meltemi_engine::inlet::InletStats;

use crate::abi::{self, Metric, MetricKind};

/// The statistics of inlet and relay in Envoy, by protocol: `wasmcustom.meltemi.<protocol>.<name>`, with the names of the
/// dynamic module. Every worker has a VM of its own, all of which count on the same metrics.
pub(super) struct Metrics {
    counters: [Option<Metric>; InletStats::NAMES.len()],
    in_flight: Option<Metric>,
    duration: Option<Metric>,
    errors: [Option<Metric>; FailureKind::ALL.len()],
    unanswered: Option<Metric>,
}

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
        }
    }

    /// Gives Envoy what happened since the last time.
    pub(super) fn report(
        &self,
        stats: &InletStats,
        mut next_duration: impl FnMut() -> Option<Duration>,
        in_flight: &mut InFlight,
    ) {
        for (metric, count) in self.counters.iter().zip(stats.counts()) {
            abi::count(*metric, count);
        }
        abi::move_gauge(self.in_flight, stats.in_flight);
        in_flight.0 = in_flight.0.saturating_add(stats.in_flight);
        for (metric, count) in self.errors.iter().zip(stats.errors()) {
            abi::count(*metric, *count);
        }
        while let Some(duration) = next_duration() {
            abi::record(self.duration, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Takes calls off the gauge whose connection is gone.
    pub(super) fn forget(&self, in_flight: &mut InFlight) {
        abi::move_gauge(self.in_flight, core::mem::take(&mut in_flight.0).saturating_neg());
    }

    /// Counts a connection that was closed in place of an answer.
    pub(super) fn unanswered(&self) {
        abi::count(self.unanswered, 1);
    }
}
