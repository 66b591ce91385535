use core::time::Duration;

use meltemi_core::FailureKind;
use meltemi_engine::inlet::InletStats;

use crate::abi::{ConfigScope, Metric, Network};

/// The statistics of inlet and relay in Envoy, by protocol: `meltemi.<protocol>.<name>`.
pub(super) struct InletMetrics {
    requests: Metric,
    one_way: Metric,
    replies: Metric,
    exceptions: Metric,
    failures: Metric,
    heartbeats: Metric,
    decode_errors: Metric,
    over_limit: Metric,
    unsupported: Metric,
    panics: Metric,
    bytes_in: Metric,
    bytes_out: Metric,
    in_flight: Metric,
    duration: Metric,
    errors: [Metric; FailureKind::ALL.len()],
}

impl InletMetrics {
    pub(super) fn new(scope: ConfigScope, protocol: &str) -> Self {
        let counter = |name: &str| scope.counter(&format!("meltemi.{protocol}.{name}"));
        Self {
            requests: counter("requests"),
            one_way: counter("one_way"),
            replies: counter("replies"),
            exceptions: counter("exceptions"),
            failures: counter("failures"),
            heartbeats: counter("heartbeats"),
            decode_errors: counter("decode_errors"),
            over_limit: counter("decode_errors.limit"),
            unsupported: counter("decode_errors.unsupported"),
            panics: counter("panics"),
            bytes_in: counter("bytes_in"),
            bytes_out: counter("bytes_out"),
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
        let counts = [
            (self.requests, stats.requests),
            (self.one_way, stats.one_way),
            (self.replies, stats.replies),
            (self.exceptions, stats.exceptions),
            (self.failures, stats.failures),
            (self.heartbeats, stats.heartbeats),
            (self.decode_errors, stats.decode_errors),
            (self.over_limit, stats.over_limit),
            (self.unsupported, stats.unsupported),
            (self.bytes_in, stats.bytes_in),
            (self.bytes_out, stats.bytes_out),
        ];
        for (metric, count) in counts {
            envoy.count(metric, count);
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
