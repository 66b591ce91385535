//! `meltemi demo`: live routing between two versions of a real server.

mod configuration;
mod counts;
mod phases;
mod world;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use tokio::{signal::unix, time::sleep};

/// It takes less than a minute; on a machine that is busy with other things, a few.
const DEADLINE: Duration = Duration::from_secs(240);

/// Watch real calls being routed: two versions of a server, one stock Envoy, a client under steady load, and a folder of YAML
/// that changes under them. Ends by itself within a minute.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  make demo
  make demo PROTOCOL=dubbo
  meltemi demo thrift --envoy /usr/bin/envoy --module dist --peers integration-tests/peers --python python3")]
pub struct Demo {
    /// What the servers speak.
    #[arg(value_enum, default_value_t = Protocol::Thrift)]
    protocol: Protocol,
    /// The Envoy binary.
    #[arg(long, value_name = "FILE", env = "MELTEMI_ENVOY", default_value = "envoy")]
    envoy: PathBuf,
    /// Folder of libmeltemi.so.
    #[arg(long, value_name = "DIR", default_value = "dist")]
    module: PathBuf,
    /// Folder of the demo's servers and clients.
    #[arg(long, value_name = "DIR", default_value = "integration-tests/peers")]
    peers: PathBuf,
    /// Python with the package `thrift`.
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// File with the class path of the Java peers.
    #[arg(long, value_name = "FILE", default_value = ".cache/dubbo/classpath")]
    classpath: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// Apache Thrift in Python.
    Thrift,
    /// Java Dubbo.
    Dubbo,
}

impl Protocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Thrift => "thrift",
            Self::Dubbo => "dubbo",
        }
    }
}

impl Demo {
    pub fn run(self) -> anyhow::Result<u8> {
        if self.protocol == Protocol::Dubbo && !self.classpath.exists() {
            println!("demo: SKIPPED dubbo: its peers need java and mvn (then run `make setup`)");
            return Ok(0);
        }
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        runtime.block_on(async {
            let mut terminate = unix::signal(unix::SignalKind::terminate())?;
            let mut interrupt = unix::signal(unix::SignalKind::interrupt())?;
            // Whatever way this ends, what it started ends with it: see `World`.
            tokio::select! {
                result = phases::play(&self) => {
                    result?;
                    println!("demo: ok");
                    Ok(0)
                }
                () = sleep(DEADLINE) => bail!("not at its end after {} s; the machine may be too busy", DEADLINE.as_secs()),
                _ = terminate.recv() => Ok(143),
                _ = interrupt.recv() => Ok(130),
            }
        })
    }
}
