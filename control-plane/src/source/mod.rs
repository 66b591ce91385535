//! Where objects come from: a folder of YAML files.

mod ignored;
mod parse;
mod reading;
mod state;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    model::{AnyObject, Model, Object},
    problem::{Key, Origin, Problem},
};

use parse::File;
pub use reading::Reading;
pub use state::State;
pub use watch::Watch;

/// A file that had objects and is blank now is taken for one that is being written, for so long.
const SETTLES: Duration = Duration::from_secs(2);

/// A folder of YAML files. A file that cannot be read, or is half written, does not take away what it said before.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Last content of each file that could be read.
    files: BTreeMap<PathBuf, Vec<AnyObject>>,
    /// Objects of kinds that are not read here and do not stand where one of ours stood.
    foreign: BTreeMap<PathBuf, BTreeSet<Key>>,
    /// The object that has each name.
    holders: HashMap<Key, AnyObject>,
}

/// What a folder says.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// All objects that could be read, also those that are only kept from before.
    pub model: Model,
    /// Objects of Istio that are looked at for a mesh, and mean nothing to a standalone proxy.
    pub others: Vec<Arc<Object<serde_json::Value>>>,
    /// What is wrong with the files.
    pub problems: Vec<Problem>,
    /// The folder itself could be read.
    pub is_readable: bool,
    /// When to read again, even if nothing changes.
    pub again: Option<Duration>,
}

impl Folder {
    /// A folder, not yet read.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self::from_objects(path, Vec::new())
    }

    /// A folder that is known to have said this.
    pub fn from_objects(path: impl Into<PathBuf>, objects: Vec<AnyObject>) -> Self {
        let mut files: BTreeMap<PathBuf, Vec<AnyObject>> = BTreeMap::new();
        let mut holders = HashMap::new();
        for object in objects {
            holders.insert(object.key(), object.clone());
            files.entry(object.origin().file.clone().unwrap_or_default()).or_default().push(object);
        }
        Self { path: path.into(), files, foreign: BTreeMap::new(), holders }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the files and takes what they say.
    pub fn load(&mut self) -> Loaded {
        let reading = self.read();
        self.take(&reading)
    }

    /// Reads the files.
    pub fn read(&self) -> Reading {
        Reading::of(&self.path)
    }

    /// Takes what the files say, in the order of their names.
    pub fn take(&mut self, reading: &Reading) -> Loaded {
        let unreadable = reading.unreadable.iter();
        let mut loaded = Loaded {
            problems: unreadable
                .map(|(folder, reason)| of_file(folder).error("", format!("cannot read the folder: {reason}")))
                .collect(),
            is_readable: !reading.unreadable.contains_key(&self.path),
            ..Loaded::default()
        };
        let is_there = |file: &Path| {
            reading.files.contains_key(file) || reading.unreadable.keys().any(|folder| file.starts_with(folder))
        };
        self.files.retain(|file, _| is_there(file));
        self.foreign.retain(|file, _| is_there(file));
        let parsed: Vec<(&PathBuf, File)> =
            reading.files.iter().map(|(path, text)| (path, parse_file(path, text))).collect();
        let defined: BTreeSet<Key> = parsed.iter().flat_map(|(_, file)| &file.objects).map(AnyObject::key).collect();
        for (path, file) in parsed {
            let age = reading.ages.get(path).copied();
            self.take_file(path, file, age, &defined, &mut loaded);
        }
        loaded.model = self.model(&mut loaded.problems);
        loaded
    }

    fn take_file(
        &mut self,
        path: &Path,
        mut file: File,
        age: Option<Duration>,
        defined: &BTreeSet<Key>,
        loaded: &mut Loaded,
    ) {
        let before = self.files.remove(path).unwrap_or_default();
        let mut lost: Vec<AnyObject> = before.into_iter().filter(|object| !defined.contains(&object.key())).collect();
        let foreign = self.foreign.remove(path).unwrap_or_default();
        let mut told = "";
        if let Some(age) = age.filter(|age| file.is_blank && *age < SETTLES) {
            if !lost.is_empty() {
                loaded.again = Some(loaded.again.unwrap_or(SETTLES).min(SETTLES.saturating_sub(age)));
                told = "nothing is in it, as if it were being written; ";
            }
        } else if !file.is_broken() {
            // Of an object whose kind or group is misspelt nothing is left but its name.
            let instead: Vec<&Key> = file.passed_over.iter().filter(|key| !foreign.contains(*key)).collect();
            lost.retain(|object| {
                let name = object.key().name;
                instead.iter().any(|key| key.name == name || key.name.ends_with('/'))
            });
        }
        let kept: BTreeSet<String> = lost.iter().map(|object| object.key().name).collect();
        let foreign = file.passed_over.iter().filter(|key| {
            foreign.contains(*key) || !(kept.contains(&key.name) || key.name.ends_with('/') && !kept.is_empty())
        });
        self.foreign.insert(path.to_path_buf(), foreign.cloned().collect());
        loaded.problems.append(&mut file.problems);
        loaded.others.append(&mut file.others);
        if !lost.is_empty() {
            let names: Vec<String> =
                lost.iter().map(|object| format!("{} {}", object.origin().kind, object.origin().name)).collect();
            let reason = format!("{told}still serving the last good {}", names.join(", "));
            loaded.problems.push(of_file(path).warning("", reason));
        }
        self.files.insert(path.to_path_buf(), file.objects.into_iter().chain(lost).collect());
    }

    /// All objects. Of two with the same name the one that has been there stays, at first the first one.
    fn model(&mut self, problems: &mut Vec<Problem>) -> Model {
        let mut chosen: HashMap<Key, &AnyObject> = HashMap::new();
        let claim = |object: &AnyObject, holder: &AnyObject| {
            (object.says_the_same(holder), object.origin().file == holder.origin().file)
        };
        for object in self.files.values().flatten() {
            let holder = self.holders.get(&object.key());
            let first = chosen.entry(object.key()).or_insert(object);
            if holder.is_some_and(|holder| claim(object, holder) > claim(first, holder)) {
                *first = object;
            }
        }
        let mut model = Model::default();
        for object in self.files.values().flatten() {
            let Some(first) = chosen.get(&object.key()) else { continue };
            if std::ptr::eq(*first, object) {
                model.extend([object.clone()]);
            } else {
                let origin = first.origin();
                let place = origin.file.as_deref().unwrap_or(Path::new("")).display().to_string();
                let line = origin.line.unwrap_or_default();
                problems.push(
                    object.origin().error("metadata.name", format!("there is one of this name at {place}:{line}")),
                );
            }
        }
        self.holders = chosen.into_iter().map(|(key, object)| (key, object.clone())).collect();
        model
    }
}

fn of_file(path: &Path) -> Origin {
    Origin { file: Some(path.to_path_buf()), ..Origin::default() }
}

fn parse_file(path: &Path, text: &Result<String, String>) -> File {
    let origin = of_file(path);
    match text {
        Ok(text) => parse::parse(text, &origin),
        Err(reason) => {
            File { problems: vec![origin.error("", format!("cannot read the file: {reason}"))], ..File::default() }
        }
    }
}

#[cfg(test)]
mod tests;
