//! What was good last, over restarts: a file with the documents of all objects as they were last served.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{of_file, parse};
use crate::model::AnyObject;

const FILE: &str = "last-good.json";
/// Of the file's form. Another one is passed over.
const VERSION: u32 = 1;

/// A folder for what was good last.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    /// Files are named from here.
    config: PathBuf,
    saved: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    /// Oldest first.
    objects: Vec<SavedObject>,
}

#[derive(Serialize, Deserialize)]
struct SavedObject {
    file: PathBuf,
    line: usize,
    document: String,
}

impl State {
    /// The state of a folder of YAML files.
    pub fn new(folder: impl Into<PathBuf>, config: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), config: config.into(), saved: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// What was good last. Nothing, if there is nothing or it cannot be read.
    pub fn load(&mut self) -> Vec<AnyObject> {
        let path = self.folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("{}: cannot read what was good last: {error}", path.display());
                }
                return Vec::new();
            }
        };
        match serde_json::from_str::<Saved>(&text) {
            Ok(saved) if saved.version == VERSION => {
                self.saved = Some(text);
                saved.objects.into_iter().filter_map(|object| self.object(&object)).collect()
            }
            Ok(saved) => {
                tracing::warn!("{}: passed over, its version is {}", path.display(), saved.version);
                Vec::new()
            }
            Err(error) => {
                tracing::warn!("{}: passed over, it is no state: {error}", path.display());
                Vec::new()
            }
        }
    }

    fn object(&self, saved: &SavedObject) -> Option<AnyObject> {
        parse::parse_at(&saved.document, saved.line, &of_file(&self.config.join(&saved.file)))
    }

    /// Writes down what is good now, if that is new.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self, objects: &[&AnyObject]) -> io::Result<()> {
        let objects = objects.iter().filter_map(|object| {
            let origin = object.origin();
            let file = origin.file.as_ref()?;
            Some(SavedObject {
                file: file.strip_prefix(&self.config).unwrap_or(file).to_path_buf(),
                line: origin.line?,
                document: origin.document.as_deref()?.to_owned(),
            })
        });
        let text = serde_json::to_string_pretty(&Saved { version: VERSION, objects: objects.collect() })?;
        if self.saved.as_ref() == Some(&text) {
            return Ok(());
        }
        if !self.folder.is_dir() {
            fs::create_dir_all(&self.folder)?;
            // It stands beside what people keep in a repository.
            fs::write(self.folder.join(".gitignore"), "*\n")?;
        }
        // Whole or not at all.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.folder.join(FILE))?;
        self.saved = Some(text);
        Ok(())
    }
}
