//! Messages of ours as protobuf's JSON, which is how istiod takes them: as far as we set their fields.

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog, access_log},
            core::v3::{data_source, substitution_format_string::Format},
        },
        extensions::{
            access_loggers::file::v3::{FileAccessLog, file_access_log::AccessLogFormat},
            filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy::ClusterSpecifier},
        },
        r#type::v3::hash_policy::PolicySpecifier,
    },
    google::protobuf::Duration,
};
use prost::{Message, Name};
use serde_json::{Value, json};

use super::patch::TCP_PROXY_TYPE;

pub(super) fn tcp_proxy(proxy: &TcpProxy) -> Value {
    let by_source = proxy.hash_policy.iter().filter_map(|policy| match policy.policy_specifier {
        Some(PolicySpecifier::SourceIp(_)) => Some(json!({"source_ip": {}})),
        _ => None,
    });
    let mut json = json!({
        "@type": TCP_PROXY_TYPE,
        "stat_prefix": proxy.stat_prefix,
        "upstream_connect_mode": proxy.upstream_connect_mode().as_str_name(),
        "hash_policy": by_source.collect::<Vec<_>>(),
        "access_log": proxy.access_log.iter().filter_map(access_log).collect::<Vec<_>>(),
    });
    if let Some(ClusterSpecifier::Cluster(cluster)) = &proxy.cluster_specifier {
        json["cluster"] = json!(cluster);
    }
    if let Some(bytes) = proxy.max_early_data_bytes {
        json["max_early_data_bytes"] = json!(bytes.value);
    }
    if let Some(timeout) = proxy.idle_timeout {
        json["idle_timeout"] = span(timeout);
    }
    json
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

fn span(duration: Duration) -> Value {
    json!(format!("{}.{:09}s", duration.seconds, duration.nanos))
}
