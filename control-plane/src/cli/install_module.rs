//! `meltemi install-module`: our image has neither a shell nor `cp`.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use tempfile::NamedTempFile;

use super::out;

/// The module's name for Envoy, which looks for `lib<name>.so`.
const FILE: &str = "libmeltemi.so";
/// Envoy runs as another user, and dies of a folder that it may not read.
const FOLDER_MODE: u32 = 0o755;
const FILE_MODE: u32 = 0o644;

/// Put Envoy's module into a folder from which a sidecar loads it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi install-module /opt/meltemi/module
  meltemi install-module --from dist/libmeltemi.so /srv/envoy/modules")]
pub struct InstallModule {
    /// The folder; it is made if it is not there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The module; without it, where our image has it.
    #[arg(long, value_name = "FILE", default_value = "/module/libmeltemi.so")]
    from: PathBuf,
}

impl InstallModule {
    pub fn run(self) -> anyhow::Result<u8> {
        let size = install(&self.from, &self.folder)?;
        out::aside(format_args!("{}: {size} bytes from {}", self.folder.join(FILE).display(), self.from.display()));
        Ok(0)
    }
}

/// A reader sees the old file or the new one, never half of one: an Envoy that has the old one open keeps it.
fn install(from: &Path, folder: &Path) -> anyhow::Result<u64> {
    let mut module = fs::File::open(from).with_context(|| format!("cannot read the module {}", from.display()))?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    open_to_all(folder).with_context(|| format!("{} must be readable for everybody", folder.display()))?;
    let mut write = || -> io::Result<u64> {
        let mut partial = NamedTempFile::with_prefix_in(FILE, folder)?;
        let size = io::copy(&mut module, &mut partial)?;
        partial.flush()?;
        partial.as_file().set_permissions(Permissions::from_mode(FILE_MODE))?;
        partial.as_file().sync_all()?;
        partial.persist(folder.join(FILE))?;
        Ok(size)
    };
    write().with_context(|| format!("cannot write {}", folder.join(FILE).display()))
}

fn open_to_all(folder: &Path) -> io::Result<()> {
    let mode = fs::metadata(folder)?.permissions().mode();
    // Somebody else's folder is good as it is if all may read it.
    if mode & 0o005 == 0o005 { Ok(()) } else { fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn source(place: &Path, text: &str) -> PathBuf {
        let from = place.join("built.so");
        fs::write(&from, text).unwrap();
        fs::set_permissions(&from, Permissions::from_mode(0o600)).unwrap();
        from
    }

    #[test]
    fn everybody_may_read_what_is_installed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        assert_eq!(install(&source(place.path(), "module"), &folder).unwrap(), 6);
        assert_eq!(fs::read(folder.join(FILE)).unwrap(), b"module");
        assert_eq!((mode(&folder.join(FILE)), mode(&folder)), (0o644, 0o755));
    }

    #[test]
    fn a_new_one_takes_the_place_of_an_old_one_and_nothing_else_is_left() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("module");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        install(&source(place.path(), "old"), &folder).unwrap();
        assert_eq!(mode(&folder), 0o755, "a closed folder is opened");
        let open = fs::File::open(folder.join(FILE)).unwrap();
        install(&source(place.path(), "newer"), &folder).unwrap();
        assert_eq!(io::read_to_string(open).unwrap(), "old", "who has it open keeps it");
        assert_eq!(fs::read(folder.join(FILE)).unwrap(), b"newer");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_place() {
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("none.so");
        let error = install(&missing, place.path()).unwrap_err();
        assert!(error.to_string().contains("none.so"), "{error:#}");
        let from = source(place.path(), "module");
        let error = install(&from, &from.join("below-a-file")).unwrap_err();
        assert!(error.to_string().contains("below-a-file"), "{error:#}");
        fs::create_dir_all(place.path().join("taken").join(FILE).join("full")).unwrap();
        let error = install(&from, &place.path().join("taken")).unwrap_err();
        assert!(error.to_string().contains("taken/libmeltemi.so"), "{error:#}");
    }
}
