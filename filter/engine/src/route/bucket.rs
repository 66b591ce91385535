use std::sync::{Mutex, PoisonError};

use core::time::Duration;

use super::config::BucketConfig;

/// A token bucket that is filled as time is told.
#[derive(Debug)]
pub(super) struct Bucket {
    config: BucketConfig,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: u32,
    /// When it was filled last; `None` until it is first asked.
    filled: Option<Duration>,
}

impl Bucket {
    pub(super) const fn new(config: BucketConfig) -> Self {
        Self { config, state: Mutex::new(State { tokens: config.max_tokens, filled: None }) }
    }

    /// Takes a token; `false` if there is none.
    pub(super) fn take(&self, now: Duration) -> bool {
        // Nothing panics while it is held.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let interval = Duration::from_millis(self.config.fill_interval_ms.max(1));
        let filled = *state.filled.get_or_insert(now);
        // Whole milliseconds are enough, as those of the interval are: of nanoseconds there are too many for 64 bits.
        let passed = u64::try_from(now.saturating_sub(filled).as_millis()).unwrap_or(u64::MAX);
        let fills = passed / self.config.fill_interval_ms.max(1);
        if fills > 0 {
            // After ages the bucket is full, however many fills they were.
            let fills = u32::try_from(fills).ok();
            let fresh = fills.unwrap_or(u32::MAX).saturating_mul(self.config.tokens_per_fill);
            state.tokens = state.tokens.saturating_add(fresh).min(self.config.max_tokens);
            state.filled = Some(fills.map_or(now, |fills| filled.saturating_add(interval.saturating_mul(fills))));
        }
        match state.tokens.checked_sub(1) {
            Some(left) => {
                state.tokens = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_with_time() {
        let bucket = Bucket::new(BucketConfig { max_tokens: 2, tokens_per_fill: 1, fill_interval_ms: 100 });
        let at = |millis| bucket.take(Duration::from_millis(millis));
        assert_eq!([at(1000), at(1001), at(1002)], [true, true, false]);
        assert_eq!([at(1099), at(1100), at(1150), at(1200)], [false, true, false, true]);
        assert_eq!([at(99_000), at(99_000), at(99_000)], [true, true, false], "never more than fit in");
        let ages = 1 << 50;
        assert_eq!([at(ages), at(ages), at(ages)], [true, true, false]);
        let fast = Bucket::new(BucketConfig { max_tokens: 1, tokens_per_fill: 1, fill_interval_ms: 1 });
        let at = |millis| fast.take(Duration::from_millis(millis));
        assert_eq!(
            [at(0), at(0), at(1 << 40), at(1 << 40)],
            [true, false, true, false],
            "more fills than a u32 counts"
        );
    }
}
