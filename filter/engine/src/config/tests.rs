//! The reader against the schema that is published, and what it says.

use schemars::schema_for;
use serde_json::{Value, json};

use super::*;
use crate::{
    relay::RelayConfig,
    route::config::{BucketConfig, ChangeConfig, ClusterConfig, MatchConfig, RouteConfig, Test},
};

fn codec() -> CodecConfig {
    CodecConfig { name: "lines".to_owned(), options: BTreeMap::from([("a".to_owned(), "b".to_owned())]) }
}

fn limits() -> LimitsConfig {
    LimitsConfig { max_frame_bytes: 1, max_header_bytes: 2, max_headers: 3, max_depth: 4, max_elements: 5 }
}

fn destinations() -> Vec<Destination> {
    let address = Some("10.0.0.1".parse().unwrap());
    vec![Destination { address, port: 80, authority: Some("a.test".to_owned()) }]
}

fn inlet() -> InletConfig {
    let (authority, pass_headers) = (Some("b.test".to_owned()), vec!["x-request-id".to_owned()]);
    InletConfig {
        limits: limits(),
        authority,
        destinations: destinations(),
        max_in_flight: 7,
        pass_headers,
        ..InletConfig::new(codec())
    }
}

fn outlet() -> OutletConfig {
    OutletConfig { limits: limits(), pass_headers: vec!["traceparent".to_owned()], ..OutletConfig::new(codec()) }
}

fn declare() -> DeclareConfig {
    DeclareConfig { version: VERSION, destinations: destinations(), application_protocols: vec!["x".to_owned()] }
}

fn relay() -> RelayConfig {
    let test = |test| MatchConfig { key: "k".to_owned(), test: Some(test), invert: true, ignore_case: true };
    let text = || "text".to_owned();
    let change = |value| vec![ChangeConfig { key: "k".to_owned(), value }];
    let route = RouteConfig {
        name: "r".to_owned(),
        matches: vec![
            test(Test::Exact(text())),
            test(Test::Prefix(text())),
            test(Test::Suffix(text())),
            test(Test::Regex(text())),
            test(Test::Range(-1, 2)),
            test(Test::Present(true)),
        ],
        clusters: vec![ClusterConfig { name: "c".to_owned(), weight: 1 }],
        hash: vec!["h".to_owned()],
        deny: true,
        abort_millionths: 9,
        rate_limit: Some(BucketConfig { max_tokens: 1, tokens_per_fill: 2, fill_interval_ms: u64::MAX }),
        request_mutation: change(Some("v".to_owned())),
        response_mutation: change(Some("w".to_owned())),
    };
    RelayConfig {
        limits: limits(),
        destinations: destinations(),
        max_in_flight: 7,
        ..RelayConfig::new(codec(), vec![route])
    }
}

#[test]
fn what_is_written_is_read() {
    fn comes_back<T: Read + Blank + Serialize + PartialEq + core::fmt::Debug>(config: &T) {
        assert_eq!(parse::<T>(&serde_json::to_vec(config).unwrap()).as_ref(), Ok(config));
    }
    comes_back(&inlet());
    comes_back(&InletConfig::new(codec()));
    comes_back(&outlet());
    comes_back(&OutletConfig::new(codec()));
    comes_back(&declare());
    comes_back(&relay());
    comes_back(&RelayConfig::new(codec(), vec![RouteConfig::default()]));
}

/// Changes every field of a configuration in which all are set, in turn, and looks whether it is taken where the schema says so.
struct Walk<'a> {
    schema: &'a Value,
    whole: &'a Value,
    read: fn(&Value) -> Result<(), ConfigError>,
    fields: usize,
}

