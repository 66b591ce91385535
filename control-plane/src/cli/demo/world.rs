//! Everything the demo starts. It ends with it: children are killed when they are dropped, and by the kernel if we are
//! killed ourselves.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::{sleep, timeout},
};

use super::{
    Demo, Protocol,
    configuration::{Places, service},
    counts::Counts,
};

/// Longest time for one thing to start; a JVM on a slow machine takes its time.
const PATIENCE: Duration = Duration::from_secs(40);

/// Servers, control plane, Envoy and load.
pub(super) struct World {
    folder: TempDir,
    v2: Child,
    load: Lines<BufReader<ChildStdout>>,
    others: Vec<Child>,
}

impl World {
    /// Starts all of it, with these routes.
    pub(super) async fn start(demo: &Demo, routes: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let config = folder.path().join("config");
        std::fs::create_dir(&config)?;
        let [service_port, v1, v2, xds, admin] = free_ports()?;
        let places = Places { protocol: demo.protocol.name(), service: service_port, v1, v2 };
        write(&config.join("service.yaml"), &service(&places))?;
        write(&config.join("routes.yaml"), routes)?;
        let starter = Starter { demo, folder: folder.path() };
        println!("  two servers, v1 and v2 ...");
        let (one, two) = (starter.server("v1", v1)?, starter.server("v2", v2)?);
        wait_for(v1, "server v1", folder.path()).await?;
        wait_for(v2, "server v2", folder.path()).await?;
        println!("  the control plane, on {} ...", config.display());
        let meltemi = std::env::current_exe()?;
        let xds_address = format!("127.0.0.1:{xds}");
        let mut serve = Command::new(&meltemi);
        serve.args(["serve", "--xds", &xds_address, "--admin", &format!("127.0.0.1:{admin}"), "--config"]).arg(&config);
        let serve = starter.spawn("serve", serve)?;
        wait_for(xds, "the control plane", folder.path()).await?;
        println!("  a stock Envoy ...");
        let bootstrap =
            Command::new(&meltemi).args(["bootstrap", "--node", "demo", "--xds", &xds_address]).output().await?;
        let bootstrap_path = folder.path().join("envoy.yaml");
        std::fs::write(&bootstrap_path, bootstrap.stdout)?;
        let module =
            demo.module.canonicalize().with_context(|| format!("there is no folder {}", demo.module.display()))?;
        let mut envoy = Command::new(&demo.envoy);
        envoy.arg("-c").arg(&bootstrap_path).args(["--use-dynamic-base-id", "--concurrency", "1", "-l", "warn"]);
        envoy.env("ENVOY_DYNAMIC_MODULES_SEARCH_PATH", module);
        let envoy = starter.spawn("envoy", envoy)?;
        wait_for(service_port, "Envoy", folder.path()).await?;
        println!("  a client under steady load ...");
        let mut load = starter.load(service_port)?;
        let output = load.stdout.take().context("the client has no output")?;
        Ok(Self { v2: two, load: BufReader::new(output).lines(), others: vec![one, serve, envoy, load], folder })
    }

    /// Puts other routes into the folder, as an editor would.
    pub(super) fn edit(&self, routes: &str) -> anyhow::Result<()> {
        write(&self.folder.path().join("config/routes.yaml"), routes)
    }

    /// Kills v2, hard.
    pub(super) async fn kill_v2(&mut self) -> anyhow::Result<()> {
        self.v2.kill().await.context("cannot kill v2")
    }

    /// What was counted in the next window.
    pub(super) async fn next_counts(&mut self) -> anyhow::Result<Counts> {
        let line = timeout(PATIENCE, self.load.next_line()).await.context("the client is silent")??;
        let line = line.with_context(|| format!("the client has ended:\n{}", log_of(self.folder.path(), "load")))?;
        serde_json::from_str(&line).with_context(|| format!("the client said {line}"))
    }

