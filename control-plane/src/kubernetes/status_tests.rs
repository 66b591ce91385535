use std::collections::BTreeMap;

use k8s_openapi::jiff::SignedDuration;

use super::*;
use crate::{problem::Origin, snapshot::TypeUrl, store::TypeState};

fn origin() -> Origin {
    Origin { kind: "MetaRouter".to_owned(), name: "shop/a".to_owned(), ..Origin::default() }
}

fn reasons(problems: &[&Problem]) -> [(bool, &'static str); 3] {
    judge(problems, &[], &Progress::default()).map(|verdict| (verdict.holds, verdict.reason))
}

#[test]
fn each_kind_of_problem_has_its_reason() {
    assert_eq!(reasons(&[]), [(true, "Accepted"), (true, "ResolvedRefs"), (true, "Programmed")]);
    let invalid = origin().error("spec.routes[0].timeout", "`x` is not a duration");
    assert_eq!(reasons(&[&invalid]), [(false, "Invalid"), (true, "ResolvedRefs"), (false, "Invalid")]);
    let missing =
        origin().error("spec.routes[0].route[0].destination.host", "there is no `b.test`").of(Kind::Reference);
    assert_eq!(reasons(&[&missing]), [(false, "RefNotResolved"), (false, "RefNotFound"), (false, "Invalid")]);
    let taken = origin().error("spec.hosts[0]", "MetaRouter shop/old already has this").of(Kind::Conflict);
    assert_eq!(reasons(&[&taken])[0], (false, "Conflicted"));
    let nobody =
        origin().warning("spec.hosts[0]", "there is no Service or ServiceEntry for `a.test`").of(Kind::Reference);
    assert_eq!(reasons(&[&nobody]), [(true, "Accepted"), (false, "RefNotFound"), (true, "Programmed")]);
    let message = &judge(&[&invalid, &missing], &[], &Progress::default())[0].message;
    assert_eq!(
        message,
        "spec.routes[0].timeout: `x` is not a duration; spec.routes[0].route[0].destination.host: there is no `b.test`"
    );
}

#[test]
fn programmed_counts_proxies() {
    let proxy = |acked: &str, error: Option<&str>| {
        let state = TypeState { sent: "2".to_owned(), acked: acked.to_owned(), error: error.map(str::to_owned) };
        Proxy {
            node: "sidecar~a".to_owned(),
            cluster: String::new(),
            version: String::new(),
            protocol: "delta",
            connected_since: 0,
            streams: 1,
            generation: 4,
            types: BTreeMap::from([(TypeUrl::Route, state)]),
        }
    };
    let programmed = |proxies: &[Proxy]| {
        let [_, _, verdict] = judge(&[], &[], &Progress::of(proxies, 4));
        (verdict.holds, verdict.reason, verdict.message)
    };
    let done = proxy("2", None);
    let all = "2 of 2 connected proxies acknowledged".to_owned();
    assert_eq!(programmed(&[done.clone(), done.clone()]), (true, "Programmed", all));
    let some = "1 of 2 connected proxies acknowledged";
    assert_eq!(programmed(&[done.clone(), proxy("1", None)]), (false, "Pending", some.to_owned()));
    let behind = Proxy { generation: 3, ..done.clone() };
    assert_eq!(programmed(&[done.clone(), behind]).1, "Pending");
    let refused = (false, "Refused", format!("{some}; sidecar~a: no such cluster"));
    assert_eq!(programmed(&[done, proxy("1", Some("no such cluster"))]), refused);
    let [_, _, open] = judge(&[], &["VirtualService a/b: forbidden".to_owned()], &Progress::default());
    assert_eq!((open.holds, open.reason), (false, "NotWritten"));
}

#[test]
fn a_status_is_written_when_it_changes() {
    let verdicts = judge(&[], &[], &Progress::default());
    let start = Timestamp::UNIX_EPOCH;
    let first = status(&verdicts, Some(1), None, start).unwrap();
    assert_eq!(transitions(&verdicts, None).len(), 3);
    let later = start + SignedDuration::from_secs(60);
    assert_eq!(status(&verdicts, Some(1), Some(&first), later), None);
    assert!(transitions(&verdicts, Some(&first)).is_empty());

    let second = status(&verdicts, Some(2), Some(&first), later).unwrap();
    assert_eq!(second["conditions"][0]["lastTransitionTime"], first["conditions"][0]["lastTransitionTime"]);
    assert_eq!(second["observedGeneration"], 2);
    assert!(transitions(&verdicts, Some(&second)).is_empty(), "a new generation alone is no transition");

    let problem = origin().error("spec", "odd");
    let wrong = judge(&[&problem], &[], &Progress::default());
    let third = status(&wrong, Some(3), Some(&second), later).unwrap();
    assert_ne!(third["conditions"][0]["lastTransitionTime"], first["conditions"][0]["lastTransitionTime"]);
    assert_eq!(third["conditions"][1]["lastTransitionTime"], first["conditions"][1]["lastTransitionTime"]);
    assert_eq!(transitions(&wrong, Some(&second)).len(), 2, "Accepted and Programmed");
}
