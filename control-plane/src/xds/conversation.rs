use std::{collections::VecDeque, sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::{Session, grpc::Requests};
use crate::store::{Published, Store};

/// How long routes wait for a proxy to take the clusters they name. One that never says so gets them all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// A session with its proxy. Nothing happens in it but while the proxy reads what it says, so there is no queue: of streams
/// there are as many as sidecars have listeners and routes of ours, all told.
pub(super) struct Conversation<S: Session> {
    requests: Requests<S::Request>,
    store: Arc<Store>,
    world: watch::Receiver<Published>,
    /// Of the proxy, in the store.
    number: u64,
    generation: u64,
    session: S,
    /// What is to be said.
    ready: VecDeque<S::Response>,
    /// When the proxy has been waited for long enough.
    latest: Instant,
}

impl<S: Session> Conversation<S> {
    /// Waits for the first request, and for something to say.
    pub(super) async fn open(store: Arc<Store>, mut requests: Requests<S::Request>) -> Result<Self, Status> {
        let first = requests.next().await?.ok_or_else(end)?;
        let node = S::node(&first).filter(|node| !node.id.is_empty());
        let node = node.ok_or_else(|| Status::invalid_argument("the first request must have node.id"))?;
        let mut world = store.follow();
        // Nothing was read yet: an empty answer would take everything away from a proxy that reconnects.
        world.wait_for(|world| world.generation > 0).await.map_err(|_| end())?;
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
                .version
                .as_ref()
                .map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch))
                .unwrap_or_default(),
            None => String::new(),
        };
        let proxy = store.connect(node.id.clone(), node.cluster.clone(), version, S::NAME);
        let number = proxy.id();
        let now = world.borrow_and_update().clone();
        let mut session = S::new(now.snapshot, proxy);
        let mut out = Vec::new();
        session.on_request(first, &mut out);
        Ok(Self {
            requests,
            store,
            world,
            number,
            generation: now.generation,
            session,
            ready: out.into(),
            latest: Instant::now() + PATIENCE,
        })
    }

    /// What is said next, or why there is no more.
    pub(super) async fn next(&mut self) -> Result<S::Response, Status> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(response);
            }
            let holds = self.session.holds();
            if !holds {
                self.store.sent_all(self.number, self.generation);
            }
            let mut out = Vec::new();
            tokio::select! {
                biased;
                request = self.requests.next() => self.session.on_request(request?.ok_or_else(end)?, &mut out),
                changed = self.world.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the control plane goes down"));
                    }
                    let now = self.world.borrow_and_update().clone();
                    self.generation = now.generation;
                    // Changes that come one behind the other do not put off the first for ever.
                    if !holds {
                        self.latest = Instant::now() + PATIENCE;
                    }
                    self.session.on_snapshot(now.snapshot, &mut out);
                }
                () = sleep_until(self.latest), if holds => {
                    self.session.on_patience_lost(&mut out);
                    self.latest = Instant::now() + PATIENCE;
                }
            }
            self.ready = out.into();
        }
    }
}

/// The proxy has left.
fn end() -> Status {
    Status::ok("")
}
