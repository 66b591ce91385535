//! Messages of ours as protobuf's JSON, which is how istiod takes them: as far as we set their fields.

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog, access_log, access_log_filter::FilterSpecifier},
            core::v3::{
                ConfigSource, HeaderValueOption, Http2ProtocolOptions, HttpProtocolOptions,
                config_source::ConfigSourceSpecifier, data_source, grpc_service::TargetSpecifier,
                substitution_format_string::Format,
            },
        },
        extensions::{
            access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            filters::network::{
                http_connection_manager::v3::{HttpConnectionManager, ResponseMapper},
                tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
            },
        },
        r#type::v3::hash_policy::PolicySpecifier,
    },
    google::protobuf::{BoolValue, Duration, UInt32Value},
};
use prost::{Message, Name};
use serde_json::{Map, Value, json};

use super::patch::{HCM_TYPE, TCP_PROXY_TYPE};

pub(super) fn tcp_proxy(proxy: &TcpProxy) -> Value {
    let by_source = proxy.hash_policy.iter().filter_map(|policy| match policy.policy_specifier {
        Some(PolicySpecifier::SourceIp(_)) => Some(json!({"source_ip": {}})),
        _ => None,
    });
    let cluster = match &proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(cluster)) => Some(json!(cluster)),
        _ => None,
    };
    message([
        ("@type", Some(json!(TCP_PROXY_TYPE))),
        ("stat_prefix", Some(json!(proxy.stat_prefix))),
        ("cluster", cluster),
        ("upstream_connect_mode", Some(json!(proxy.upstream_connect_mode().as_str_name()))),
        ("max_early_data_bytes", number(proxy.max_early_data_bytes)),
        ("idle_timeout", span(proxy.idle_timeout)),
        ("hash_policy", Some(by_source.collect())),
        ("access_log", Some(proxy.access_log.iter().filter_map(access_log).collect())),
    ])
}

/// A manager, but for its routes, filters and access logs.
pub(super) fn manager(manager: &HttpConnectionManager) -> Value {
    let mappers = manager.local_reply_config.iter().flat_map(|config| &config.mappers);
    message([
        ("@type", Some(json!(HCM_TYPE))),
        ("stat_prefix", Some(json!(manager.stat_prefix))),
        ("codec_type", Some(json!(manager.codec_type().as_str_name()))),
        ("http2_protocol_options", manager.http2_protocol_options.as_ref().map(http2)),
        ("common_http_protocol_options", manager.common_http_protocol_options.as_ref().map(http)),
        ("max_request_headers_kb", number(manager.max_request_headers_kb)),
        ("stream_idle_timeout", span(manager.stream_idle_timeout)),
        ("request_timeout", span(manager.request_timeout)),
        ("generate_request_id", boolean(manager.generate_request_id)),
        ("skip_xff_append", Some(json!(manager.skip_xff_append))),
        ("normalize_path", boolean(manager.normalize_path)),
        ("path_with_escaped_slashes_action", Some(json!(manager.path_with_escaped_slashes_action().as_str_name()))),
        ("server_header_transformation", Some(json!(manager.server_header_transformation().as_str_name()))),
        ("local_reply_config", Some(json!({"mappers": mappers.map(mapper).collect::<Vec<_>>()}))),
    ])
}

fn http2(options: &Http2ProtocolOptions) -> Value {
    message([
        ("max_concurrent_streams", number(options.max_concurrent_streams)),
        ("initial_stream_window_size", number(options.initial_stream_window_size)),
        ("initial_connection_window_size", number(options.initial_connection_window_size)),
    ])
}

fn http(options: &HttpProtocolOptions) -> Value {
    message([("idle_timeout", span(options.idle_timeout)), ("max_headers_count", number(options.max_headers_count))])
}

/// Adds headers to local replies, by their status.
fn mapper(mapper: &ResponseMapper) -> Value {
    let comparison = match mapper.filter.as_ref().and_then(|filter| filter.filter_specifier.as_ref()) {
        Some(FilterSpecifier::StatusCodeFilter(filter)) => filter.comparison.as_ref(),
        _ => None,
    };
    let filter = comparison.and_then(|comparison| {
        let value = comparison.value.as_ref()?;
        let value = json!({"default_value": value.default_value, "runtime_key": value.runtime_key});
        Some(json!({"status_code_filter": {"comparison": {"op": comparison.op().as_str_name(), "value": value}}}))
    });
    let header = |option: &HeaderValueOption| {
        let header = option.header.as_ref()?;
        Some(json!({
            "header": {"key": header.key, "value": header.value},
            "append_action": option.append_action().as_str_name(),
        }))
    };
    message([("filter", filter), ("headers_to_add", Some(mapper.headers_to_add.iter().filter_map(header).collect()))])
}

/// An xDS server of its own.
pub(super) fn config_source(source: &ConfigSource) -> Value {
    let Some(ConfigSourceSpecifier::ApiConfigSource(api)) = &source.config_source_specifier else {
        return Value::Null;
    };
    let services = api.grpc_services.iter().filter_map(|service| match &service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => Some(json!({"envoy_grpc": {"cluster_name": envoy.cluster_name}})),
        _ => None,
    });
    let api = json!({
        "api_type": api.api_type().as_str_name(),
        "transport_api_version": api.transport_api_version().as_str_name(),
        "grpc_services": services.collect::<Vec<_>>(),
    });
    message([
        ("api_config_source", Some(api)),
        ("initial_fetch_timeout", span(source.initial_fetch_timeout)),
        ("resource_api_version", Some(json!(source.resource_api_version().as_str_name()))),
    ])
}

