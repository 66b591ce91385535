//! The xDS server: aggregated discovery and that of routes and filter configurations alone, state of the world and delta,
//! on one port.

mod conversation;
mod delta;
mod grpc;
mod sotw;
#[cfg(test)]
mod tests;
pub mod tls;
mod view;

use std::{sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::core::v3::Node;
use prost::Message;
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::server::TcpIncoming;

use crate::{
    snapshot::Snapshot,
    store::{Clients, Connected, Store, Transport},
};

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
    let router = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_routes(grpc::routes(store.clone()));
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

/// What is known of one stream, without I/O.
trait Session: Send + 'static {
    type Request: Message + Default + 'static;
    /// As it waits for the proxy to read it: resources are shared, for many proxies are given the same.
    type Response: Into<Self::Message> + Send + 'static;
    type Message: Message;
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
