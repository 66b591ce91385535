use core::time::Duration;

/// Says what time it is. Hosts that have to go and ask do so only where somebody must know.
pub trait Clock {
    /// The time, from whenever the host counts: the same as long as one event is dealt with.
    fn now(&self) -> Duration;
}

impl Clock for Duration {
    fn now(&self) -> Duration {
        *self
    }
}
