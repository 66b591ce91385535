//! Connections whose handshake is done.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use rustls::{CertificateError, Error, OtherError};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::server::Connected;

use super::{Current, peers::Refused};
use crate::store::Store;

/// Handshakes at the same time: more wait in the listener's backlog.
const HANDSHAKES: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);
/// After an error of the listener, such as no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection with TLS.
#[derive(Debug)]
pub(in super::super) struct Connection(TlsStream<TcpStream>);

/// Takes connections for as long as somebody reads them.
pub(in super::super) fn incoming(
    listener: TcpListener,
    current: Current,
    store: Arc<Store>,
) -> impl Stream<Item = io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(HANDSHAKES));
        while let Ok(permit) = room.clone().acquire_owned().await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("xDS: cannot take a connection: {error}");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let (current, store, sender) = (current.clone(), store.clone(), sender.clone());
            tokio::spawn(async move {
                let _permit = permit;
                match handshake(stream, &current).await {
                    // Nobody reads any more: the server ends.
                    Ok(connection) => _ = sender.send(Ok(connection)).await,
                    Err(error) => refused(address, &error, &store),
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn handshake(stream: TcpStream, current: &Current) -> io::Result<Connection> {
    let config = current.borrow().clone();
    let config = config.ok_or_else(|| io::Error::other("there is no certificate of ours yet"))?;
    stream.set_nodelay(true)?;
    let accepted = timeout(PATIENCE, TlsAcceptor::from(config).accept(stream)).await;
    Ok(Connection(accepted.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))?))
}

fn refused(address: SocketAddr, error: &io::Error, store: &Store) {
    if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
        // A probe that only wants to know whether somebody listens.
        tracing::debug!(%address, "xDS: gone before the handshake was done");
        return;
    }
    store.refused_connections.fetch_add(1, Ordering::Relaxed);
    let reason = match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(inner)))) if inner.is::<Refused>() => {
            inner.to_string()
        }
        Some(Error::NoCertificatesPresented) => "it shows no certificate".to_owned(),
        Some(Error::InvalidMessage(_)) => {
            "what it says is not TLS; does its cluster have a transport socket?".to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!("it does not take our certificate: {alert:?}"),
        Some(error) => error.to_string(),
        None => error.to_string(),
    };
    tracing::warn!("xDS: connection of {address} refused: {reason}");
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
