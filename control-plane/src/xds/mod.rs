//! The xDS server: aggregated discovery and that of routes and filter configurations alone, state of the world and delta,
//! on one port.

mod delta;
mod single;
mod sotw;
#[cfg(test)]
mod tests;
pub mod tls;
mod view;

use std::{pin::Pin, sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    config::core::v3::{Node, node::UserAgentVersionType},
    service::{
        discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
        },
        extension::v3::extension_config_discovery_service_server::ExtensionConfigDiscoveryServiceServer,
        route::v3::route_discovery_service_server::RouteDiscoveryServiceServer,
    },
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

use crate::{
    snapshot::Snapshot,
    store::{Clients, Connected, Store, Transport},
};

/// Responses that wait for a proxy that reads slowly; then its requests wait as well.
const QUEUE: usize = 16;
/// How long routes wait for a proxy to take the clusters they name. One that never says so gets them all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves proxies until `shutdown`.
///
/// # Errors
/// If the server fails.
pub async fn serve(
    listener: TcpListener,
    tls: Option<tls::Settings>,
    store: Arc<Store>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let server = Server { store: store.clone() };
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_service(AggregatedDiscoveryServiceServer::new(server.clone()))
        .add_service(RouteDiscoveryServiceServer::new(server.clone()))
        .add_service(ExtensionConfigDiscoveryServiceServer::new(server));
    let Some(settings) = tls else {
        tracing::warn!(
            "xDS is served WITHOUT TLS: whoever reaches the port reads the proxies' configuration, and whoever is in \
             between can change it; see --xds-cert"
        );
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        return router.serve_with_incoming_shutdown(incoming, shutdown).await;
    };
    let clients = settings.clients();
    store.set_transport(Transport::Tls { clients: clients.clone(), ready: false, problem: None });
    if clients == Clients::Anyone {
        tracing::warn!("xDS is served to whoever reaches the port: no certificate is asked for; see --xds-client-ca");
    }
    let (sender, current) = watch::channel(None);
    tokio::spawn(tls::follow(settings, store.clone(), sender));
    router.serve_with_incoming_shutdown(tls::incoming(listener, current, store), shutdown).await
}

#[derive(Clone)]
struct Server {
    store: Arc<Store>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Server {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(self.run::<sotw::Sotw>(request.into_inner()))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(self.run::<delta::Delta>(request.into_inner()))
    }
}

/// What is known of one stream, without I/O.
trait Session: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    const NAME: &'static str;

    fn node(request: &Self::Request) -> Option<&Node>;
    fn new(snapshot: Arc<Snapshot>, proxy: Connected) -> Self;
    /// A request came.
    fn on_request(&mut self, request: Self::Request, out: &mut Vec<Self::Response>);
    /// The world changed.
    fn on_snapshot(&mut self, snapshot: Arc<Snapshot>, out: &mut Vec<Self::Response>);
    /// Whether something is held back until the proxy has taken what it refers to.
    fn holds(&self) -> bool;
    /// The proxy was waited for long enough.
    fn on_patience_lost(&mut self, out: &mut Vec<Self::Response>);
}

impl Server {
    fn run<S: Session>(&self, requests: Streaming<S::Request>) -> Response<Responses<S::Response>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(status) = drive::<S>(store, requests, &sender).await {
                // The proxy may be gone already.
                let _ = sender.send(Err(status)).await;
            }
        });
        Response::new(Box::pin(ReceiverStream::new(receiver)))
    }
}

async fn drive<S: Session>(
    store: Arc<Store>,
    mut requests: Streaming<S::Request>,
    sender: &mpsc::Sender<Result<S::Response, Status>>,
) -> Result<(), Status> {
    let Some(first) = requests.next().await.transpose()? else { return Ok(()) };
    let node = S::node(&first).filter(|node| !node.id.is_empty());
    let node = node.ok_or_else(|| Status::invalid_argument("the first request must have node.id"))?;
    let mut world = store.follow();
    // Nothing was read yet: an empty answer would take everything away from a proxy that reconnects.
    if world.wait_for(|world| world.generation > 0).await.is_err() {
        return Ok(());
    }
    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
            .version
            .as_ref()
            .map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch))
            .unwrap_or_default(),
        None => String::new(),
    };
    tracing::info!(node = node.id, version, protocol = S::NAME, "proxy connected");
    let proxy = store.connect(node.id.clone(), node.cluster.clone(), version, S::NAME);
    let (id, number) = (node.id.clone(), proxy.id());
    let now = world.borrow_and_update().clone();
    let mut generation = now.generation;
    let mut session = S::new(now.snapshot, proxy);
    let mut out = Vec::new();
    session.on_request(first, &mut out);
    let mut latest = Instant::now() + PATIENCE;
    loop {
        for response in out.drain(..) {
            if sender.send(Ok(response)).await.is_err() {
                return Ok(());
            }
        }
        if !session.holds() {
            store.sent_all(number, generation);
        }
        tokio::select! {
            biased;
            request = requests.next() => match request.transpose() {
                Ok(Some(request)) => session.on_request(request, &mut out),
                Ok(None) | Err(_) => {
                    tracing::info!(node = id, "proxy disconnected");
                    return Ok(());
                }
            },
            changed = world.changed() => {
                if changed.is_err() {
                    return Err(Status::unavailable("the control plane goes down"));
                }
                let now = world.borrow_and_update().clone();
                generation = now.generation;
                // Changes that come one behind the other do not put off the first for ever.
                if !session.holds() {
                    latest = Instant::now() + PATIENCE;
                }
                session.on_snapshot(now.snapshot, &mut out);
            }
            () = sleep_until(latest), if session.holds() => {
                session.on_patience_lost(&mut out);
                latest = Instant::now() + PATIENCE;
            }
        }
    }
}
