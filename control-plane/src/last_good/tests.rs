use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{LastGood, Served, judge};
use crate::compile::Host;
use crate::{
    model::{AnyObject, DestinationRule, MetaRouter, Metadata, Object, Service, ServiceEntry},
    problem::{Origin, Severity},
    snapshot::TypeUrl,
};

fn object<T: DeserializeOwned>(kind: &str, name: &str, spec: &str) -> Object<T> {
    let origin = Origin { kind: kind.to_owned(), name: format!("default/{name}"), ..Origin::default() };
    let metadata = Metadata { name: name.to_owned(), ..Metadata::default() };
    Object { origin, metadata, spec: serde_yaml_ng::from_str(spec).unwrap() }
}

fn entry(name: &str, port: u16, address: &str) -> AnyObject {
    let spec = format!(
        "{{hosts: [{name}.test], ports: [{{number: {port}, name: tcp-metaprotocol-thrift}}], resolution: STATIC, \
         endpoints: [{{address: {address}, labels: {{v: v1}}}}]}}"
    );
    object::<ServiceEntry>("ServiceEntry", name, &spec).into()
}

fn rule(subset: &str) -> AnyObject {
    let spec = format!("{{host: a.test, subsets: [{{name: {subset}, labels: {{v: v1}}}}]}}");
    object::<DestinationRule>("DestinationRule", "a", &spec).into()
}

fn router(name: &str, routes: &str) -> AnyObject {
    object::<MetaRouter>("MetaRouter", name, &format!("{{hosts: [a.test], routes: [{routes}]}}")).into()
}

fn to(subset: &str) -> String {
    format!("{{route: [{{destination: {{host: a.test, subset: {subset}}}}}]}}")
}

fn take(last: &mut LastGood, objects: &[AnyObject]) -> Served {
    let served = last.take(objects.iter().cloned().collect(), |model| judge(model, &Host::Module));
    for (key, seen) in &last.seen {
        assert!(*seen < last.next, "{key:?}");
    }
    served
}

fn errors(served: &Served) -> Vec<String> {
    let errors = served.problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

fn resources(served: &Served) -> Vec<(String, String)> {
    TypeUrl::ALL
        .into_iter()
        .flat_map(|kind| served.compiled.snapshot.of(kind))
        .map(|resource| (resource.name.to_string(), resource.version.to_string()))
        .collect()
}

/// All of `good`, then `bad` instead of the one of its kind: what is served stays, and one thing is told.
fn stays(good: &[AnyObject], bad: AnyObject, told: &str) {
    let mut last = LastGood::default();
    let before = take(&mut last, good);
    assert_eq!(errors(&before), [""; 0]);
    let mut now: Vec<AnyObject> = good.iter().filter(|object| object.key() != bad.key()).cloned().collect();
    // First, so that it is not its place in the order that keeps it from taking what others have.
    now.insert(0, bad);
    for _ in 0..2 {
        let after = take(&mut last, &now);
        assert_eq!(resources(&after), resources(&before), "{told}");
        let errors = errors(&after);
        assert!(errors.len() == 1 && errors[0].contains(told), "{told}: {errors:?}");
    }
    let after = take(&mut last, good);
    assert_eq!((resources(&after), errors(&after)), (resources(&before), Vec::new()));
    // A start from what was good, as after a restart.
    let mut again = LastGood::from_objects(last.objects().into_iter().cloned());
    assert_eq!(resources(&take(&mut again, &now)), resources(&before));
}

#[test]
fn a_wrong_object_keeps_its_last_good_version() {
    let good = [entry("a", 9090, "127.0.0.1"), rule("v1"), router("a", &to("v1"))];
    stays(&good, router("a", &to("v11")), "still serving the last good version");
    stays(&good, router("a", "{deny: true, match: {attributes: {method: {prefix: ''}}}}"), "still serving");
    stays(&good, entry("a", 9090, "127.0.0."), "spec.endpoints[0].address: not an IP address");
    let AnyObject::ServiceEntry(mut entry) = good[0].clone() else { panic!() };
    Arc::make_mut(&mut entry).metadata.annotations.insert("meltemi.dev/mode.9090".to_owned(), "conection".to_owned());
    stays(&good, AnyObject::ServiceEntry(entry), "neither `request` nor `connection`");
}

#[test]
fn who_makes_another_object_wrong_waits() {
    let good = [entry("a", 9090, "127.0.0.1"), rule("v1"), router("a", &to("v1"))];
    stays(&good, rule("v11"), "with it MetaRouter default/a would be wrong: spec.routes[0]");
    // Taken together the same change is right.
    let mut last = LastGood::default();
    take(&mut last, &good);
    let after = take(&mut last, &[good[0].clone(), rule("v11"), router("a", &to("v11"))]);
    assert_eq!(errors(&after), [""; 0]);
}

#[test]
fn what_is_taken_stays_taken() {
    let good = [entry("a", 9090, "127.0.0.1"), router("b", ""), entry("c", 9091, "127.0.0.1")];
    stays(&good, entry("b", 9090, "127.0.0.2"), "already has this");
    stays(&good, router("a", &to("v9")), "already has this");
    // An old object that comes to want what a younger one has.
    stays(&good, entry("a", 9091, "127.0.0.1"), "already has this");
    // Service entries are compiled before services.
    let service = object::<Service>("Service", "s", "{ports: [{port: 9093, appProtocol: meltemi.dev/thrift}]}").into();
    stays(&[service], entry("d", 9093, "127.0.0.1"), "left out");
}

#[test]
fn a_harmless_change_does_not_lose_the_place() {
    let mut last = LastGood::default();
    take(&mut last, &[entry("a", 9090, "127.0.0.1")]);
    let both = |address: &str| [entry("b", 9090, "127.0.0.3"), entry("a", 9090, address)];
    take(&mut last, &both("127.0.0.1"));
    let after = take(&mut last, &both("127.0.0.2"));
    assert!(errors(&after)[0].contains("default/b"), "{:?}", errors(&after));
    assert!(resources(&after).iter().any(|(name, _)| name.contains("a.test")));
}

#[test]
fn what_is_gone_is_gone() {
    let mut last = LastGood::default();
    take(&mut last, &[entry("a", 9090, "127.0.0.1"), rule("v1"), router("a", &to("v1"))]);
    let after = take(&mut last, &[entry("a", 9090, "127.0.0.1"), router("a", &to("v1"))]);
    assert_eq!(errors(&after).len(), 1, "the route has lost its subset");
    assert_eq!(take(&mut last, &[]).compiled.snapshot.count(TypeUrl::Listener), 0);
    assert!(last.objects().is_empty());
}

#[test]
fn without_a_good_version_what_is_right_of_it_is_served() {
    let mut last = LastGood::default();
    let after = take(&mut last, &[entry("a", 9090, "127.0.0.1"), router("a", &to("v1"))]);
    assert_eq!(errors(&after).len(), 1);
    assert_eq!(after.compiled.snapshot.count(TypeUrl::Listener), 1);
}
