//! A port of ours → a listener: inlet and HTTP connection manager.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::{
        accesslog::v3::{
            AccessLog, AccessLogFilter, ComparisonFilter, StatusCodeFilter, access_log,
            access_log_filter::FilterSpecifier, comparison_filter::Op,
        },
        core::v3::{
            DataSource, ExtensionConfigSource, HeaderValue, HeaderValueOption, Http2ProtocolOptions,
            HttpProtocolOptions, RuntimeUInt32, SubstitutionFormatString, data_source::Specifier,
            header_value_option::HeaderAppendAction, substitution_format_string::Format,
        },
        listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
    },
    extensions::{
        access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
        filters::{
            http::{
                fault::v3::HttpFault, local_ratelimit::v3::LocalRateLimit as LocalFilter,
                ratelimit::v3::RateLimit as GlobalFilter, router::v3::Router,
            },
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter, LocalReplyConfig, Rds, ResponseMapper,
                http_connection_manager::{
                    CodecType, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
                },
                http_filter,
            },
        },
    },
};
use meltemi_engine::{config::InletConfig, names};
use prost::{Message, Name};

use super::{
    Host, Output, cluster,
    limits::{LOCAL_FILTER, Limits},
    packing::{ads, any, boolean, number, span},
    router, routes,
    services::{Port, Protocol, Services},
    tls,
};
use crate::{
    model::{MetaRouter, Mode, Object},
    problem::Problem,
    snapshot::TypeUrl,
};

pub(super) const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// Annotation of a service: file that gets a line for each request; `/dev/stdout` for the console.
const ACCESS_LOG: &str = "meltemi.dev/access-log";
const ACCESS_LOG_FORMAT: &str = "%START_TIME% %REQ(x-meltemi-protocol)% %REQ(:path)% %RESPONSE_CODE% %RESPONSE_FLAGS% \
    %RESP(x-meltemi-reply)% route=%ROUTE_NAME% upstream=%UPSTREAM_HOST% cluster=%UPSTREAM_CLUSTER% %DURATION%ms\n";

/// Adds the listener of a port, with its routes and filters.
pub(super) fn add(
    port: &Port,
    router: Option<&Object<MetaRouter>>,
    services: &Services<'_>,
    output: &mut Output,
    problems: &mut Vec<Problem>,
) {
    let Some(protocol) = &port.protocol else { return };
    let transport_socket = match tls::downstream(port, output) {
        Ok(socket) => socket,
        Err((field, reason)) => {
            // Not without TLS: no listener.
            problems.push(port.origin.error(field, reason));
            return;
        }
    };
    let name = format!("{}:{}", port.host, port.number);
    let filters = match protocol.mode {
        Mode::Request => request_filters(&name, port, protocol, router, services, output, problems),
        Mode::Connection => {
            let (config, proxy) = router::filters(&name, port, protocol, router, services, problems);
            let relay = format!("relay|{name}");
            add_filter(&relay, "relay", &config, output);
            vec![discovered(&relay, &output.host), plain("envoy.filters.network.tcp_proxy", &proxy)]
        }
    };
    let chain = FilterChain { name: name.clone(), filters, transport_socket, ..FilterChain::default() };
    let listener = Listener {
        name: name.clone(),
        address: cluster::socket_address(&port.address.to_string(), port.number),
        filter_chains: vec![chain],
        stat_prefix: name.clone(),
        per_connection_buffer_high_watermark_timeout: output.host.unread(),
        ..Listener::default()
    };
    output.add(TypeUrl::Listener, &name, &listener);
}

fn request_filters(
    name: &str,
    port: &Port,
    protocol: &Protocol,
    router: Option<&Object<MetaRouter>>,
    services: &Services<'_>,
    output: &mut Output,
    problems: &mut Vec<Problem>,
) -> Vec<Filter> {
    let limits = Limits::new(router, protocol, services, problems);
    let routes = routes::configuration(name, port, protocol, router, &limits, services, problems);
    output.add(TypeUrl::Route, name, &routes);
    if let Some(service) = limits.service().and_then(|(host, number)| services.port(host, *number)) {
        cluster::add_service(service, services, output, problems);
    }
    let config = InletConfig { authority: Some(port.host.clone()), ..protocol.inlet() };
    let inlet = format!("inlet|{name}");
    add_filter(&inlet, "inlet", &config, output);
    let mut manager = manager(name, &output.host, port, limits.local_filter(), limits.global_filter());
    let rds = Rds { config_source: ads(), route_config_name: name.to_owned() };
    manager.route_specifier = Some(RouteSpecifier::Rds(rds));
    vec![discovered(&inlet, &output.host), plain("envoy.filters.network.http_connection_manager", &manager)]
}

