//! What stands in a folder, before anybody asks what it means.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The texts of a folder's files.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// By path: the text, or why there is none.
    pub(super) files: BTreeMap<PathBuf, Result<String, String>>,
    /// How long ago each was changed.
    pub(super) ages: BTreeMap<PathBuf, Duration>,
    /// Folders that cannot be read, and why.
    pub(super) unreadable: BTreeMap<PathBuf, String>,
}

impl PartialEq for Reading {
    /// Whether they say the same.
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files && self.unreadable == other.unreadable
    }
}

impl Reading {
    /// Reads all YAML files of a folder and its subfolders. Hidden ones (editors' swap files, `..data` of ConfigMaps) are
    /// left out, and what links lead to is read once.
    pub(super) fn of(folder: &Path) -> Self {
        let mut reading = Self::default();
        let (mut visited, mut found) = (BTreeSet::new(), BTreeSet::new());
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let entries = match visit(&folder, &mut visited) {
                Ok(entries) => entries,
                Err(error) => {
                    reading.unreadable.insert(folder, error.to_string());
                    continue;
                }
            };
            for path in entries {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
                    found.insert(path);
                }
            }
        }
        for path in found {
            // A file that cannot be found by its true name cannot be read either, which is told.
            if fs::canonicalize(&path).is_ok_and(|real| !visited.insert(real)) {
                continue;
            }
            if let Some(age) = age(&path) {
                reading.ages.insert(path.clone(), age);
            }
            let text = fs::read_to_string(&path).map_err(|error| error.to_string());
            reading.files.insert(path, text);
        }
        reading
    }
}

/// What is in a folder, in order; nothing if it was visited before.
fn visit(folder: &Path, visited: &mut BTreeSet<PathBuf>) -> io::Result<Vec<PathBuf>> {
    if !visited.insert(fs::canonicalize(folder)?) {
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.')) {
            all.push(path);
        }
    }
    Ok(all)
}

/// A time to come is no age.
fn age(path: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(fs::metadata(path).ok()?.modified().ok()?).ok()
}
