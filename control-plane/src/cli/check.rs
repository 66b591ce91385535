use std::path::PathBuf;

use clap::Args;

use super::out;
use crate::{compile::Host, last_good::judge, problem::Severity, snapshot::TypeUrl, source::Folder};

/// Check a folder as `serve` would read it: exit code 0 if there is no error, 1 otherwise.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi check ./config
  meltemi check ./config --json")]
pub struct Check {
    /// The folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print the problems as JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn run(self) -> u8 {
        let loaded = Folder::new(&self.folder).load();
        let compiled = judge(&loaded.model, &Host::Module);
        let problems: Vec<_> = loaded.problems.into_iter().chain(compiled.problems).collect();
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        if self.json {
            out::line(serde_json::json!(problems));
        } else {
            for problem in &problems {
                out::line(problem);
            }
            let count = |kind| compiled.snapshot.count(kind);
            out::line(format_args!(
                "{} listener(s), {} cluster(s), {} route configuration(s); {errors} error(s), {} warning(s)",
                count(TypeUrl::Listener),
                count(TypeUrl::Cluster),
                count(TypeUrl::Route),
                problems.len().saturating_sub(errors),
            ));
        }
        u8::from(errors > 0)
    }
}
