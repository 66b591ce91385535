use meltemi_core::{Codec, Connection, Decoded, Limits, NothingInFlight, Ordering, Peer};

use super::{
    RouteTable,
    config::{ClusterConfig, MatchConfig, RouteConfig, Test},
};
use crate::test_codec::{TestCodec, request};

/// Finds the route of a request with these headers, in a table of one route with this condition.
fn holds(condition: MatchConfig, headers: &[(&str, &str)]) -> bool {
    let route = RouteConfig { matches: vec![condition], deny: true, ..RouteConfig::default() };
    let table = RouteTable::new(&[route]).unwrap();
    let frame = request(1, "demo.Echo.hello", headers, b"");
    with_metadata(&frame, |metadata| table.find(metadata)).is_some()
}

fn with_metadata<T>(frame: &[u8], work: impl FnOnce(&meltemi_core::Metadata<'_>) -> T) -> T {
    let mut connection: Box<dyn Connection> = TestCodec(Ordering::Ordered).connect(Peer::Client, &Limits::default());
    match connection.decode(frame, &NothingInFlight).unwrap() {
        Decoded::Frame(frame) => work(&frame.metadata),
        other => panic!("{other:?}"),
    }
}

fn on(key: &str, test: Test) -> MatchConfig {
    MatchConfig { key: key.to_owned(), test: Some(test), ..MatchConfig::default() }
}

#[test]
fn every_test_and_its_negation() {
    let text = str::to_owned;
    let cases = [
        (on("service", Test::Exact(text("demo.Echo"))), true),
        (on("service", Test::Exact(text("demo.echo"))), false),
        (on("method", Test::Prefix(text("hel"))), true),
        (on("method", Test::Prefix(text("hello!"))), false),
        (on("method", Test::Suffix(text("llo"))), true),
        (on("env", Test::Suffix(text("xgray"))), false),
        (on("env", Test::Regex(text("gr[ae]y"))), true),
        (on("env", Test::Regex(text("gr"))), false),
        (on("ENV", Test::Exact(text("gray"))), true),
        (on("n", Test::Range(5, 8)), true),
        (on("n", Test::Range(8, 9)), false),
        (on("env", Test::Range(0, 9)), false),
        (on("env", Test::Present(true)), true),
        (on("env", Test::Present(false)), false),
        (on("none", Test::Present(false)), true),
        (on("none", Test::Exact(text(""))), false),
        (MatchConfig { key: text("n"), ..MatchConfig::default() }, true),
        (MatchConfig { ignore_case: true, ..on("env", Test::Exact(text("GRAY"))) }, true),
    ];
    for (condition, expected) in cases {
        let headers = [("env", "gray"), ("n", "7")];
        assert_eq!(holds(condition.clone(), &headers), expected, "{condition:?}");
        let inverted = MatchConfig { invert: true, ..condition };
        assert_eq!(holds(inverted.clone(), &headers), !expected, "{inverted:?}");
    }
}

#[test]
fn values_are_tested_as_they_stand_in_headers() {
    let text = str::to_owned;
    let cases = [
        (on("city", Test::Exact(text(" Köln 5%"))), true),
        (on("city", Test::Prefix(text(" K"))), true),
        (on("city", Test::Suffix(text("öln 5%"))), true),
        (on("city", Test::Regex(text("%20K%c3%b6ln 5%25"))), true),
        (on("city", Test::Regex(text(" K.*"))), false),
        (MatchConfig { ignore_case: true, ..on("city", Test::Exact(text(" kÖLN 5%"))) }, false),
        (MatchConfig { ignore_case: true, ..on("city", Test::Exact(text(" KöLN 5%"))) }, true),
    ];
    for (condition, expected) in cases {
        assert_eq!(holds(condition.clone(), &[("city", " Köln 5%")]), expected, "{condition:?}");
    }
}

#[test]
fn weights_and_hashes() {
    let clusters =
        [("a", 20), ("b", 0), ("c", 80)].map(|(name, weight)| ClusterConfig { name: name.to_owned(), weight });
    let route = |hash: &[&str]| RouteConfig {
        clusters: clusters.to_vec(),
        hash: hash.iter().map(|key| (*key).to_owned()).collect(),
        ..RouteConfig::default()
    };
    let table = RouteTable::new(&[route(&[]), route(&["user"])]).unwrap();
    let pick = |index: usize, headers: &[(&str, &str)], random| {
        let frame = request(1, "m", headers, b"");
        with_metadata(&frame, |metadata| table.get(index).unwrap().cluster(metadata, random).unwrap().to_owned())
    };
    let chosen: Vec<String> = (0..100).map(|random| pick(0, &[], random)).collect();
    assert_eq!(chosen.iter().filter(|name| *name == "a").count(), 20);
    assert_eq!(chosen.iter().filter(|name| *name == "c").count(), 80);
    for user in ["ann", "bob", "cid"] {
        let homes: Vec<String> = (0..10).map(|random| pick(1, &[("user", user)], random)).collect();
        assert!(homes.iter().all(|home| *home == homes[0]));
    }
    let all: Vec<String> = (0..100).map(|n| pick(1, &[("user", &n.to_string())], 0)).collect();
    assert!(all.iter().any(|name| name == "a") && all.iter().any(|name| name == "c"));
}

#[test]
fn hashes_are_the_same_in_every_build() {
    let all = |weight| (0..16).map(|n| ClusterConfig { name: n.to_string(), weight }).collect::<Vec<_>>();
    let hashed = |hash: &[&str]| RouteConfig {
        clusters: all(1),
        hash: hash.iter().map(|key| (*key).to_owned()).collect(),
        ..RouteConfig::default()
    };
    let table = RouteTable::new(&[hashed(&["user", "city"]), hashed(&["city", "user"])]).unwrap();
    let home = |index: usize, headers: &[(&str, &str)]| {
        let frame = request(1, "m", headers, b"");
        with_metadata(&frame, |metadata| table.get(index).unwrap().cluster(metadata, 99).unwrap().to_owned())
    };
    let homes: Vec<_> = ["ann", "bob", "cid", "dee"].map(|user| home(0, &[("user", user)])).into();
    // Worked out by a script of another language.
    assert_eq!(homes, ["14", "8", "8", "6"]);
    let both = [("user", "ann"), ("city", "Rome")];
    assert_eq!(home(0, &both), home(1, &both), "keys in any order");
    assert_eq!(home(0, &[]), "3", "nothing to hash: by chance");
}

#[test]
fn wrong_routes_name_their_place() {
    let bad = |route: RouteConfig| RouteTable::new(&[route]).unwrap_err().0;
    assert_eq!(bad(RouteConfig::default()), "field `routes[0].clusters`: the weights add up to 0");
    let regex = RouteConfig { matches: vec![on("env", Test::Regex("(".into()))], deny: true, ..RouteConfig::default() };
    assert!(bad(regex).starts_with("field `routes[0].matches[0]`: regex parse error"));
    let huge = RouteConfig {
        matches: vec![on("env", Test::Regex("(a{1000}){1000}".into()))],
        deny: true,
        ..RouteConfig::default()
    };
    assert!(bad(huge).contains("size limit"));
    let empty = RouteConfig { matches: vec![on("n", Test::Range(3, 3))], deny: true, ..RouteConfig::default() };
    assert!(bad(empty).contains("is empty"));
}
