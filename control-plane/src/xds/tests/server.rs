use envoy_types::pb::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient,
    route::v3::route_discovery_service_client::RouteDiscoveryServiceClient,
};
use tokio::{net::TcpListener, sync::mpsc, task::yield_now};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Streaming, transport::Channel};

use super::*;

/// A server on a port of its own, and its store.
async fn serve() -> (Arc<Store>, AggregatedDiscoveryServiceClient<Channel>) {
    let (store, channel) = serve_any().await;
    (store, AggregatedDiscoveryServiceClient::new(channel))
}

async fn serve_any() -> (Arc<Store>, Channel) {
    let store = Store::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(super::super::serve(listener, None, store.clone(), std::future::pending()));
    (store, Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap())
}

/// A stream of the state of the world.
struct Stream {
    requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Stream {
    async fn open(client: &mut AggregatedDiscoveryServiceClient<Channel>, first: DiscoveryRequest) -> Self {
        let (requests, receiver) = mpsc::channel(8);
        requests.send(first).await.unwrap();
        let responses = client.stream_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn next(&mut self) -> DiscoveryResponse {
        self.responses.message().await.unwrap().unwrap()
    }

    async fn answer(&self, response: &DiscoveryResponse, reason: Option<&str>) {
        let request = DiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: reason.and_then(error),
            ..DiscoveryRequest::default()
        };
        self.requests.send(request).await.unwrap();
    }
}

fn ask(kind: TypeUrl) -> DiscoveryRequest {
    DiscoveryRequest { node: node("envoy-1"), type_url: kind.as_str().to_owned(), ..DiscoveryRequest::default() }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        yield_now().await;
    }
}

#[tokio::test]
async fn a_proxy_is_served_and_its_answers_are_kept() {
    let (store, mut client) = serve().await;
    store.publish(world(&[(CLUSTER, "a")]), Vec::new());
    let mut stream = Stream::open(&mut client, ask(CLUSTER)).await;
    let first = stream.next().await;
    assert_eq!(names(CLUSTER, &first.resources, &["a"]), ["a"]);
    stream.answer(&first, None).await;
    until(|| store.proxies().iter().any(|proxy| proxy.types[&CLUSTER].acked == first.version_info)).await;
    store.publish(world(&[(CLUSTER, "a"), (CLUSTER, "b")]), Vec::new());
    let second = stream.next().await;
    assert_eq!(names(CLUSTER, &second.resources, &["a", "b"]), ["a", "b"]);
    assert_ne!((&first.version_info, &first.nonce), (&second.version_info, &second.nonce));
    stream.answer(&second, Some("no room")).await;
    until(|| store.proxies().iter().any(|proxy| proxy.types[&CLUSTER].error.as_deref() == Some("no room"))).await;
    assert_eq!((store.proxies()[0].node.as_str(), store.proxies()[0].protocol), ("envoy-1", "sotw"));
    drop(stream);
    until(|| store.proxies().is_empty()).await;
}

#[tokio::test]
async fn a_proxy_that_comes_back_gets_the_same_versions() {
    let (store, mut client) = serve().await;
    store.publish(world(&[(LISTENER, "l")]), Vec::new());
    let first = Stream::open(&mut client, ask(LISTENER)).await.next().await;
    // It knows a nonce of its former stream.
    let again = DiscoveryRequest { response_nonce: first.nonce.clone(), ..ask(LISTENER) };
    let second = Stream::open(&mut client, again).await.next().await;
    assert_eq!((second.version_info, second.resources), (first.version_info, first.resources));
}

#[tokio::test]
async fn nothing_is_said_before_the_sources_were_read() {
    let (store, mut client) = serve().await;
    let (requests, receiver) = mpsc::channel(8);
    requests.send(ask(CLUSTER)).await.unwrap();
    let stream = client.stream_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap();
    assert!(store.proxies().is_empty());
    store.publish(world(&[(CLUSTER, "a")]), Vec::new());
    let response = stream.into_inner().message().await.unwrap().unwrap();
    assert_eq!(response.resources.len(), 1, "not an empty world, which would take everything away");
}

#[tokio::test]
async fn a_proxy_must_say_who_it_is() {
    let (store, mut client) = serve().await;
    store.publish(world(&[]), Vec::new());
    let anonymous = DiscoveryRequest { node: None, ..ask(CLUSTER) };
    let mut stream = Stream::open(&mut client, anonymous).await;
    assert_eq!(stream.responses.message().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn delta_on_the_same_port() {
    let (store, mut client) = serve().await;
    store.publish(world(&[(CLUSTER, "a"), (CLUSTER, "b")]), Vec::new());
    let (requests, receiver) = mpsc::channel(8);
    let first = DeltaDiscoveryRequest {
        node: node("envoy-2"),
        type_url: CLUSTER.as_str().to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(first).await.unwrap();
    let mut responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().resources.len(), 2);
    store.publish(world(&[(CLUSTER, "a"), (CLUSTER, "b=2")]), Vec::new());
    let second = responses.message().await.unwrap().unwrap();
    assert_eq!(second.resources.iter().map(|resource| resource.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(store.proxies()[0].protocol, "delta");
}

#[tokio::test]
async fn one_type_on_a_stream_of_its_own() {
    let (store, channel) = serve_any().await;
    let extension = TypeUrl::ExtensionConfig;
    store.publish(world(&[(ROUTE, "r"), (ROUTE, "s"), (extension, "e")]), Vec::new());
    let first = |kind: TypeUrl, name: &str| {
        let first = DeltaDiscoveryRequest {
            node: node("envoy-3"),
            type_url: kind.as_str().to_owned(),
            resource_names_subscribe: vec![name.to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        tokio_stream::once(first).chain(tokio_stream::pending())
    };
    let mut routes = RouteDiscoveryServiceClient::new(channel.clone());
    let mut extensions = ExtensionConfigDiscoveryServiceClient::new(channel);
    let mut route = routes.delta_routes(first(ROUTE, "s")).await.unwrap().into_inner();
    let mut config = extensions.delta_extension_configs(first(extension, "e")).await.unwrap().into_inner();
    for (stream, name) in [(&mut route, "s"), (&mut config, "e")] {
        let response = stream.message().await.unwrap().unwrap();
        assert_eq!(response.resources.iter().map(|resource| resource.name.as_str()).collect::<Vec<_>>(), [name]);
    }
    let polled = routes.fetch_routes(ask(ROUTE)).await;
    assert_eq!(polled.unwrap_err().code(), Code::Unimplemented, "sidecars hold a stream; nobody needs to poll");
}
