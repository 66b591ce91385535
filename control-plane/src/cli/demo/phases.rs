//! The story: each phase edits the routes, waits until they are in effect, and counts.

use anyhow::{Context, bail, ensure};

use super::{
    Demo,
    configuration::{ALL_TO_V1, BY_HEADER, BY_METHOD, BY_WEIGHT, TO_BOTH, WITH_FAULT, routes},
    counts::Counts,
    world::World,
};

/// Calls over which weights are judged, and by how many percent they may differ.
const WEIGHED_CALLS: u64 = 1000;
const TOLERANCE: f64 = 8.0;
/// Windows of the load client that other phases count.
const WINDOWS: usize = 8;
/// Windows after which new routes must be in effect.
const PATIENCE: usize = 50;

/// Plays all phases.
pub(super) async fn play(demo: &Demo) -> anyhow::Result<()> {
    println!("meltemi demo: {} calls through a stock Envoy. Starting", demo.protocol.name());
    let mut stage =
        Stage { world: World::start(demo, &routes(ALL_TO_V1)).await?, all: Counts::default(), faulty: false };
    let told = stage.story().await;
    let all = stage.all;
    stage.world.stop().await;
    told?;
    let calls: u64 = ["hello", "gray", "slow"].iter().map(|kind| all.calls(kind)).sum();
    println!("\n{calls} calls in all; none failed but those that were told to");
    Ok(())
}

struct Stage {
    world: World,
    all: Counts,
    /// A fault is injected into `slow`, or just was: its errors are no failure of ours.
    faulty: bool,
}

impl Stage {
    async fn story(&mut self) -> anyhow::Result<()> {
        self.phase("all calls to v1", None, |counts| only(counts, &[("hello", "v1"), ("gray", "v1"), ("slow", "v1")]))
            .await?;

        self.edit("20 % to v1, 80 % to v2", BY_WEIGHT)?;
        self.until(|counts| counts.share("hello", "v2") > 0.0).await?;
        let counts = self.count(|counts| counts.calls("hello") >= WEIGHED_CALLS).await?;
        let share = counts.share("hello", "v2");
        ensure!((share - 80.0).abs() <= TOLERANCE, "v2 got {share:.1} % instead of 80 %");

        self.phase("the method `slow` pinned to v2", Some(BY_METHOD), |counts| {
            only(counts, &[("hello", "v1"), ("gray", "v1"), ("slow", "v2")])
        })
        .await?;
        self.phase("calls with the header env=gray to v2", Some(BY_HEADER), |counts| {
            only(counts, &[("hello", "v1"), ("gray", "v2"), ("slow", "v1")])
        })
        .await?;

        self.faulty = true;
        self.phase(
            "a fault injected into `slow`: the client sees its own protocol's error",
            Some(WITH_FAULT),
            |counts| {
                only(counts, &[("hello", "v1"), ("gray", "v1")])
                    && !counts.errors().is_empty()
                    && counts.share("slow", "v1") == 0.0
            },
        )
        .await?;

        self.edit("both versions, and v2 is killed: calls are retried around it", TO_BOTH)?;
        self.until(|counts| counts.share("hello", "v2") > 0.0 && counts.errors().is_empty()).await?;
        self.faulty = false;
        self.world.kill_v2().await?;
        println!("  v2 is dead");
        self.until(|counts| counts.share("hello", "v2") == 0.0).await?;
        let counts = self.windows(WINDOWS).await?;
        ensure!(only(&counts, &[("hello", "v1"), ("gray", "v1"), ("slow", "v1")]), "calls went to a dead server");
        Ok(())
    }

    /// Edits the routes, waits until `right`, and then demands that it stays so.
    async fn phase(&mut self, title: &str, lines: Option<&str>, right: impl Fn(&Counts) -> bool) -> anyhow::Result<()> {
        match lines {
            Some(lines) => self.edit(title, lines)?,
            None => println!("\n▶ {title}"),
        }
        self.until(&right).await.with_context(|| format!("never saw: {title}"))?;
        let counts = self.windows(WINDOWS).await?;
        ensure!(right(&counts), "not any more: {title}");
        Ok(())
    }

    fn edit(&self, title: &str, lines: &str) -> anyhow::Result<()> {
        println!("\n▶ {title}");
        for line in lines.lines() {
            println!("  │ {line}");
        }
        self.world.edit(&routes(lines))
    }

    /// Waits for a window that is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Counts) -> bool) -> anyhow::Result<()> {
        let mut last = Counts::default();
        for _ in 0..PATIENCE {
            last = self.next().await?;
            if wanted(&last) {
                return Ok(());
            }
        }
        bail!("the routes did not take effect; the client saw {}", last.show())
    }

    async fn windows(&mut self, mut left: usize) -> anyhow::Result<Counts> {
        self.count(move |_| {
            left = left.saturating_sub(1);
            left == 0
        })
        .await
    }

    /// Counts until it is enough, and shows it.
    async fn count(&mut self, mut enough: impl FnMut(&Counts) -> bool) -> anyhow::Result<Counts> {
        let mut sum = Counts::default();
        loop {
            sum.add(&self.next().await?);
            if enough(&sum) {
                break;
            }
        }
        println!("    {}", sum.show());
        Ok(sum)
    }

    /// The next window; a call that failed without having been told to ends the demo.
    async fn next(&mut self) -> anyhow::Result<Counts> {
        let counts = self.world.next_counts().await?;
        for (kind, error, count) in counts.errors() {
            ensure!(self.faulty && kind == "slow", "{count} call(s) of `{kind}` failed: {error}");
        }
        self.all.add(&counts);
        Ok(counts)
    }
}

/// All calls of each kind were answered by the one given.
fn only(counts: &Counts, expected: &[(&str, &str)]) -> bool {
    expected.iter().all(|(kind, answer)| counts.calls(kind) > 0 && counts.share(kind, answer) == 100.0)
}
