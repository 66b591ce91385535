//! When a write that failed, or that somebody keeps undoing, is done again.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::super::live::Target;

/// First and longest pause after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// Repairs of one object that are done at once, in this time; more are a fight.
const FIGHT: (u32, Duration) = (5, Duration::from_secs(60));
/// Pause between repairs in a fight.
const TRUCE: Duration = Duration::from_secs(10);

/// By object.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    objects: BTreeMap<Target, Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    failures: u32,
    not_before: Option<Instant>,
    /// Repairs since the time.
    repairs: Option<(Instant, u32)>,
}

impl Pacing {
    /// Whether it may be written now.
    pub(super) fn is_due(&self, target: &Target, now: Instant) -> bool {
        self.objects.get(target).and_then(|pace| pace.not_before).is_none_or(|time| time <= now)
    }

    /// A write failed; whether it is the first in a row.
    pub(super) fn failed(&mut self, target: &Target, now: Instant) -> bool {
        let pace = self.objects.entry(target.clone()).or_default();
        let pause = RETRY.0.saturating_mul(1 << pace.failures.min(16)).min(RETRY.1);
        pace.failures = pace.failures.saturating_add(1);
        pace.not_before = Some(now + pause);
        pace.failures == 1
    }

    /// A write went well.
    pub(super) fn done(&mut self, target: &Target) {
        if let Some(pace) = self.objects.get_mut(target) {
            pace.failures = 0;
            pace.not_before = None;
        }
    }

    /// A drift was repaired; whether it is worth a word, which it is once in a while.
    pub(super) fn repaired(&mut self, target: &Target, now: Instant) -> bool {
        let pace = self.objects.entry(target.clone()).or_default();
        let (since, count) = match pace.repairs {
            Some((since, count)) if now.duration_since(since) < FIGHT.1 => (since, count.saturating_add(1)),
            _ => (now, 1),
        };
        pace.repairs = Some((since, count));
        if count >= FIGHT.0 {
            pace.not_before = Some(now + TRUCE);
        }
        count == 1
    }

    /// Forgets objects that nobody wants.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Target) -> bool) {
        self.objects.retain(|target, _| wanted(target));
    }

    /// When the next one is due.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.objects.values().filter_map(|pace| pace.not_before).filter(|time| *time > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::istio::DesiredKind;

    #[test]
    fn failures_wait_longer_and_fights_slow_down() {
        let target = Target { kind: DesiredKind::EnvoyFilter, namespace: "a".to_owned(), name: "x".to_owned() };
        let (mut pacing, now) = (Pacing::default(), Instant::now());
        assert!(pacing.is_due(&target, now) && pacing.next(now).is_none());
        assert!(pacing.failed(&target, now) && !pacing.failed(&target, now));
        assert!(!pacing.is_due(&target, now) && pacing.is_due(&target, now + RETRY.0 * 2));
        for _ in 0..100 {
            pacing.failed(&target, now);
        }
        assert!(pacing.is_due(&target, now + RETRY.1));
        pacing.done(&target);
        assert!(pacing.is_due(&target, now));

        assert!(pacing.repaired(&target, now), "the first repair is told");
        assert!(!pacing.repaired(&target, now) && pacing.is_due(&target, now));
        for _ in 0..FIGHT.0 {
            pacing.repaired(&target, now);
        }
        assert!(!pacing.is_due(&target, now) && pacing.is_due(&target, now + TRUCE));
        assert!(pacing.repaired(&target, now + FIGHT.1), "and the next after a while");
    }
}