impl Walk<'_> {
    fn resolved<'s>(&'s self, part: &'s Value) -> &'s Value {
        let named = part.get("$ref").or_else(|| part.pointer("/anyOf/0/$ref"));
        named.map_or(part, |name| self.schema.pointer(&name.as_str().unwrap()[1..]).unwrap())
    }

    fn changed(&self, place: &str, change: impl FnOnce(&mut Value)) -> Result<(), ConfigError> {
        let mut whole = self.whole.clone();
        change(whole.pointer_mut(place).unwrap());
        (self.read)(&whole)
    }

    fn object(&mut self, part: &Value, place: &str) {
        let part = self.resolved(part).clone();
        if let (Some(items), Some(Value::Array(values))) = (part.get("items"), self.whole.pointer(place)) {
            for index in 0..values.len() {
                self.object(items, &format!("{place}/{index}"));
            }
        }
        let Some(Value::Object(fields)) = part.get("properties") else { return };
        assert_eq!(part["additionalProperties"], json!(false), "{place}");
        let unknown = self.changed(place, |object| object["nonsense"] = json!(1)).unwrap_err();
        assert!(unknown.0.contains("unknown field `nonsense`, expected one of `"), "{unknown}");
        let required = part.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for (name, schema) in fields {
            self.fields += 1;
            let inner = format!("{place}/{name}");
            let absent = self.changed(place, |object| _ = object.as_object_mut().unwrap().remove(name));
            match required.contains(&json!(name)) {
                true => assert!(absent.unwrap_err().0.contains(&format!("missing field `{name}`")), "{inner}"),
                false => assert_eq!(absent, Ok(()), "{inner}"),
            }
            let nullable = schema.get("anyOf").is_some()
                || schema["type"].as_array().is_some_and(|kinds| kinds.contains(&json!("null")));
            assert_eq!(self.changed(&inner, |value| *value = Value::Null).is_ok(), nullable, "{inner}");
            for wrong in [json!({"nonsense": {}}), json!(["nonsense", {}]), json!(0.5), json!(-1)] {
                assert!(self.changed(&inner, |value| *value = wrong).is_err(), "{inner}");
            }
            self.object(schema, &inner);
        }
    }
}

#[test]
fn the_reader_takes_what_the_schema_says() {
    fn check<T: Read + Blank + Serialize + JsonSchema>(config: &T, expected: usize) {
        let (schema, whole) = (schema_for!(T), serde_json::to_value(config).unwrap());
        let read = |value: &Value| read::<T>(value).map(drop);
        let mut walk = Walk { schema: schema.as_value(), whole: &whole, read, fields: 0 };
        walk.object(schema.as_value(), "");
        assert_eq!(walk.fields, expected);
    }
    check(&inlet(), 7 + 2 + 5 + 3);
    check(&outlet(), 4 + 2 + 5);
    check(&declare(), 3 + 3);
    check(&relay(), 6 + 2 + 5 + 3 + 9 + 6 * 4 + 2 + 3 + 2 * 2);
}

#[test]
fn what_is_wrong_has_a_place() {
    let told = |place: &str, value: Value| {
        let mut whole = serde_json::to_value(relay()).unwrap();
        *whole.pointer_mut(place).unwrap() = value;
        read::<RelayConfig>(&whole).unwrap_err().0
    };
    let cases = [
        (
            "/routes/0/clusters/0/weight",
            json!("x"),
            "field `routes[0].clusters[0].weight`: invalid type: string, expected u32",
        ),
        ("/routes/0/clusters/0", json!({"name": "c"}), "field `routes[0].clusters[0]`: missing field `weight`"),
        (
            "/routes/0/matches/4/test",
            json!({"range": [1]}),
            "field `routes[0].matches[4].test`: invalid type: sequence, expected two integers",
        ),
        ("/routes/0/matches/4/test", json!({}), "field `routes[0].matches[4].test`: one test is expected, not 0"),
        (
            "/routes/0/matches/4/test",
            json!({"glob": ""}),
            "field `routes[0].matches[4].test`: unknown field `glob`, expected one of `exact`",
        ),
        ("/codec/options/a", json!(1), "field `codec.options.a`: invalid type: number, expected a string"),
        ("/destinations/0/port", json!(65536), "field `destinations[0].port`: invalid type: number, expected u16"),
        (
            "/destinations/0/address",
            json!("a.test"),
            "field `destinations[0].address`: invalid type: string, expected IP address",
        ),
        ("/version", json!(2), "field `version`: this module reads version 1, not 2"),
        ("", json!([]), "invalid type: sequence, expected a map"),
    ];
    for (place, value, expected) in cases {
        let told = told(place, value);
        assert!(told.starts_with(&format!("filter configuration: {expected}")), "{told}");
    }
    let told = parse::<RelayConfig>(b"{").unwrap_err().0;
    assert!(told.starts_with("filter configuration: EOF while parsing an object"), "{told}");
}
