//! Who may write: the replica that holds a Lease, as Kubernetes' own controllers do it.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams, core::ObjectMeta};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::MANAGER;

/// Others take a lease that was not renewed for so long.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// We believe in a lease of our own for so long: less, so that a write that is under way ends before another begins.
const BELIEF: Duration = Duration::from_secs(10);
/// Between tries.
const RETRY: Duration = Duration::from_secs(2);
/// Until the API server must have answered.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whether we may write now.
#[derive(Debug, Clone)]
pub(super) struct Leadership {
    until: watch::Receiver<Option<Instant>>,
    /// What `changed` told last.
    told: bool,
}

impl Leadership {
    /// We may.
    pub(super) fn holds(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits for it to be had or lost.
    pub(super) async fn changed(&mut self) {
        while self.holds() == self.told {
            if self.until.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
        self.told = !self.told;
    }

    #[cfg(test)]
    pub(super) fn of_test(holds: bool) -> (watch::Sender<Option<Instant>>, Self) {
        let (sender, until) = watch::channel(holds.then(|| Instant::now() + BELIEF));
        (sender, Self { until, told: holds })
    }
}

/// Gets the lease and keeps it.
pub(super) struct Elector {
    api: Api<Lease>,
    identity: String,
    until: watch::Sender<Option<Instant>>,
    /// The lease as it was last seen, and since when it is so by our clock: clocks of others are not compared.
    seen: Option<(String, Instant)>,
}

/// What is to be done about a lease.
#[derive(Debug, PartialEq)]
enum Step {
    Create,
    /// It is ours, or free.
    Take,
    Wait,
}

impl Elector {
    pub(super) fn new(client: Client, namespace: &str, identity: &str) -> (Self, Leadership) {
        let (until, receiver) = watch::channel(None);
        let api = Api::namespaced(client, namespace);
        (Self { api, identity: identity.to_owned(), until, seen: None }, Leadership { until: receiver, told: false })
    }

    /// Tries until `stopped`, then gives the lease back.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        let mut told = false;
        loop {
            tokio::select! {
                result = timeout(PATIENCE, self.try_once()) => {
                    let failure = match result {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(super::writer::in_words(&error)),
                        Err(_) => Some("the API server does not answer".to_owned()),
                    };
                    if let Some(failure) = &failure && !told {
                        warn!("the lease cannot be had or kept: {failure}");
                    }
                    told = failure.is_some();
                }
                // An error means that the sender is gone: that is the end as well.
                _ = stopped.wait_for(|stop| *stop) => break,
            }
            if self.until.borrow().is_some_and(|until| Instant::now() >= until) {
                self.lose("it could not be renewed in time");
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        if self.until.borrow().is_some() {
            // First we stop writing, then we say so.
            self.lose("stopping");
            if !matches!(timeout(PATIENCE, release(&self.api, &self.identity)).await, Ok(Ok(()))) {
                warn!("the lease was not given back; others take it in {DURATION:?}");
            }
        }
    }

    async fn try_once(&mut self) -> kube::Result<()> {
        // Before the request: the server's time of the renewal is later than this.
        let start = Instant::now();
        let lease = self.api.get_opt(MANAGER).await?;
        let step = self.step(lease.as_ref(), start);
        let written = match (step, lease) {
            (Step::Create, _) => {
                let metadata = ObjectMeta { name: Some(MANAGER.to_owned()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec(&self.identity, DURATION, None)) };
                self.api.create(&PostParams::default(), &lease).await
            }
            // It carries the resourceVersion that was read: of two that write, one is refused.
            (Step::Take, Some(lease)) => {
                let lease = Lease { spec: Some(spec(&self.identity, DURATION, lease.spec.as_ref())), ..lease };
                self.api.replace(MANAGER, &PostParams::default(), &lease).await
            }
            (Step::Take | Step::Wait, _) => {
                self.lose("another replica has it");
                return Ok(());
            }
        };
        match written {
            Ok(lease) => {
                self.seen = lease.metadata.resource_version.map(|version| (version, start));
                if self.until.send_replace(Some(start + BELIEF)).is_none() {
                    info!(identity = %self.identity, "this replica holds the lease and writes");
                }
                Ok(())
            }
            // Another was faster; the next look tells who.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.lose("another replica was faster");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn step(&mut self, lease: Option<&Lease>, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Create };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => {
                self.seen = Some((version, now));
                now
            }
        };
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        if holder.is_empty() || holder == self.identity || now.duration_since(since) >= duration {
            Step::Take
        } else {
            Step::Wait
        }
    }

    fn lose(&self, reason: &str) {
        if self.until.send_replace(None).is_some() {
            info!("this replica no longer holds the lease: {reason}");
        }
    }
}

/// Takes the lease from whoever has it, and for so long; gives who had it. The other stops writing within [`DURATION`].
pub(super) async fn seize(
    client: &Client,
    namespace: &str,
    identity: &str,
    time: Duration,
) -> kube::Result<Option<String>> {
    let api = Api::<Lease>::namespaced(client.clone(), namespace);
    loop {
        let lease = api.get_opt(MANAGER).await?;
        let before = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        let holder = before.and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty());
        let spec = Some(spec(identity, time, before));
        let written = match lease {
            None => {
                let metadata = ObjectMeta { name: Some(MANAGER.to_owned()), ..ObjectMeta::default() };
                api.create(&PostParams::default(), &Lease { metadata, spec }).await
            }
            Some(lease) => api.replace(MANAGER, &PostParams::default(), &Lease { spec, ..lease }).await,
        };
        match written {
            Ok(_) => return Ok(holder.filter(|holder| holder != identity)),
            // Renewed in between.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
}

/// Gives back what was seized: the next control plane need not wait.
pub(super) async fn give_back(client: &Client, namespace: &str, identity: &str) -> kube::Result<()> {
    release(&Api::namespaced(client.clone(), namespace), identity).await
}

/// Leaves the lease to whoever comes, if it is still ours.
async fn release(api: &Api<Lease>, identity: &str) -> kube::Result<()> {
    let lease = api.get(MANAGER).await?;
    let spec = lease.spec.unwrap_or_default();
    if spec.holder_identity.as_deref() == Some(identity) {
        let spec = LeaseSpec { holder_identity: Some(String::new()), lease_duration_seconds: Some(1), ..spec };
        let lease = Lease { metadata: lease.metadata, spec: Some(spec) };
        api.replace(MANAGER, &PostParams::default(), &lease).await?;
    }
    Ok(())
}

/// The lease as held by `identity`.
fn spec(identity: &str, time: Duration, before: Option<&LeaseSpec>) -> LeaseSpec {
    let now = MicroTime(Timestamp::now());
    let same = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(identity));
    let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: i32::try_from(time.as_secs()).ok(),
        acquire_time: before.filter(|_| same).and_then(|spec| spec.acquire_time.clone()).or(Some(now.clone())),
        renew_time: Some(now),
        lease_transitions: Some(if same || before.is_none() { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
