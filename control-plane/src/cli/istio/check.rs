use clap::Args;
use serde_json::json;

use super::{super::out, mesh::Mesh};
use crate::{
    kubernetes::{self, Finding, Level},
    problem::{Problem, Severity},
};

/// Find what would not work, before it hurts: exit code 0 if there is no error, 1 otherwise.
///
/// A folder's objects are checked by themselves; of a cluster also that Istio is new enough, that pods which say so carry
/// the module, and that a control plane is at work.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi istio check --kubernetes
  meltemi istio check --config ./manifests
  meltemi istio check --kubernetes --json")]
pub struct Check {
    #[command(flatten)]
    mesh: Mesh,
    /// Namespace of our control plane.
    #[arg(long, value_name = "NS", default_value = "meltemi-system")]
    namespace: String,
    /// Print what was found as JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    #[tokio::main(flavor = "current_thread")]
    pub async fn run(self) -> anyhow::Result<u8> {
        let (compiled, client) = self.mesh.compile().await?;
        let findings = match &client {
            Some(client) => {
                let plugins = self.mesh.has_plugins();
                kubernetes::preflight(client, &self.namespace, &self.mesh.root_namespace, &compiled, plugins).await?
            }
            None => Vec::new(),
        };
        let of_findings = |level| findings.iter().filter(|finding| finding.level == level).count();
        let of_problems = |severity| compiled.problems.iter().filter(|problem| problem.severity == severity).count();
        let errors = of_findings(Level::Error).saturating_add(of_problems(Severity::Error));
        let warnings = of_findings(Level::Warning).saturating_add(of_problems(Severity::Warning));
        if self.json {
            let all = json!({"cluster": findings, "problems": compiled.problems});
            out::line(serde_json::to_string_pretty(&all)?);
        } else {
            print(&findings, &compiled.problems);
            let taken = compiled.plan.iter().filter(|planned| planned.shape.is_some()).count();
            out::line(format_args!("{taken} port(s) of ours: {errors} error(s), {warnings} warning(s)"));
        }
        Ok(u8::from(errors > 0))
    }
}

fn print(findings: &[Finding], problems: &[Problem]) {
    for finding in findings {
        out::line(finding);
    }
    for problem in problems {
        out::line(problem);
    }
}
