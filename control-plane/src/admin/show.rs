//! Resources as JSON. Protobuf's own JSON needs descriptors, which the crate of the types does not hand out; what it does
//! hand out is Rust's debug format, which has all fields by name. That is read here, packed messages and all.

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster, core::v3::TypedExtensionConfig, endpoint::v3::ClusterLoadAssignment,
            listener::v3::Listener, route::v3::RouteConfiguration,
        },
        extensions::{
            access_loggers::file::v3::FileAccessLog,
            filters::{
                http::{
                    fault::v3::HttpFault, local_ratelimit::v3::LocalRateLimit, ratelimit::v3::RateLimit,
                    router::v3::Router,
                },
                network::{
                    dynamic_modules::v3::DynamicModuleNetworkFilter,
                    http_connection_manager::v3::HttpConnectionManager, tcp_proxy::v3::TcpProxy,
                },
            },
            retry::host::previous_hosts::v3::PreviousHostsPredicate,
            transport_sockets::tls::v3::{DownstreamTlsContext, Secret, UpstreamTlsContext},
            upstreams::{
                http::{dynamic_modules::v3::Config as BridgeConfig, v3::HttpProtocolOptions},
                tcp::v3::TcpProtocolOptions,
            },
        },
    },
    google::protobuf::{Any, StringValue},
};
use prost::{Message, Name};
use serde_json::{Map, Value, json};

/// Messages in messages that are shown.
const MAX_DEPTH: usize = 16;

/// A packed message as JSON: its type under `@type`, and the fields that are set.
pub(super) fn show(any: &Any) -> Value {
    packed(&any.type_url, &any.value, 0)
}

fn packed(type_url: &str, bytes: &[u8], depth: usize) -> Value {
    let unpack = UNPACK.iter().find(|(url, _)| url() == type_url).map(|(_, unpack)| unpack);
    let mut fields = match unpack.filter(|_| depth < MAX_DEPTH).map(|unpack| unpack(bytes, depth)) {
        Some(Ok(Value::Object(fields))) => fields,
        Some(Ok(value)) => Map::from_iter([("value".to_owned(), value)]),
        Some(Err(reason)) => Map::from_iter([("error".to_owned(), json!(reason))]),
        None => Map::from_iter([("bytes".to_owned(), json!(bytes.len()))]),
    };
    fields.insert("@type".to_owned(), json!(type_url));
    Value::Object(fields)
}

type Unpack = fn(&[u8], usize) -> Result<Value, String>;

/// A type's URL, and how its messages are read.
type Known = (fn() -> String, Unpack);

fn unpack<M: Message + Default + std::fmt::Debug>(bytes: &[u8], depth: usize) -> Result<Value, String> {
    let message = M::decode(bytes).map_err(|error| error.to_string())?;
    let text = format!("{message:?}");
    let mut reader = Reader { text: &text, depth };
    Ok(reader.value())
}

/// Our own filters' configuration is JSON in a string.
fn text(bytes: &[u8], _: usize) -> Result<Value, String> {
    let StringValue { value } = StringValue::decode(bytes).map_err(|error| error.to_string())?;
    Ok(json!({"value": serde_json::from_str::<Value>(&value).unwrap_or(Value::String(value))}))
}

const fn known<M: Message + Default + Name + std::fmt::Debug>() -> Known {
    (M::type_url, unpack::<M>)
}

/// All messages that are packed into others.
const UNPACK: &[Known] = &[
    known::<Secret>(),
    known::<Cluster>(),
    known::<ClusterLoadAssignment>(),
    known::<Listener>(),
    known::<TypedExtensionConfig>(),
    known::<RouteConfiguration>(),
    known::<HttpConnectionManager>(),
    known::<TcpProxy>(),
    known::<DynamicModuleNetworkFilter>(),
    known::<HttpFault>(),
    known::<LocalRateLimit>(),
    known::<RateLimit>(),
    known::<Router>(),
    known::<FileAccessLog>(),
    known::<PreviousHostsPredicate>(),
    known::<DownstreamTlsContext>(),
    known::<UpstreamTlsContext>(),
    known::<BridgeConfig>(),
    known::<HttpProtocolOptions>(),
    known::<TcpProtocolOptions>(),
    (|| "type.googleapis.com/google.protobuf.StringValue".to_owned(), text),
];

