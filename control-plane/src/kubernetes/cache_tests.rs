use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};
use serde_json::json;

use super::*;

fn told(name: &str, age: i64, data: Value) -> Told {
    let created = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(10_000 - age);
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("shop".to_owned()),
        uid: Some(format!("uid-{name}")),
        generation: Some(1),
        creation_timestamp: Some(Time(created)),
        ..ObjectMeta::default()
    };
    Told { metadata, data }
}

fn router(timeout: &str) -> Value {
    json!({"spec": {"hosts": ["a.test"], "routes": [{"name": "r", "timeout": timeout}]}})
}

/// A cache in which everything was told once.
fn complete() -> Cache {
    complete_from(Cache::default())
}

fn complete_from(cache: Cache) -> Cache {
    for watched in Watched::ALL.into_iter().filter(|watched| *watched != Watched::Pod) {
        assert!(cache.read().is_none());
        cache.take(watched, Event::Init);
        cache.take(watched, Event::InitDone);
    }
    assert_eq!(cache.incomplete(), ["Pod"]);
    cache.take_pod(Event::Init);
    cache.take_pod(Event::InitDone);
    cache
}

fn is_changed(cache: &Cache) -> bool {
    use futures_util::FutureExt;
    cache.changed.notified().now_or_never().is_some()
}

#[test]
fn nothing_is_read_before_all_is_told() {
    let cache = complete();
    assert!(cache.read().is_some() && is_changed(&cache));
    let cache = Cache::default();
    for watched in Watched::ALL {
        cache.absent(watched);
    }
    assert!(cache.read().is_none(), "pods are everywhere");
}

#[test]
fn what_was_good_before_the_start_is_of_the_same_object() {
    let good = |name: &str| {
        let mut metadata = told(name, 1, Value::Null).metadata;
        metadata.uid = None;
        parse(Watched::MetaRouter, &metadata, &router("1s")).unwrap()
    };
    let remembered = ["same", "anew"].map(|name| (format!("uid-{name}"), good(name)));
    let cache = complete_from(Cache::remembering(remembered.into()));
    cache.take(Watched::MetaRouter, Event::Apply(told("same", 1, router("soon"))));
    let mut anew = told("anew", 1, router("soon"));
    anew.metadata.uid = Some("another".to_owned());
    cache.take(Watched::MetaRouter, Event::Apply(anew));
    let seen = cache.read().unwrap();
    assert_eq!((seen.model.meta_routers.len(), seen.problems.len()), (1, 2));
    assert_eq!(seen.model.meta_routers[0].metadata.name, "same");
}

#[test]
fn the_older_object_comes_first() {
    let cache = complete();
    cache.take(Watched::MetaRouter, Event::Apply(told("a-young", 1, router("1s"))));
    cache.take(Watched::AerakiMetaRouter, Event::Apply(told("m-old", 9, router("1s"))));
    cache.take(Watched::MetaRouter, Event::Apply(told("z-middle", 5, router("1s"))));
    let seen = cache.read().unwrap();
    let names: Vec<&str> = seen.model.meta_routers.iter().map(|router| router.metadata.name.as_str()).collect();
    assert_eq!(names, ["m-old", "z-middle", "a-young"]);
}

#[test]
fn metadata_alone_changes_nothing() {
    let cache = complete();
    cache.take(Watched::MetaRouter, Event::Apply(told("a", 1, router("1s"))));
    assert!(is_changed(&cache));
    let mut same = told("a", 1, router("1s"));
    same.metadata.resource_version = Some("99".to_owned());
    same.metadata.managed_fields = Some(Vec::new());
    same.metadata.annotations = Some([("argocd.argoproj.io/tracking-id".to_owned(), "x".to_owned())].into());
    same.data["status"] = json!({"conditions": []});
    cache.take(Watched::MetaRouter, Event::Apply(same));
    assert!(!is_changed(&cache));
    assert_eq!(cache.ours()[0].status, Some(json!({"conditions": []})), "but it is known");
    let mut meant = told("a", 1, router("1s"));
    meant.metadata.annotations = Some([("meltemi.dev/mode.9090".to_owned(), "connection".to_owned())].into());
    cache.take(Watched::MetaRouter, Event::Apply(meant));
    assert!(is_changed(&cache));
}

#[test]
fn the_last_good_version_stays() {
    let cache = complete();
    let take = |data| cache.take(Watched::MetaRouter, Event::Apply(told("a", 1, data)));
    take(router("1s"));
    take(router("soon"));
    let seen = cache.read().unwrap();
    assert_eq!(seen.model.meta_routers.len(), 1);
    assert_eq!(seen.problems[0].field, "spec.routes[0].timeout");
    // Another object of the name has nothing from the first.
    let mut other = told("a", 1, router("soon"));
    other.metadata.uid = Some("another".to_owned());
    cache.take(Watched::MetaRouter, Event::Apply(other));
    assert_eq!(cache.read().unwrap().model.meta_routers.len(), 0);
    take(router("2s"));
    assert!(cache.read().unwrap().problems.is_empty());
}

#[test]
fn pods_are_known_by_their_labels() {
    let cache = complete();
    is_changed(&cache);
    let pod = |label: &str| ObjectMeta {
        name: Some("p".to_owned()),
        namespace: Some("shop".to_owned()),
        labels: Some([("app".to_owned(), label.to_owned())].into()),
        ..ObjectMeta::default()
    };
    cache.take_pod(Event::Apply(pod("a")));
    assert!(is_changed(&cache));
    cache.take_pod(Event::Apply(ObjectMeta { resource_version: Some("3".to_owned()), ..pod("a") }));
    assert!(!is_changed(&cache));
    cache.take_pod(Event::Apply(pod("b")));
    assert!(is_changed(&cache));
    assert_eq!(cache.read().unwrap().workloads[0].labels["app"], "b");
}
