//! Sidecars without Envoy: delta xDS streams that ask for what Envoy would ask for, and take everything.
//!
//! Commands come by standard input, a line each: `mark` begins to count anew, `tell` prints what was got since, by type.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use clap::Args;
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{Cluster, cluster::ClusterDiscoveryType, cluster::DiscoveryType},
            core::v3::{ConfigSource, Node, config_source::ConfigSourceSpecifier},
            listener::v3::{Filter, Listener, filter, listener_filter},
        },
        extensions::filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
        service::{
            extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient,
            route::v3::route_discovery_service_client::RouteDiscoveryServiceClient,
        },
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use prost::Message;
use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::mpsc,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Streaming,
    codegen::StdError,
    transport::{Channel, Endpoint},
};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// Before a stream that has ended is made anew.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Args)]
pub(crate) struct Sidecars {
    /// The xDS server, as `http://host:port`.
    #[arg(long)]
    server: String,
    /// Sidecars.
    #[arg(long, default_value_t = 1)]
    count: usize,
    /// Namespace of their pods.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// Labels of their pods, as `name=value`.
    #[arg(long)]
    label: Vec<String>,
    /// Istio's version of them.
    #[arg(long, default_value = "1.31.0")]
    istio_version: String,
    /// Ask for these routes, one a line in a file, and for the filter configurations of the same names: the subscriptions
    /// of the tcp shape. Without it clusters and listeners are asked for, and whatever they name.
    #[arg(long)]
    names: Option<std::path::PathBuf>,
    /// A stream for each of the names and types, as Envoy has of a configuration source that is not ADS.
    #[arg(long, requires = "names")]
    streams: bool,
}

/// What all sidecars got of a type since the mark.
#[derive(Debug, Default, Clone, Serialize)]
struct Got {
    responses: u64,
    resources: u64,
    bytes: u64,
    /// Sidecars that got any.
    sidecars: BTreeSet<usize>,
    /// Names of the resources, if they are few.
    names: BTreeSet<String>,
    /// When the last of the sidecars got its first, in seconds of Unix time.
    all_at: f64,
    /// When the last response came.
    last_at: f64,
}

/// Names that are told.
const FEW: usize = 20;

#[derive(Debug, Default)]
struct Shared {
    by_type: BTreeMap<String, Got>,
    /// Streams that are open.
    open: usize,
    /// Streams that have ended, since the start.
    lost: u64,
}