/// Reads Rust's debug format. Nothing in it is foreign: the formatter wrote it of a message of ours.
struct Reader<'t> {
    text: &'t str,
    depth: usize,
}

impl Reader<'_> {
    fn skip(&mut self) {
        self.text = self.text.trim_start();
    }

    fn eat(&mut self, sign: char) -> bool {
        self.skip();
        match self.text.strip_prefix(sign) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> String {
        self.skip();
        let end = self.text.find(|c: char| !(c.is_alphanumeric() || "_.+-#".contains(c))).unwrap_or(self.text.len());
        // Whatever else there is, it is passed.
        let end = if end == 0 { self.text.chars().next().map_or(0, char::len_utf8) } else { end };
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        word.to_owned()
    }

    fn value(&mut self) -> Value {
        self.skip();
        match self.text.chars().next() {
            Some('"') => Value::String(self.string()),
            Some('[') => self.list(),
            Some('{') => Value::Object(self.map()),
            _ => {
                let word = self.word();
                self.after(word)
            }
        }
    }

    /// What begins with this word: a number, a message, a variant.
    fn after(&mut self, word: String) -> Value {
        if self.eat('(') {
            let value = self.value();
            self.eat(',');
            self.eat(')');
            return if word == "Some" { value } else { json!({snake_case(&word): value}) };
        }
        if word != "None" && self.text.trim_start().starts_with('{') {
            let fields = self.fields();
            return self.message(&word, fields);
        }
        match word.as_str() {
            "None" => Value::Null,
            "true" => json!(true),
            "false" => json!(false),
            _ => serde_json::from_str(&word).unwrap_or(Value::String(word)),
        }
    }

    fn string(&mut self) -> String {
        let mut out = String::new();
        let mut chars = self.text.char_indices().skip(1);
        let mut end = self.text.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some('r') => out.push('\r'),
                    Some('0') => out.push('\0'),
                    Some('u') => {
                        let digits: String = chars.by_ref().map(|(_, c)| c).skip(1).take_while(|c| *c != '}').collect();
                        out.extend(u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32));
                    }
                    Some(c) => out.push(c),
                    None => break,
                },
                c => out.push(c),
            }
        }
        self.text = self.text.get(end..).unwrap_or_default();
        out
    }

    fn list(&mut self) -> Value {
        self.eat('[');
        let mut all = Vec::new();
        while !self.eat(']') && !self.text.is_empty() {
            all.push(self.value());
            self.eat(',');
        }
        Value::Array(all)
    }

    /// `{key: value, ...}`, of a map.
    fn map(&mut self) -> Map<String, Value> {
        self.eat('{');
        let mut all = Map::new();
        while !self.eat('}') && !self.text.is_empty() {
            let key = match self.value() {
                Value::String(key) => key,
                other => other.to_string(),
            };
            self.eat(':');
            all.insert(key, self.value());
            self.eat(',');
        }
        all
    }

    /// `{ name: value, ... }`, of a message; what is not set is left out.
    fn fields(&mut self) -> Map<String, Value> {
        self.eat('{');
        let mut all = Map::new();
        while !self.eat('}') && !self.text.is_empty() {
            let name = self.word();
            self.eat(':');
            self.skip();
            // One of several, by the name of the one: the field that holds it is none of protobuf's.
            let one_of = self.text.strip_prefix("Some(").is_some_and(|rest| {
                let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(0);
                end > 0 && rest.get(end..).is_some_and(|rest| rest.starts_with('('))
            });
            let is_map = self.text.starts_with('{');
            let value = self.value();
            self.eat(',');
            match value {
                Value::Object(one) if one_of => all.extend(one),
                Value::Object(map) if is_map && map.is_empty() => {}
                value if is_default(&value) => {}
                value => {
                    all.insert(name.trim_start_matches("r#").to_owned(), value);
                }
            }
        }
        all
    }

    fn message(&self, name: &str, fields: Map<String, Value>) -> Value {
        let of = |field: &str| fields.get(field).and_then(Value::as_i64).unwrap_or(0);
        match name {
            "Any" => {
                let bytes = fields.get("value").and_then(Value::as_array).into_iter().flatten();
                let bytes: Vec<u8> =
                    bytes.filter_map(Value::as_u64).filter_map(|byte| u8::try_from(byte).ok()).collect();
                packed(fields.get("type_url").and_then(Value::as_str).unwrap_or_default(), &bytes, self.depth + 1)
            }
            "UInt32Value" | "UInt64Value" | "DoubleValue" => fields.get("value").cloned().unwrap_or(json!(0)),
            "BoolValue" => fields.get("value").cloned().unwrap_or(json!(false)),
            "Duration" => match of("nanos") {
                0 => json!(format!("{}s", of("seconds"))),
                nanos => json!(format!("{}.{nanos:09}s", of("seconds")).replace("000000s", "s")),
            },
            _ => Value::Object(fields),
        }
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        // A message that is there and says nothing is still there; prost shows an absent one as `None`.
        Value::Bool(true) | Value::Object(_) => false,
    }
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for (index, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::{
        envoy::config::{
            cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy},
            core::v3::Metadata,
            route::v3::{Route, RouteMatch, VirtualHost},
        },
        google::protobuf::{Duration, UInt32Value},
    };

    use super::*;

    #[test]
    fn messages_are_shown_whole() {
        let bridge = BridgeConfig {
            bridge_name: "outlet".to_owned(),
            bridge_config: Some(Any {
                type_url: "type.googleapis.com/google.protobuf.StringValue".to_owned(),
                value: StringValue { value: r#"{"version":1}"#.to_owned() }.encode_to_vec(),
            }),
            ..BridgeConfig::default()
        };
        let options = Any { type_url: BridgeConfig::type_url(), value: bridge.encode_to_vec() };
        let cluster = Cluster {
            name: "a \"quoted\\\n\u{7f}é".to_owned(),
            lb_policy: LbPolicy::RingHash.into(),
            connect_timeout: Some(Duration { seconds: 1, nanos: 500_000_000 }),
            per_connection_buffer_limit_bytes: Some(UInt32Value { value: 7 }),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
            typed_extension_protocol_options: [("x".to_owned(), options)].into(),
            metadata: Some(Metadata::default()),
            ..Cluster::default()
        };
        let shown = show(&Any { type_url: Cluster::type_url(), value: cluster.encode_to_vec() });
        assert_eq!(
            shown,
            json!({
                "@type": Cluster::type_url(),
                "name": "a \"quoted\\\n\u{7f}é",
                "lb_policy": "RingHash",
                // Rust does not tell which variant is the default.
                "dns_lookup_family": "Auto",
                "protocol_selection": "UseConfiguredProtocol",
                "connect_timeout": "1.500s",
                "per_connection_buffer_limit_bytes": 7,
                "type": "Eds",
                "metadata": {},
                "typed_extension_protocol_options": {"x": {
                    "@type": BridgeConfig::type_url(),
                    "bridge_name": "outlet",
                    "bridge_config": {
                        "@type": "type.googleapis.com/google.protobuf.StringValue", "value": {"version": 1},
                    },
                }},
            })
        );
    }

    #[test]
    fn names_that_rust_reserves_are_shown_as_they_are() {
        let route = Route { name: "r".to_owned(), r#match: Some(RouteMatch::default()), ..Route::default() };
        let host = VirtualHost { name: "h".to_owned(), routes: vec![route], ..VirtualHost::default() };
        let routes = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
        let shown = show(&Any { type_url: RouteConfiguration::type_url(), value: routes.encode_to_vec() });
        let route = &shown["virtual_hosts"][0]["routes"][0];
        assert_eq!((&route["name"], route["match"].is_object()), (&json!("r"), true));
    }

    #[test]
    fn nothing_makes_the_reader_wait() {
        for text in ["", "(", "A { #", "[(]", "{\"a", "A { a: %", "Some(", "A { a: Some(B(", "\"\\u{"] {
            Reader { text, depth: 0 }.value();
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        let shown = show(&Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: vec![1, 2] });
        assert_eq!(shown, json!({"@type": "type.googleapis.com/x.Y", "bytes": 2}));
    }
}