/// One in a file, with a format of its own.
fn access_log(log: &AccessLog) -> Option<Value> {
    let Some(access_log::ConfigType::TypedConfig(any)) = &log.config_type else { return None };
    let FileAccessLog { path, access_log_format } = FileAccessLog::decode(any.value.as_slice()).ok()?;
    let Some(AccessLogFormat::LogFormat(format)) = access_log_format else { return None };
    let Some(Format::TextFormatSource(source)) = format.format else { return None };
    let Some(data_source::Specifier::InlineString(line)) = source.specifier else { return None };
    Some(json!({"name": log.name, "typed_config": {
        "@type": FileAccessLog::type_url(),
        "path": path,
        "log_format": {"text_format_source": {"inline_string": line}},
    }}))
}

/// The fields that are there.
fn message<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let there = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

fn number(value: Option<UInt32Value>) -> Option<Value> {
    value.map(|number| json!(number.value))
}

fn boolean(value: Option<BoolValue>) -> Option<Value> {
    value.map(|flag| json!(flag.value))
}

fn span(duration: Option<Duration>) -> Option<Value> {
    let of = |Duration { seconds, nanos }: Duration| match nanos {
        0 => format!("{seconds}s"),
        nanos => format!("{seconds}.{nanos:09}s"),
    };
    duration.map(|duration| json!(of(duration)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Code, Host, mesh};

    fn hosts() -> [Host; 2] {
        [Host::Module, Host::Wasm(Code::File("/m.wasm".to_owned()))]
    }

    /// What is set and not in the JSON would be another manager while we are away.
    #[test]
    fn no_field_of_a_manager_is_left_out() {
        for host in hosts() {
            let bare = mesh::bare_manager(&host, "name");
            let rest = Http2ProtocolOptions {
                max_concurrent_streams: None,
                initial_stream_window_size: None,
                initial_connection_window_size: None,
                ..bare.http2_protocol_options.clone().unwrap()
            };
            assert_eq!(rest, Http2ProtocolOptions::default());
            let rest = HttpProtocolOptions {
                idle_timeout: None,
                max_headers_count: None,
                ..bare.common_http_protocol_options.unwrap()
            };
            assert_eq!(rest, HttpProtocolOptions::default());
            let replies = bare.local_reply_config.clone().unwrap();
            assert_eq!(replies.body_format, None);
            for mapper in replies.mappers {
                let rest = ResponseMapper { filter: None, headers_to_add: Vec::new(), ..mapper };
                assert_eq!(rest, ResponseMapper::default());
            }
            let rest = HttpConnectionManager {
                stat_prefix: String::new(),
                codec_type: 0,
                http2_protocol_options: None,
                common_http_protocol_options: None,
                max_request_headers_kb: None,
                stream_idle_timeout: None,
                request_timeout: None,
                generate_request_id: None,
                skip_xff_append: false,
                normalize_path: None,
                path_with_escaped_slashes_action: 0,
                server_header_transformation: 0,
                local_reply_config: None,
                ..bare
            };
            assert_eq!(rest, HttpConnectionManager::default());
        }
    }

    #[test]
    fn a_manager_reads_as_envoy_reads_it() {
        let [module, wasm] = hosts().map(|host| manager(&mesh::bare_manager(&host, "name")));
        assert_eq!((&module["stat_prefix"], &module["codec_type"]), (&json!("name"), &json!("HTTP2")));
        assert_eq!(module["common_http_protocol_options"], json!({"idle_timeout": "0s", "max_headers_count": 200}));
        assert_eq!((&module["generate_request_id"], &module["skip_xff_append"]), (&json!(false), &json!(true)));
        assert_eq!(module["path_with_escaped_slashes_action"], "KEEP_UNCHANGED");
        let mapper = &module["local_reply_config"]["mappers"][0];
        let value = json!({"default_value": 100, "runtime_key": "meltemi.local_reply"});
        assert_eq!(mapper["filter"]["status_code_filter"]["comparison"], json!({"op": "GE", "value": value}));
        let header = json!({"key": meltemi_engine::names::FLAGS, "value": "%RESPONSE_FLAGS%"});
        let overwrite = "OVERWRITE_IF_EXISTS_OR_ADD";
        assert_eq!(mapper["headers_to_add"][1], json!({"header": header, "append_action": overwrite}));
        let window = |manager: &Value| manager["http2_protocol_options"]["initial_stream_window_size"].as_u64();
        assert!(window(&wasm) > window(&module), "as the plugin needs it");
    }

    #[test]
    fn our_server_is_a_source() {
        assert_eq!(
            config_source(&mesh::ours()),
            json!({
                "api_config_source": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "meltemi_xds"}}],
                },
                "initial_fetch_timeout": "2s",
                "resource_api_version": "V3",
            })
        );
    }
}
