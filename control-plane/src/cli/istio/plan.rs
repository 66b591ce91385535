use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{super::out, mesh::Mesh};
use crate::{
    istio::{self, Compiled, Desired, Planned},
    problem::Severity,
};

/// Print the objects that would be written, port by port: on which workloads, and why a port is left alone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi istio plan --config ./manifests
  meltemi istio plan --kubernetes
  meltemi istio plan --kubernetes --output yaml | kubectl diff -f -")]
pub struct Plan {
    #[command(flatten)]
    mesh: Mesh,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// The objects, to be applied.
    Yaml,
    /// The plan with its objects and problems.
    Json,
}

impl Plan {
    #[tokio::main(flavor = "current_thread")]
    pub async fn run(self) -> anyhow::Result<u8> {
        let (compiled, _) = self.mesh.compile().await?;
        print(&compiled, self.output)?;
        Ok(u8::from(compiled.problems.iter().any(|problem| problem.severity == Severity::Error)))
    }
}

fn print(compiled: &Compiled, output: Output) -> anyhow::Result<()> {
    let objects: Vec<Value> = compiled.desired.iter().map(object).collect();
    match output {
        Output::Yaml => {
            for object in &objects {
                out::text(format_args!("---\n{}", serde_yaml_ng::to_string(object)?));
            }
            for problem in &compiled.problems {
                eprintln!("{problem}");
            }
        }
        Output::Json => {
            let all = json!({"ports": compiled.plan, "objects": objects, "problems": compiled.problems});
            out::line(serde_json::to_string_pretty(&all)?);
        }
        Output::Text => {
            for planned in &compiled.plan {
                out::line(text(planned));
            }
            for problem in &compiled.problems {
                out::line(problem);
            }
        }
    }
    Ok(())
}

fn text(planned: &Planned) -> String {
    let mut text = format!("{}:{}", planned.host, planned.port);
    if let (Some(shape), Some(codec)) = (planned.shape, &planned.codec) {
        let shape = json!(shape);
        text += &format!("  {codec}, shape {}", shape.as_str().unwrap_or_default());
    }
    let lists = [
        ("note", &planned.notes),
        ("writes", &planned.objects),
        ("workload", &planned.workloads),
        ("without the module, stays plain TCP", &planned.without_module),
    ];
    for (what, list) in lists {
        for item in list {
            text += &format!("\n  {what}: {item}");
        }
    }
    text
}

/// An object as it is applied.
fn object(desired: &Desired) -> Value {
    json!({
        "apiVersion": desired.kind.api_version(),
        "kind": desired.kind,
        "metadata": {"name": desired.name, "namespace": desired.namespace, "labels": {istio::MANAGED_BY.0: istio::MANAGED_BY.1}},
        "spec": desired.spec,
    })
}