/// Adds the configuration of one of our network filters.
pub(super) fn add_filter<T: serde::Serialize>(name: &str, filter: &str, config: &T, output: &mut Output) {
    let filter = output.host.network_filter(name, filter, config);
    output.add(TypeUrl::ExtensionConfig, name, &filter);
}

/// A network filter whose configuration comes by ECDS: a module that is missing then costs this chain, not the listener.
pub(super) fn discovered(name: &str, host: &Host) -> Filter {
    let source = ExtensionConfigSource {
        config_source: ads(),
        type_urls: vec![host.type_url()],
        ..ExtensionConfigSource::default()
    };
    Filter { name: name.to_owned(), config_type: Some(ConfigType::ConfigDiscovery(source)) }
}

pub(super) fn plain<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.to_owned(), config_type: any(config).map(ConfigType::TypedConfig) }
}

/// A manager whose routes are still to come.
pub(super) fn manager(
    name: &str,
    host: &Host,
    port: &Port,
    local: Option<LocalFilter>,
    global: Option<&GlobalFilter>,
) -> HttpConnectionManager {
    HttpConnectionManager {
        http_filters: http_filters(local, global),
        access_log: port.annotations.get(ACCESS_LOG).map(|path| access_log(path)).into_iter().collect(),
        ..bare_manager(name, host)
    }
}

/// What all managers behind an inlet have in common.
pub(super) fn bare_manager(name: &str, host: &Host) -> HttpConnectionManager {
    let never = span(Duration::ZERO);
    let mut manager = HttpConnectionManager {
        stat_prefix: name.to_owned(),
        codec_type: CodecType::Http2.into(),
        local_reply_config: Some(local_replies()),
        http2_protocol_options: Some(Http2ProtocolOptions {
            // The inlet bounds its requests itself; its windows are memory only while bytes are in them.
            max_concurrent_streams: number(0x7fff_ffff),
            initial_stream_window_size: number(1024 * 1024),
            initial_connection_window_size: number(4 * 1024 * 1024),
            ..Http2ProtocolOptions::default()
        }),
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: never,
            max_headers_count: number(200),
            ..HttpProtocolOptions::default()
        }),
        max_request_headers_kb: number(96),
        // The protocol's clients have their own idea of how long is too long; routes may have one.
        stream_idle_timeout: never,
        request_timeout: never,
        generate_request_id: boolean(false),
        skip_xff_append: true,
        server_header_transformation: ServerHeaderTransformation::PassThrough.into(),
        // Paths are names here, not files: nothing is to be cleaned up in them.
        normalize_path: boolean(false),
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged.into(),
        ..HttpConnectionManager::default()
    };
    host.adapt(&mut manager);
    manager
}

fn http_filters(local: Option<LocalFilter>, global: Option<&GlobalFilter>) -> Vec<HttpFilter> {
    let mut filters = vec![http_filter(FAULT_FILTER, &HttpFault::default())];
    if let Some(local) = local {
        filters.push(http_filter(LOCAL_FILTER, &local));
    }
    if let Some(global) = global {
        filters.push(http_filter("envoy.filters.http.ratelimit", global));
    }
    let router = Router { suppress_envoy_headers: true, dynamic_stats: boolean(false), ..Router::default() };
    filters.push(http_filter("envoy.filters.http.router", &router));
    filters
}

pub(super) fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: any(config).map(http_filter::ConfigType::TypedConfig),
        ..HttpFilter::default()
    }
}

/// Marks Envoy's own replies with what they mean, for the inlet.
fn local_replies() -> LocalReplyConfig {
    let every = StatusCodeFilter {
        comparison: Some(ComparisonFilter {
            op: Op::Ge.into(),
            value: Some(RuntimeUInt32 { default_value: 100, runtime_key: "meltemi.local_reply".to_owned() }),
        }),
    };
    let header = |name: &str, value: &str| HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    };
    let mapper = ResponseMapper {
        filter: Some(AccessLogFilter { filter_specifier: Some(FilterSpecifier::StatusCodeFilter(every)) }),
        headers_to_add: vec![
            header(names::DETAILS, "%RESPONSE_CODE_DETAILS%"),
            header(names::FLAGS, "%RESPONSE_FLAGS%"),
        ],
        ..ResponseMapper::default()
    };
    LocalReplyConfig { mappers: vec![mapper], ..LocalReplyConfig::default() }
}

pub(super) fn access_log(path: &str) -> AccessLog {
    let line =
        DataSource { specifier: Some(Specifier::InlineString(ACCESS_LOG_FORMAT.to_owned())), ..DataSource::default() };
    let format = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(line)),
        ..SubstitutionFormatString::default()
    };
    let file = FileAccessLog { path: path.to_owned(), access_log_format: Some(AccessLogFormat::LogFormat(format)) };
    AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: any(&file).map(access_log::ConfigType::TypedConfig),
        ..AccessLog::default()
    }
}
