//! The admin endpoint.

mod show;

use std::{collections::BTreeMap, sync::Arc, sync::atomic::Ordering};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{Html, IntoResponse},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::ConstCounter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::show::show;
use crate::{
    problem::Severity,
    snapshot::TypeUrl,
    store::{Clients, Proxy, Store, Transport},
};

/// Serves it until `shutdown`.
///
/// # Errors
/// If the server fails.
pub async fn serve(
    listener: TcpListener,
    store: Arc<Store>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(store)).with_graceful_shutdown(shutdown).await
}

fn router(store: Arc<Store>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/problems", get(problems))
        .route("/proxies", get(proxies))
        .route("/resources", get(resources))
        .with_state(store)
}

async fn ready(State(store): State<Arc<Store>>) -> impl IntoResponse {
    match (store.now().generation, store.transport()) {
        (0, _) => (StatusCode::SERVICE_UNAVAILABLE, "the sources were not read yet\n"),
        (_, Transport::Tls { ready: false, .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, "the xDS server has no certificate yet\n")
        }
        _ => (StatusCode::OK, "ready\n"),
    }
}

async fn problems(State(store): State<Arc<Store>>) -> Json<Value> {
    Json(json!(*store.now().problems))
}

async fn proxies(State(store): State<Arc<Store>>) -> Json<Value> {
    Json(json!(store.proxies()))
}

/// Which resources are shown; all without a word.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    /// `Cluster`, `Listener`, …, or the type's URL.
    r#type: Option<String>,
    name: Option<String>,
}

/// Names and versions of resources, by type, with what they say.
async fn resources(
    State(store): State<Arc<Store>>,
    Query(choice): Query<Choice>,
) -> Result<Json<BTreeMap<String, Vec<Value>>>, (StatusCode, String)> {
    let snapshot = store.now().snapshot;
    let is = |kind: &TypeUrl, text: &str| format!("{kind:?}").eq_ignore_ascii_case(text) || kind.as_str() == text;
    let wanted = |kind: &TypeUrl| choice.r#type.as_ref().is_none_or(|text| is(kind, text));
    let kinds: Vec<TypeUrl> = TypeUrl::ALL.into_iter().filter(wanted).collect();
    if kinds.is_empty() {
        let known = TypeUrl::ALL.map(|kind| format!("{kind:?}")).join(", ");
        return Err((StatusCode::BAD_REQUEST, format!("there is no such type; there are: {known}\n")));
    }
    let of = |kind: TypeUrl| {
        let resources = snapshot.of(kind).filter(|r| choice.name.as_ref().is_none_or(|name| *r.name == **name));
        resources.map(|r| json!({"name": &*r.name, "version": &*r.version, "content": show(&r.any)})).collect()
    };
    Ok(Json(kinds.into_iter().map(|kind| (format!("{kind:?}"), of(kind))).collect()))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Label {
    kind: String,
}

/// What Prometheus must be told, so that it reads the text as what it is.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn metrics(State(store): State<Arc<Store>>) -> impl IntoResponse {
    let world = store.now();
    let mut registry = Registry::with_prefix("meltemi");
    let gauge = |registry: &mut Registry, name: &str, help: &str, value: usize| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    let errors = world.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    gauge(&mut registry, "problems", "Errors in the sources", errors);
    gauge(&mut registry, "warnings", "Warnings about the sources", world.problems.len().saturating_sub(errors));
    let proxies = store.proxies();
    gauge(&mut registry, "proxies", "Proxies connected", proxies.len());
    gauge(
        &mut registry,
        "proxies_refusing",
        "Proxies that refuse something",
        proxies.iter().filter(|p| refuses(p)).count(),
    );
    let (tls, bad) = match store.transport() {
        Transport::Plain => (0, 0),
        Transport::Tls { problem, .. } => (1, usize::from(problem.is_some())),
    };
    gauge(&mut registry, "xds_tls", "1: the xDS server speaks TLS alone", tls);
    gauge(&mut registry, "xds_certificate_problems", "1: the files of its certificate are wrong", bad);
    let family = Family::<Label, Gauge>::default();
    for kind in TypeUrl::ALL {
        let label = Label { kind: format!("{kind:?}") };
        family.get_or_create(&label).set(i64::try_from(world.snapshot.count(kind)).unwrap_or(i64::MAX));
    }
    registry.register("resources", "Resources served", family);
    let count = |value: &std::sync::atomic::AtomicU64| ConstCounter::new(value.load(Ordering::Relaxed));
    registry.register("pushes", "Responses sent to proxies", count(&store.pushes));
    registry.register("nacks", "Configurations that proxies refused", count(&store.nacks));
    let refused = count(&store.refused_connections);
    registry.register("xds_refused_connections", "Connections to the xDS server that TLS refused", refused);
    registry.register("generation", "Times that the sources were published", ConstCounter::new(world.generation));
    let mut out = String::new();
    match text::encode(&mut out, &registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], out).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn refuses(proxy: &Proxy) -> bool {
    proxy.types.values().any(|state| state.error.is_some())
}

/// How proxies reach us, in words.
fn transport(store: &Store) -> String {
    let Transport::Tls { clients, problem, .. } = store.transport() else {
        return "WITHOUT TLS: whoever reaches the port is served".to_owned();
    };
    let mut text = match clients {
        Clients::Anyone => "TLS; whoever reaches the port is served".to_owned(),
        Clients::Certificate => "TLS; proxies must show a certificate".to_owned(),
        Clients::Identity(ids) => format!("TLS; proxies must show a certificate as {}", ids.join(" or ")),
    };
    if let Some(problem) = problem {
        text += &format!(". WRONG: {problem}");
    }
    text
}

async fn index(State(store): State<Arc<Store>>) -> Html<String> {
    let world = store.now();
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let problems: String =
        world.problems.iter().map(|problem| format!("<li><code>{}</code>\n", escape(&problem.to_string()))).collect();
    let proxies: String = store
        .proxies()
        .iter()
        .map(|proxy| {
            let types: String = proxy
                .types
                .iter()
                .map(|(kind, state)| {
                    let mark = match &state.error {
                        Some(error) => format!("refused: {}", escape(error)),
                        None if state.acked == state.sent => "in sync".to_owned(),
                        None => "sent".to_owned(),
                    };
                    format!("<br>{kind:?}: {mark}")
                })
                .collect();
            format!("<tr><td>{}<td>{}<td>{}<td>{types}\n", escape(&proxy.node), escape(&proxy.version), proxy.protocol)
        })
        .collect();
    let resources: String =
        TypeUrl::ALL.into_iter().map(|kind| format!("<tr><td>{kind:?}<td>{}\n", world.snapshot.count(kind))).collect();
    let transport = escape(&transport(&store));
    let none = |text: String| if text.is_empty() { "<p>none".to_owned() } else { text };
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>Meltemi</title>\
         <style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}\
         table{{border-collapse:collapse}}td,th{{border:1px solid #ccc;padding:.3rem .7rem;text-align:left;vertical-align:top}}\
         code{{white-space:pre-wrap}}</style>\
         <h1>Meltemi</h1><p>Generation {}. <a href=/problems>problems</a> · <a href=/proxies>proxies</a> · \
         <a href=/resources>resources</a> · <a href=/metrics>metrics</a> · <a href=/healthz>health</a> · \
         <a href=/readyz>readiness</a>\
         <p>xDS: {transport}\
         <h2>Problems</h2><ul>{}</ul><h2>Proxies</h2><table><tr><th>node<th>version<th>protocol<th>state\n{proxies}</table>\
         <h2>Resources</h2><table>{resources}</table>",
        world.generation,
        none(problems),
    ))
}
