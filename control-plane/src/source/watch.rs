use std::{path::Path, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Quiet time after a change before it is acted on.
const QUIET: Duration = Duration::from_millis(100);
/// The longest that changes that never stop are collected.
const PATIENCE: Duration = Duration::from_secs(10);

/// Tells when a folder has changed.
#[derive(Debug)]
pub struct Watch {
    /// Dropping it ends the watch.
    _watcher: RecommendedWatcher,
    events: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches a folder and what is in it.
    ///
    /// # Errors
    /// If the system cannot watch it.
    pub fn new(folder: &Path) -> notify::Result<Self> {
        let (sender, events) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let reads_only = event.as_ref().is_ok_and(|event| event.kind.is_access());
            if !reads_only {
                // One waiting notice says it all.
                let _ = sender.try_send(());
            }
        })?;
        watcher.watch(folder, RecursiveMode::Recursive)?;
        Ok(Self { _watcher: watcher, events })
    }

    /// Waits for a change, and for the quiet after it.
    pub async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            // The watcher lives as long as we do.
            return std::future::pending().await;
        }
        let latest = Instant::now() + PATIENCE;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            tokio::select! {
                () = sleep_until(quiet) => return,
                _ = self.events.recv() => if Instant::now() >= latest { return },
            }
        }
    }
}
