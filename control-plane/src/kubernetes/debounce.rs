use std::time::Duration;

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Quiet time after a change before it is acted on.
const QUIET: Duration = Duration::from_millis(100);
/// The longest that changes that never stop are collected.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a change, and for the quiet after it.
pub(super) async fn settled(changed: &Notify) {
    changed.notified().await;
    let latest = Instant::now() + PATIENCE;
    loop {
        let quiet = (Instant::now() + QUIET).min(latest);
        tokio::select! {
            () = sleep_until(quiet) => return,
            () = changed.notified() => if Instant::now() >= latest { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_quiet_but_not_forever() {
        let changed = Arc::new(Notify::new());
        let start = Instant::now();
        changed.notify_one();
        settled(&changed).await;
        assert_eq!(start.elapsed(), QUIET);

        let (start, busy) = (Instant::now(), changed.clone());
        let noise = tokio::spawn(async move {
            loop {
                busy.notify_one();
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        settled(&changed).await;
        noise.abort();
        assert!(start.elapsed() >= PATIENCE && start.elapsed() < PATIENCE + QUIET, "{:?}", start.elapsed());
    }
}
