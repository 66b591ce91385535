//! Small things that protobuf makes long.

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            AggregatedConfigSource, ApiVersion, ConfigSource, RuntimeFractionalPercent, TypedExtensionConfig,
            config_source::ConfigSourceSpecifier,
        },
        extensions::dynamic_modules::v3::DynamicModuleConfig,
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::{Any, BoolValue, Duration as ProtoDuration, StringValue, UInt32Value},
};
use prost::{Message, Name};
use serde::Serialize;

use super::MODULE;
use crate::model::Percent;

pub(super) fn any<M: Message + Name>(message: &M) -> Option<Any> {
    Some(Any { type_url: M::type_url(), value: message.encode_to_vec() })
}

pub(super) fn extension<M: Message + Name>(name: &str, message: &M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: any(message) }
}

pub(super) fn span(duration: Duration) -> Option<ProtoDuration> {
    Some(ProtoDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    })
}

pub(super) const fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(super) const fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// "From the server that this comes from".
pub(super) fn ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    })
}

pub(super) fn module() -> Option<DynamicModuleConfig> {
    // A module with threads of its own must not be unloaded under them.
    Some(DynamicModuleConfig { name: MODULE.to_owned(), do_not_close: true, ..DynamicModuleConfig::default() })
}

/// Configuration of one of our filters. As a string and not as a Struct, whose fields have no order: the version of a
/// resource is a hash of its bytes.
pub(super) fn filter_config<T: Serialize>(config: &T) -> Option<Any> {
    let value = serde_json::to_string(config).unwrap_or_default();
    Some(Any {
        type_url: "type.googleapis.com/google.protobuf.StringValue".to_owned(),
        value: StringValue { value }.encode_to_vec(),
    })
}

/// A share in millionths; all if there is none.
pub(super) fn fraction(percent: Option<Percent>) -> FractionalPercent {
    let value = percent.map_or(100.0, |percent| percent.value).clamp(0.0, 100.0);
    FractionalPercent { numerator: (value * 10_000.0).round() as u32, denominator: DenominatorType::Million.into() }
}

pub(super) fn runtime_fraction(percent: Option<Percent>) -> Option<RuntimeFractionalPercent> {
    Some(RuntimeFractionalPercent { default_value: Some(fraction(percent)), runtime_key: String::new() })
}
