//! TLS in front of the xDS server: certificates from files that may change at any time, and who may call.

mod accept;
mod files;
mod peers;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{sync::watch, time::sleep};

use crate::store::{Clients, Store, Transport};

pub use self::{files::Files, peers::Pattern};
pub(super) use accept::incoming;

/// Between looks at the files. Those of a mesh live for hours, and a look is three small reads.
const LOOK: Duration = Duration::from_secs(2);
/// Certificate and key are two files: one of them may be older for a moment.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// What TLS is done with, as it is now; nothing before the files were good once.
pub(super) type Current = watch::Receiver<Option<Arc<ServerConfig>>>;

/// Who are proxies, and how they know us.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our certificate and who signs those of proxies.
    pub files: Files,
    /// Identities of proxies; empty: whoever has a good certificate.
    pub peers: Vec<Pattern>,
}

impl Settings {
    /// Which proxies are served, for people.
    pub(super) fn clients(&self) -> Clients {
        match (&self.files.client_ca, self.peers.as_slice()) {
            (None, _) => Clients::Anyone,
            (Some(_), []) => Clients::Certificate,
            (Some(_), peers) => Clients::Identity(peers.iter().map(ToString::to_string).collect()),
        }
    }
}

/// Reads the files again and again until nobody uses what they say.
pub(super) async fn follow(settings: Settings, store: Arc<Store>, current: watch::Sender<Option<Arc<ServerConfig>>>) {
    let clients = settings.clients();
    let (mut used, mut told) = (None, None);
    loop {
        let mut loaded = settings.load(used.as_ref());
        if loaded.is_err() {
            sleep(SECOND_LOOK).await;
            loaded = settings.load(used.as_ref());
        }
        let problem = match loaded {
            Ok(None) => None,
            Ok(Some((contents, config))) => {
                current.send_replace(Some(Arc::new(config)));
                if used.replace(contents).is_some() {
                    let cert = settings.files.cert.display();
                    tracing::info!("xDS: new connections get what {cert} says now");
                }
                None
            }
            Err(problem) => Some(problem),
        };
        if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
            let consequence = match used {
                Some(_) => "the last good certificate stays in use",
                None => "no proxy is served until this is right",
            };
            tracing::error!("xDS: {problem}; {consequence}");
        }
        store.set_transport(Transport::Tls {
            clients: clients.clone(),
            ready: used.is_some(),
            problem: problem.clone(),
        });
        told = problem;
        tokio::select! {
            () = sleep(LOOK) => {}
            () = current.closed() => return,
        }
    }
}
