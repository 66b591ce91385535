//! When to look at the folder again.

use std::{
    collections::HashSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, ModifyKind},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

/// Quiet time after a change before it is acted on.
const QUIET: Duration = Duration::from_millis(100);
/// The longest that changes that never stop are collected.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the system tells when a file that was written is closed.
const TELLS_CLOSING: bool = cfg!(target_os = "linux");

/// Tells when a folder has changed, also if another one takes its place.
#[derive(Debug)]
pub struct Watch {
    /// Dropping it ends the watch.
    watcher: RecommendedWatcher,
    folder: PathBuf,
    /// Device and number of the folder that is watched.
    watched: Option<(u64, u64)>,
    events: mpsc::Receiver<()>,
    /// Files that somebody writes and has not closed.
    open: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Watch {
    /// Watches a folder and what is in it, except what is below `not`. The folder need not be there yet.
    ///
    /// # Errors
    /// If the system cannot watch anything.
    pub fn new(folder: &Path, not: &Path) -> notify::Result<Self> {
        let (folder, not) = (std::path::absolute(folder)?, std::path::absolute(not)?);
        let (sender, events) = mpsc::channel(1);
        let open = Arc::new(Mutex::new(HashSet::new()));
        let (within, writing) = (folder.clone(), open.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let concerns_us = event.as_ref().map_or(true, |event| {
                event.paths.is_empty()
                    || event.paths.iter().any(|path| path.starts_with(&within) && !path.starts_with(&not))
            });
            let noticed = match &event {
                Ok(event) => note(event, &mut writing.lock().unwrap_or_else(PoisonError::into_inner)),
                Err(_) => true,
            };
            if concerns_us && noticed {
                // One waiting notice says it all.
                let _ = sender.try_send(());
            }
        })?;
        let mut watch = Self { watcher, folder, watched: None, events, open };
        if let Some(parent) = watch.folder.parent()
            && let Err(error) = watch.watcher.watch(parent, RecursiveMode::NonRecursive)
        {
            tracing::debug!("{}: not watched: {error}", parent.display());
        }
        watch.follow();
        Ok(watch)
    }

    /// Watches the folder that is there now.
    fn follow(&mut self) {
        let there = std::fs::metadata(&self.folder).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if there == self.watched {
            return;
        }
        // The one before may be gone, and with it its watch.
        let _ = self.watcher.unwatch(&self.folder);
        self.watched = None;
        if there.is_some() {
            match self.watcher.watch(&self.folder, RecursiveMode::Recursive) {
                Ok(()) => self.watched = there,
                Err(error) => tracing::warn!("{}: cannot watch it: {error}", self.folder.display()),
            }
        }
    }

    /// Waits for a change and for the quiet after it, but not longer than this; whether there was one.
    pub async fn changed(&mut self, at_most: Duration) -> bool {
        let noticed = tokio::select! {
            notice = self.events.recv() => notice.is_some(),
            () = sleep(at_most) => false,
        };
        if noticed {
            self.quiet().await;
        }
        self.follow();
        noticed
    }

    /// Somebody writes a file of ours.
    pub fn is_written(&self) -> bool {
        !self.open.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Waits until nothing changes for a while and all files are closed.
    pub async fn quiet(&mut self) {
        let latest = Instant::now() + PATIENCE;
        loop {
            let until = if self.is_written() { latest } else { (Instant::now() + QUIET).min(latest) };
            tokio::select! {
                () = sleep_until(until) => break,
                notice = self.events.recv() => if notice.is_none() || Instant::now() >= latest { break },
            }
        }
        // Who holds a file open for so long has no claim any more.
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Keeps the list of files that are being written; whether something has happened.
fn note(event: &Event, open: &mut HashSet<PathBuf>) -> bool {
    match event.kind {
        EventKind::Modify(ModifyKind::Data(_)) if TELLS_CLOSING => {
            open.extend(event.paths.iter().filter(|path| is_read(path)).cloned());
            true
        }
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => {
            for path in &event.paths {
                open.remove(path);
            }
            true
        }
        kind => !kind.is_access(),
    }
}

fn is_read(path: &Path) -> bool {
    let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
    !hidden && path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_file_is_not_read_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, "a: 1\n").unwrap();
        let mut watch = Watch::new(dir.path(), Path::new("/nonexistent")).unwrap();
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        let waited = tokio::time::timeout(QUIET * 5, watch.changed(LONG)).await;
        if TELLS_CLOSING {
            assert!(waited.is_err(), "it is not closed");
            assert!(watch.is_written());
        }
        file.write_all(b"whole").unwrap();
        drop(file);
        assert!(watch.changed(LONG).await);
        assert!(!watch.is_written());
    }

    #[tokio::test]
    async fn another_folder_in_its_place_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let (config, new) = (dir.path().join("config"), dir.path().join("new"));
        fs::create_dir(&new).unwrap();
        // It comes later than the watch.
        let mut watch = Watch::new(&config, &config.join(".meltemi")).unwrap();
        fs::create_dir(&config).unwrap();
        assert!(watch.changed(LONG).await);
        fs::rename(&config, dir.path().join("old")).unwrap();
        fs::rename(&new, &config).unwrap();
        assert!(watch.changed(LONG).await);
        fs::write(config.join("a.yaml"), "a: 1\n").unwrap();
        assert!(watch.changed(LONG).await);
    }

    #[tokio::test]
    async fn the_state_and_the_neighbours_are_no_news() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        let state = config.join(".meltemi");
        fs::create_dir_all(&state).unwrap();
        let mut watch = Watch::new(&config, &state).unwrap();
        fs::write(state.join("a"), "").unwrap();
        fs::write(dir.path().join("b"), "").unwrap();
        assert!(!watch.changed(QUIET * 3).await);
    }
}
