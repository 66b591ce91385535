//! The services, and gRPC's frames around what is said. A stream keeps no room for what it reads and sends, as one of a
//! generated server would: Envoy opens one for each resource of a configuration source that is not ADS, hundreds a sidecar.

use std::{convert::Infallible, marker::PhantomData, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Response, header::CONTENT_TYPE},
    routing::post,
};
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use prost::{
    Message,
    bytes::{BufMut, BytesMut},
};
use tonic::{Status, service::Routes};

use super::{Session, conversation::Conversation, delta::Delta, sotw::Sotw};
use crate::store::Store;

/// Bytes before a message: whether it is compressed, and its length.
const HEADER: usize = 5;
/// Bytes of a request at most, as everywhere in gRPC.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// Aggregated discovery, and that of one type on a stream of its own. The messages are the same, and so is what is done with
/// them. Sidecars hold a stream; nobody needs to poll.
pub(super) fn routes(store: Arc<Store>) -> Routes {
    let (sotw, delta) = (post(converse::<Sotw>), post(converse::<Delta>));
    let aggregated = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
    let routes = "/envoy.service.route.v3.RouteDiscoveryService";
    let extensions = "/envoy.service.extension.v3.ExtensionConfigDiscoveryService";
    Router::new()
        .route(&format!("{aggregated}/StreamAggregatedResources"), sotw.clone())
        .route(&format!("{aggregated}/DeltaAggregatedResources"), delta.clone())
        .route(&format!("{routes}/StreamRoutes"), sotw.clone())
        .route(&format!("{routes}/DeltaRoutes"), delta.clone())
        .route(&format!("{extensions}/StreamExtensionConfigs"), sotw)
        .route(&format!("{extensions}/DeltaExtensionConfigs"), delta)
        .fallback(async || Status::unimplemented("there is no such stream").into_http::<Body>())
        .with_state(store)
        .into()
}

/// A conversation until its proxy ends it.
enum Stage<S: Session> {
    Before(Arc<Store>, Requests<S::Request>),
    Open(Box<Conversation<S>>),
}

async fn converse<S: Session>(State(store): State<Arc<Store>>, request: Request) -> Response<Body> {
    let requests = Requests { body: request.into_body(), bytes: Vec::new(), message: PhantomData };
    let responses = stream::try_unfold(Stage::<S>::Before(store, requests), |stage| async {
        let mut conversation = match stage {
            Stage::Before(store, requests) => Box::pin(Conversation::open(store, requests)).await.map(Box::new)?,
            Stage::Open(conversation) => conversation,
        };
        let response = conversation.next().await?;
        Ok(Some((response, Stage::Open(conversation))))
    });
    let frames = responses.map(|response: Result<S::Response, Status>| {
        Ok::<_, Infallible>(match response {
            Ok(response) => Frame::data(frame(&response.into())),
            Err(status) => Frame::trailers(trailers(&status)),
        })
    });
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// What a proxy says.
pub(super) struct Requests<T> {
    body: Body,
    /// Of a message that is not all there yet.
    bytes: Vec<u8>,
    message: PhantomData<fn() -> T>,
}

impl<T: Message + Default> Requests<T> {
    /// The next request, once it is all there; `None`: the proxy has left.
    pub(super) async fn next(&mut self) -> Result<Option<T>, Status> {
        loop {
            if let Some(message) = self.read()? {
                return Ok(Some(message));
            }
            let Some(Ok(frame)) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.into_data() {
                self.bytes.extend_from_slice(&data);
            }
        }
    }

    fn read(&mut self) -> Result<Option<T>, Status> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [compressed, length @ ..] = *header;
        if compressed != 0 {
            return Err(Status::unimplemented("compressed requests are not read"));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > MOST_BYTES {
            return Err(Status::out_of_range(format!("a request of {length} bytes is too large")));
        }
        let Some((message, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        let message = T::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        self.bytes = rest.to_vec();
        Ok(Some(message))
    }
}

/// A message as it is sent.
fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(length.saturating_add(HEADER));
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room for it.
    let _ = message.encode(&mut bytes);
    bytes.freeze()
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Our own words fit into a header.
    let _ = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
    use tonic::Code;

    use super::*;

    fn request(name: &str) -> DiscoveryRequest {
        DiscoveryRequest { type_url: name.to_owned(), ..DiscoveryRequest::default() }
    }

    /// Of a body that comes in these pieces.
    fn requests<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Requests<DiscoveryRequest> {
        let pieces: Vec<_> = pieces.into_iter().map(|piece| Ok::<_, Infallible>(piece.to_vec())).collect();
        Requests { body: Body::from_stream(stream::iter(pieces)), bytes: Vec::new(), message: PhantomData }
    }

    #[tokio::test]
    async fn requests_may_come_in_any_pieces() {
        let bytes = [frame(&request("a")), frame(&request("b"))].concat();
        for size in 1..=bytes.len() {
            let mut requests = requests(bytes.chunks(size));
            assert_eq!(requests.next().await.unwrap(), Some(request("a")), "{size}");
            assert_eq!(requests.next().await.unwrap(), Some(request("b")), "{size}");
            assert_eq!(requests.next().await.unwrap(), None, "{size}");
            assert_eq!(requests.bytes.capacity(), 0, "no room is kept");
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_told() {
        for (bytes, code) in [
            ([1, 0, 0, 0, 0, 0], Code::Unimplemented),
            ([0, 0xff, 0, 0, 0, 0], Code::OutOfRange),
            ([0, 0, 0, 0, 1, 0xff], Code::Internal),
        ] {
            assert_eq!(requests([&bytes[..]]).next().await.unwrap_err().code(), code);
        }
        assert_eq!(requests([&[0, 0, 0, 0, 2, 0][..]]).next().await.unwrap(), None, "half a request");
    }
}
