use core::time::Duration;
use std::{sync::LazyLock, time::Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since the module was first used.
pub(super) fn now() -> Duration {
    START.elapsed()
}
