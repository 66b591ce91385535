//! Where objects come from: a folder of YAML files.

mod parse;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use crate::{
    model::Model,
    problem::{Origin, Problem, Severity},
};

pub use parse::{Parsed, parse_file};
pub use watch::Watch;

/// A folder of YAML files. A file that cannot be read, or is half written, does not take away what it said before.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Last good content of each file, by object.
    good: BTreeMap<PathBuf, Vec<Parsed>>,
}

/// What a folder says.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// All good objects, also those that are only kept from before.
    pub model: Model,
    /// What is wrong with the files.
    pub problems: Vec<Problem>,
}

impl Folder {
    /// A folder, not yet read.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), good: BTreeMap::new() }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all files, in the order of their names.
    pub fn load(&mut self) -> Loaded {
        let mut problems = Vec::new();
        match files(&self.path) {
            Ok(files) => {
                let present: BTreeSet<&PathBuf> = files.iter().collect();
                self.good.retain(|file, _| present.contains(file));
                for file in &files {
                    self.load_file(file, &mut problems);
                }
            }
            Err(error) => problems.push(self.whole().error("", format!("cannot read the folder: {error}"))),
        }
        let model = self.model(&mut problems);
        Loaded { model, problems }
    }

    fn whole(&self) -> Origin {
        Origin { file: Some(self.path.clone()), ..Origin::default() }
    }

    fn load_file(&mut self, file: &Path, problems: &mut Vec<Problem>) {
        let (objects, mut found) = parse_file(file);
        let broken = found.iter().any(|problem| problem.severity == Severity::Error);
        let before = self.good.remove(file).unwrap_or_default();
        if broken {
            // Objects that are good now are taken; of the others the last good content stays.
            let now: BTreeSet<(String, String)> = objects.iter().map(Parsed::key).collect();
            let named: BTreeSet<(String, String)> =
                found.iter().map(|problem| (problem.origin.kind.clone(), problem.origin.name.clone())).collect();
            // A file that is cut off or no YAML does not tell what is missing from it.
            let unclear =
                found.iter().any(|problem| problem.origin.kind.is_empty() || problem.origin.name.ends_with('/'));
            let kept: Vec<Parsed> = before
                .into_iter()
                .filter(|object| !now.contains(&object.key()) && (unclear || named.contains(&object.key())))
                .collect();
            if !kept.is_empty() {
                let names: Vec<String> = kept.iter().map(|object| object.key().1).collect();
                let origin = Origin { file: Some(file.to_path_buf()), ..Origin::default() };
                found.push(origin.warning("", format!("still serving the last good {}", names.join(", "))));
            }
            self.good.insert(file.to_path_buf(), objects.into_iter().chain(kept).collect());
        } else {
            self.good.insert(file.to_path_buf(), objects);
        }
        problems.append(&mut found);
    }

    /// All good objects; of two with the same kind and name the first one is taken.
    fn model(&self, problems: &mut Vec<Problem>) -> Model {
        let mut model = Model::default();
        let mut seen: HashMap<(String, String), Origin> = HashMap::new();
        for object in self.good.values().flatten() {
            let key = object.key();
            if let Some(first) = seen.get(&key) {
                let place = first.file.as_deref().unwrap_or(Path::new("")).display().to_string();
                let line = first.line.unwrap_or_default();
                problems.push(
                    object.origin().error("metadata.name", format!("there is one of this name at {place}:{line}")),
                );
                continue;
            }
            seen.insert(key, object.origin().clone());
            object.clone().add_to(&mut model);
        }
        model
    }
}

/// YAML files of a folder and its subfolders, in order. Hidden ones (editors' swap files, `..data` of ConfigMaps) are left
/// out.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            all.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

#[cfg(test)]
mod tests;
