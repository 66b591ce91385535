//! A closed loop: each connection sends, waits for the replies and sends again.

use std::{
    cell::{Cell, RefCell},
    fs,
    rc::Rc,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Target;

#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    #[command(flatten)]
    target: Target,
    /// Connections.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests that are sent at once on each.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Bytes of a request's payload.
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// Seconds before anything is counted.
    #[arg(long, default_value_t = 0.4)]
    warm_up: f64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 1.2)]
    seconds: f64,
    /// Process whose processor time is counted.
    #[arg(long)]
    process: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    calls: usize,
    errors: u64,
    seconds: f64,
    cpu_ns: u64,
    p50_us: f64,
    p99_us: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Counting,
    Over,
}

/// What the connections share.
struct Shared {
    phase: Cell<Phase>,
    errors: Cell<u64>,
    nanoseconds: RefCell<Vec<u64>>,
}

impl Load {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let shared = Rc::new(Shared {
            phase: Cell::new(Phase::WarmUp),
            errors: Cell::new(0),
            nanoseconds: RefCell::new(Vec::with_capacity(1 << 18)),
        });
        let clients: Vec<_> =
            (0..self.connections).map(|_| tokio::task::spawn_local(call(self.clone(), Rc::clone(&shared)))).collect();
        tokio::time::sleep(Duration::from_secs_f64(self.warm_up)).await;
        let (start, cpu) = (Instant::now(), processor_time(self.process)?);
        shared.phase.set(Phase::Counting);
        tokio::time::sleep(Duration::from_secs_f64(self.seconds)).await;
        shared.phase.set(Phase::Over);
        let (seconds, cpu_ns) = (start.elapsed().as_secs_f64(), processor_time(self.process)?.saturating_sub(cpu));
        for client in clients {
            client.await??;
        }
        let mut latencies = shared.nanoseconds.take();
        latencies.sort_unstable();
        let report = Report {
            calls: latencies.len(),
            errors: shared.errors.get(),
            seconds,
            cpu_ns,
            p50_us: quantile(&latencies, 50),
            p99_us: quantile(&latencies, 99),
        };
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}

async fn call(load: Load, shared: Rc<Shared>) -> anyhow::Result<()> {
    let protocol = load.target.protocol;
    let requests = protocol.request(load.payload).repeat(load.batch);
    let mut stream = TcpStream::connect(load.target.address).await?;
    stream.set_nodelay(true)?;
    let mut input = Vec::with_capacity(4096);
    while shared.phase.get() != Phase::Over {
        let sent = Instant::now();
        stream.write_all(&requests).await?;
        for _ in 0..load.batch {
            let length = loop {
                if let Some(length) = protocol.message_length(&input) {
                    break length;
                }
                anyhow::ensure!(stream.read_buf(&mut input).await? > 0, "the server hung up");
            };
            if !protocol.succeeded(&input) {
                shared.errors.set(shared.errors.get() + 1);
            }
            input.drain(..length);
            if shared.phase.get() == Phase::Counting {
                let elapsed = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
                shared.nanoseconds.borrow_mut().push(elapsed);
            }
        }
    }
    Ok(())
}

/// Nanoseconds that all threads of a process have run.
fn processor_time(process: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // Time on a processor, time in its queue, number of slices.
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().unwrap_or("0").parse::<u64>()?;
    }
    Ok(sum)
}

/// Microseconds.
fn quantile(sorted: &[u64], percent: usize) -> f64 {
    let at = sorted.len() * percent / 100;
    Duration::from_nanos(sorted.get(at).copied().unwrap_or(0)).as_secs_f64() * 1e6
}