    /// Ends everything, and waits until it has.
    pub(super) async fn stop(mut self) {
        for child in self.others.iter_mut().chain([&mut self.v2]) {
            // It may have ended by itself.
            let _ = child.kill().await;
        }
    }
}

struct Starter<'a> {
    demo: &'a Demo,
    folder: &'a Path,
}

impl Starter<'_> {
    fn server(&self, version: &str, port: u16) -> anyhow::Result<Child> {
        let command = match self.demo.protocol {
            Protocol::Thrift => {
                let mut command = Command::new(&self.demo.python);
                command.arg(self.demo.peers.join("thrift/server.py")).arg(port.to_string());
                command.args(["--version", version, "--transport", "header"]);
                command
            }
            Protocol::Dubbo => {
                let mut command = self.java(&format!("-Dwho={version}"))?;
                command.arg("peer.Provider").arg(port.to_string());
                command
            }
        };
        self.spawn(version, command)
    }

    fn load(&self, port: u16) -> anyhow::Result<Child> {
        let command = match self.demo.protocol {
            Protocol::Thrift => {
                let mut command = Command::new(&self.demo.python);
                command.arg(self.demo.peers.join("thrift/load.py")).arg(port.to_string());
                command
            }
            Protocol::Dubbo => {
                let hosts = self.demo.peers.join("dubbo/hosts");
                let mut command = self.java(&format!("-Djdk.net.hosts.file={}", hosts.display()))?;
                command.arg("peer.Load").arg(format!("dubbo://peer1:{port}/peer.Demo"));
                command
            }
        };
        self.spawn_with_output("load", command, Stdio::piped())
    }

    fn java(&self, define: &str) -> anyhow::Result<Command> {
        let classpath = std::fs::read_to_string(&self.demo.classpath).context("cannot read the class path")?;
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-Xmx256m", "--add-opens", "java.base/java.lang=ALL-UNNAMED"]);
        command.args(["--add-opens", "java.base/java.math=ALL-UNNAMED", define, "-cp", classpath.trim()]);
        Ok(command)
    }

    fn spawn(&self, name: &str, command: Command) -> anyhow::Result<Child> {
        self.spawn_with_output(name, command, self.log(name)?.into())
    }

    fn spawn_with_output(&self, name: &str, command: Command, output: Stdio) -> anyhow::Result<Child> {
        let mut command = with_parent(command);
        command.stdin(Stdio::null()).stdout(output).stderr(self.log(name)?).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot start {name}: {:?}", command.as_std().get_program()))
    }

    fn log(&self, name: &str) -> anyhow::Result<std::fs::File> {
        let path = self.folder.join(format!("{name}.log"));
        Ok(std::fs::OpenOptions::new().create(true).append(true).open(path)?)
    }
}

/// The same command, run by `setpriv` where there is one: the kernel then kills it if we die without a word.
fn with_parent(command: Command) -> Command {
    let setpriv = PathBuf::from("/usr/bin/setpriv");
    if !setpriv.exists() {
        return command;
    }
    let inner = command.as_std();
    let mut outer = Command::new(setpriv);
    outer.args(["--pdeathsig", "KILL", "--"]).arg(inner.get_program()).args(inner.get_args());
    for (key, value) in inner.get_envs() {
        if let Some(value) = value {
            outer.env(key, value);
        }
    }
    outer
}

/// Writes a file and puts it in its place at once.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text)?;
    Ok(std::fs::rename(&partial, path)?)
}

/// Ports that nobody listens on now, all different.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

async fn wait_for(port: u16, what: &str, folder: &Path) -> anyhow::Result<()> {
    let listening = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    if timeout(PATIENCE, listening).await.is_err() {
        let names = ["v1", "v2", "serve", "envoy"];
        let logs: Vec<String> = names.iter().map(|name| format!("--- {name}\n{}", log_of(folder, name))).collect();
        bail!("{what} did not start:\n{}", logs.join("\n"));
    }
    Ok(())
}

fn log_of(folder: &Path, name: &str) -> String {
    let log = std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default();
    log.lines().rev().take(15).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}
