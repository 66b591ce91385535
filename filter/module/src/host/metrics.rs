use core::time::Duration;

use meltemi_core::FailureKind;
use meltemi_engine::inlet::InletStats;

use crate::abi::{ConfigScope, Metric, Network};

/// The statistics of inlet and relay in Envoy, by protocol: `meltemi.<protocol>.<name>`.
pub(super) struct InletMetrics {
    counters: [Metric; InletStats::NAMES.len()],
    panics: Metric,
    in_flight: Metric,
    duration: Metric,
    errors: [Metric; FailureKind::ALL.len()],
}

impl InletMetrics {
    pub(super) fn new(scope: ConfigScope, protocol: &str) -> Self {
        let counter = |name: &str| scope.counter(&format!("meltemi.{protocol}.{name}"));
        Self {
            counters: InletStats::NAMES.map(counter),
            panics: counter("panics"),
            in_flight: scope.gauge(&format!("meltemi.{protocol}.in_flight")),
            duration: scope.histogram(&format!("meltemi.{protocol}.duration_us")),
            errors: FailureKind::ALL.map(|kind| counter(&format!("errors.{kind}"))),
        }
    }

    /// Gives Envoy what happened since the last time; returns by how much the calls in flight changed.
    pub(super) fn report(
        &self,
        stats: &InletStats,
        mut next_duration: impl FnMut() -> Option<Duration>,
        envoy: Network,
    ) -> i64 {
        for (metric, count) in self.counters.iter().zip(stats.counts()) {
            envoy.count(*metric, count);
        }
        envoy.move_gauge(self.in_flight, stats.in_flight);
        for (metric, count) in self.errors.iter().zip(stats.errors()) {
            envoy.count(*metric, *count);
        }
        while let Some(duration) = next_duration() {
            envoy.record(self.duration, u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
        }
        stats.in_flight
    }

    /// Takes calls off the gauge whose connection is gone.
    pub(super) fn forget(&self, in_flight: i64, envoy: Network) {
        envoy.move_gauge(self.in_flight, in_flight.saturating_neg());
    }

    /// Counts a connection lost to a bug of ours.
    pub(super) fn panicked(&self, envoy: Network) {
        envoy.count(self.panics, 1);
    }
}