impl Sidecars {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let names: Option<Vec<String>> = match &self.names {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
                Some(text.lines().map(str::to_owned).collect())
            }
            None => None,
        };
        let shared = Rc::new(RefCell::new(Shared::default()));
        let names = Rc::new(names);
        for index in 0..self.count {
            let (options, names, shared) = (self.clone(), names.clone(), shared.clone());
            tokio::task::spawn_local(async move {
                loop {
                    let mut sidecar = Sidecar { index, shared: shared.clone(), types: BTreeMap::new() };
                    let result = match names.as_deref() {
                        Some(names) if options.streams => sidecar.follow_apart(&options, names).await,
                        names => sidecar.follow(&options, names).await,
                    };
                    if let Err(error) = result {
                        eprintln!("sidecar {index}: {error:#}");
                    }
                    shared.borrow_mut().lost += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        let mut commands = BufReader::new(tokio::io::stdin()).lines();
        while let Some(command) = commands.next_line().await? {
            match command.as_str() {
                "mark" => {
                    shared.borrow_mut().by_type.clear();
                    println!("{{}}");
                }
                "tell" => {
                    let shared = shared.borrow();
                    let types: BTreeMap<&str, serde_json::Value> =
                        shared.by_type.iter().map(|(k, v)| (short(k), told(v))).collect();
                    let all = serde_json::json!({"open": shared.open, "lost": shared.lost, "types": types});
                    println!("{all}");
                }
                other => anyhow::bail!("no such command: {other}"),
            }
        }
        Ok(())
    }

    async fn connect(&self) -> anyhow::Result<Channel> {
        let endpoint = Endpoint::from_shared(self.server.clone())?
            .initial_stream_window_size(16 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        Ok(endpoint.connect().await?)
    }

    fn node(&self, index: usize) -> Node {
        let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
        let labels = self.label.iter().filter_map(|label| label.split_once('='));
        let labels = Struct { fields: labels.map(|(name, value)| (name.to_owned(), text(value))).collect() };
        let ip = format!("10.{}.{}.{}", 200 + index / 65_536, index / 256 % 256, index % 256);
        let fields = [
            ("ISTIO_VERSION", text(&self.istio_version)),
            ("NAMESPACE", text(&self.namespace)),
            ("CLUSTER_ID", text("Kubernetes")),
            ("INSTANCE_IPS", text(&ip)),
            ("NAME", text(&format!("sidecar-{index}"))),
            ("LABELS", Value { kind: Some(Kind::StructValue(labels)) }),
        ];
        let metadata = Struct { fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() };
        let namespace = &self.namespace;
        Node {
            id: format!("sidecar~{ip}~sidecar-{index}.{namespace}~{namespace}.svc.cluster.local"),
            cluster: format!("sidecar.{namespace}"),
            metadata: Some(metadata),
            ..Node::default()
        }
    }
}

fn short(kind: &str) -> &str {
    kind.rsplit('.').next().unwrap_or(kind)
}

fn told(got: &Got) -> serde_json::Value {
    serde_json::json!({
        "responses": got.responses, "resources": got.resources, "bytes": got.bytes, "sidecars": got.sidecars.len(),
        "names": got.names, "all_at": got.all_at, "last_at": got.last_at,
    })
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

struct Sidecar {
    index: usize,
    shared: Rc<RefCell<Shared>>,
    /// Names that were asked for, by type.
    types: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Sidecar {
    async fn follow(&mut self, options: &Sidecars, names: Option<&[String]>) -> anyhow::Result<()> {
        let channel = options.connect().await?;
        let (sender, requests) = mpsc::unbounded_channel();
        let node = Some(options.node(self.index));
        match names {
            Some(names) => {
                sender.send(ask(EXTENSION, names.to_vec(), node))?;
                sender.send(ask(ROUTE, names.to_vec(), None))?;
            }
            None => {
                sender.send(ask(CLUSTER, Vec::new(), node))?;
                sender.send(ask(LISTENER, Vec::new(), None))?;
            }
        }
        let mut client = client(channel);
        let stream = client.delta_aggregated_resources(UnboundedReceiverStream::new(requests)).await?;
        self.converse(stream.into_inner(), &sender, names.is_none()).await
    }

    /// The same, with a stream for each name and type.
    async fn follow_apart(&mut self, options: &Sidecars, names: &[String]) -> anyhow::Result<()> {
        let channel = options.connect().await?;
        let mut streams = Vec::new();
        for (name, kind) in names.iter().flat_map(|name| [(name, EXTENSION), (name, ROUTE)]) {
            let (sender, requests) = mpsc::unbounded_channel();
            sender.send(ask(kind, vec![name.clone()], Some(options.node(self.index))))?;
            let requests = UnboundedReceiverStream::new(requests);
            let stream = match kind {
                ROUTE => RouteDiscoveryServiceClient::new(channel.clone()).delta_routes(requests).await?,
                _ => {
                    let mut client = ExtensionConfigDiscoveryServiceClient::new(channel.clone());
                    client.delta_extension_configs(requests).await?
                }
            };
            let mut one = Self { index: self.index, shared: self.shared.clone(), types: BTreeMap::new() };
            streams
                .push(tokio::task::spawn_local(async move { one.converse(stream.into_inner(), &sender, false).await }));
        }
        for stream in streams {
            stream.await??;
        }
        Ok(())
    }

    async fn converse(
        &mut self,
        mut stream: Streaming<DeltaDiscoveryResponse>,
        sender: &mpsc::UnboundedSender<DeltaDiscoveryRequest>,
        follows: bool,
    ) -> anyhow::Result<()> {
        self.shared.borrow_mut().open += 1;
        let result = loop {
            match stream.message().await {
                Ok(Some(response)) => {
                    for request in self.answers(&response, follows) {
                        sender.send(request)?;
                    }
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(status.into()),
            }
        };
        self.shared.borrow_mut().open -= 1;
        result
    }

    /// Counts a response, takes it, and asks for what it names that is new.
    fn answers(&mut self, response: &DeltaDiscoveryResponse, follows: bool) -> Vec<DeltaDiscoveryRequest> {
        let mut shared = self.shared.borrow_mut();
        let got = shared.by_type.entry(response.type_url.clone()).or_default();
        got.responses += 1;
        got.resources += response.resources.len() as u64;
        got.bytes += response.encoded_len() as u64;
        got.last_at = now();
        if got.sidecars.insert(self.index) {
            got.all_at = got.last_at;
        }
        let few = FEW.saturating_sub(got.names.len());
        got.names.extend(response.resources.iter().take(few).map(|resource| resource.name.clone()));
        drop(shared);
        let mut requests = vec![DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        }];
        if !follows {
            return requests;
        }
        let mut named: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
        let bodies = response.resources.iter().filter_map(|resource| resource.resource.as_ref());
        for body in bodies {
            match response.type_url.as_str() {
                CLUSTER => {
                    let Ok(cluster) = Cluster::decode(body.value.as_slice()) else { continue };
                    let eds = DiscoveryType::Eds as i32;
                    if matches!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(kind)) if kind == eds) {
                        named.entry(ENDPOINTS).or_default().insert(cluster.name);
                    }
                }
                LISTENER => {
                    let Ok(listener) = Listener::decode(body.value.as_slice()) else { continue };
                    for filter in &listener.listener_filters {
                        if let Some(listener_filter::ConfigType::ConfigDiscovery(source)) = &filter.config_type
                            && is_istiods(source.config_source.as_ref())
                        {
                            named.entry(EXTENSION).or_default().insert(filter.name.clone());
                        }
                    }
                    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
                    chains.flat_map(|chain| &chain.filters).for_each(|filter| names_of(filter, &mut named));
                }
                _ => {}
            }
        }
        for (kind, names) in named {
            let known = self.types.entry(kind).or_default();
            let new: Vec<String> = names.into_iter().filter(|name| known.insert(name.clone())).collect();
            if !new.is_empty() {
                requests.push(ask(kind, new, None));
            }
        }
        requests
    }
}

fn ask(kind: &str, names: Vec<String>, node: Option<Node>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.to_owned(),
        resource_names_subscribe: names,
        node,
        ..DeltaDiscoveryRequest::default()
    }
}

/// What a network filter names.
fn names_of(filter: &Filter, named: &mut BTreeMap<&'static str, BTreeSet<String>>) {
    match &filter.config_type {
        Some(filter::ConfigType::ConfigDiscovery(source)) if is_istiods(source.config_source.as_ref()) => {
            named.entry(EXTENSION).or_default().insert(filter.name.clone());
        }
        Some(filter::ConfigType::TypedConfig(config)) if config.type_url.ends_with("HttpConnectionManager") => {
            let Ok(manager) = HttpConnectionManager::decode(config.value.as_slice()) else { return };
            if let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier
                && is_istiods(rds.config_source.as_ref())
            {
                named.entry(ROUTE).or_default().insert(rds.route_config_name);
            }
        }
        _ => {}
    }
}

/// What a listener names is asked for where it says, which is not istiod for what our xDS server has.
fn is_istiods(source: Option<&ConfigSource>) -> bool {
    source.is_some_and(|source| matches!(source.config_source_specifier, Some(ConfigSourceSpecifier::Ads(_))))
}

/// Takes responses of any size, as Envoy does.
fn client<T>(channel: T) -> AggregatedDiscoveryServiceClient<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX)
}
