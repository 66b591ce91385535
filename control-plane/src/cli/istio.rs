//! `meltemi istio`: what would be written into a mesh, and what would not work there.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::kubernetes::host_and_port;
use crate::{
    istio::{self, Compiled, Desired, Facts, Options, Planned},
    problem::Severity,
    source::Folder,
};

/// Look into what is written beside Istio's objects, before it is.
#[derive(Debug, Args)]
pub struct Istio {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(Plan),
}

impl Istio {
    pub fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Plan(plan) => plan.run(),
        }
    }
}

/// Print the objects that would be written, port by port: on which workloads, and why a port is left alone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  meltemi istio plan --config ./config
  meltemi istio plan --config ./config --output yaml | kubectl diff -f -")]
struct Plan {
    /// Folder with the mesh's objects.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    #[command(flatten)]
    mesh: Mesh,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How objects for a mesh are made.
#[derive(Debug, Args)]
struct Mesh {
    /// Leave out what only Istio's own Envoy knows.
    #[arg(long)]
    stock_envoy: bool,
    /// Where sidecars reach our xDS server.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port,
        default_value = "meltemi.meltemi-system.svc.cluster.local:18000")]
    xds_service: (String, u16),
}

impl Mesh {
    fn options(self) -> Options {
        Options { stock_envoy: self.stock_envoy, xds: Some(self.xds_service) }
    }
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
    fn run(self) -> anyhow::Result<u8> {
        let loaded = Folder::new(&self.config).load();
        let mut compiled = istio::compile(&loaded.model, &Facts::default(), &self.mesh.options());
        compiled.problems.splice(0..0, loaded.problems);
        print(&compiled, self.output)?;
        Ok(u8::from(compiled.problems.iter().any(|problem| problem.severity == Severity::Error)))
    }
}

fn print(compiled: &Compiled, output: Output) -> anyhow::Result<()> {
    let objects: Vec<Value> = compiled.desired.iter().map(object).collect();
    match output {
        Output::Yaml => {
            for object in &objects {
                print!("---\n{}", serde_yaml_ng::to_string(object)?);
            }
            for problem in &compiled.problems {
                eprintln!("{problem}");
            }
        }
        Output::Json => {
            let all = json!({"ports": compiled.plan, "objects": objects, "problems": compiled.problems});
            println!("{}", serde_json::to_string_pretty(&all)?);
        }
        Output::Text => {
            for planned in &compiled.plan {
                println!("{}", text(planned));
            }
            for problem in &compiled.problems {
                println!("{problem}");
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
