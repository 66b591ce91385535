use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::{super::sotw::Sotw, *};

fn ask(kind: TypeUrl, names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: kind.as_str().to_owned(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn refuse(kind: TypeUrl, names: &[&str], nonce: &str, reason: &str) -> DiscoveryRequest {
    DiscoveryRequest { error_detail: error(reason), ..ask(kind, names, nonce) }
}

/// The types of responses, and how many resources each has.
fn shape(responses: &[DiscoveryResponse]) -> Vec<(TypeUrl, usize)> {
    responses.iter().map(|r| (TypeUrl::parse(&r.type_url).unwrap(), r.resources.len())).collect()
}

/// Asks, takes the answers, and gives the last nonce.
fn subscribe(bench: &mut Bench<Sotw>, kind: TypeUrl, names: &[&str]) -> String {
    let mut nonce = String::new();
    for response in bench.request(ask(kind, names, "")) {
        nonce = response.nonce;
    }
    assert_eq!(shape(&bench.request(ask(kind, names, &nonce))), []);
    nonce
}

/// A proxy that has everything of a small world.
fn settled() -> (Bench<Sotw>, [String; 4]) {
    let mut bench = Bench::new(&[(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r")]);
    let nonces = [
        subscribe(&mut bench, CLUSTER, &[]),
        subscribe(&mut bench, ENDPOINTS, &["a"]),
        subscribe(&mut bench, LISTENER, &[]),
        subscribe(&mut bench, ROUTE, &["r"]),
    ];
    (bench, nonces)
}

#[test]
fn wildcard_types_come_whole_and_named_types_by_name() {
    let mut bench = Bench::<Sotw>::new(&[(CLUSTER, "a"), (CLUSTER, "b"), (ROUTE, "r"), (ROUTE, "s")]);
    assert_eq!(shape(&bench.request(ask(CLUSTER, &[], ""))), [(CLUSTER, 2)]);
    let routes = bench.request(ask(ROUTE, &["s"], ""));
    assert_eq!(names(ROUTE, &routes[0].resources, &["s"]), ["s"]);
    let mut bench = Bench::<Sotw>::new(&[(CLUSTER, "a"), (CLUSTER, "b")]);
    assert_eq!(shape(&bench.request(ask(CLUSTER, &["*"], ""))), [(CLUSTER, 2)]);
    let mut bench = Bench::<Sotw>::new(&[(CLUSTER, "a"), (CLUSTER, "b")]);
    assert_eq!(shape(&bench.request(ask(CLUSTER, &["b"], ""))), [(CLUSTER, 1)]);
}

#[test]
fn a_named_resource_that_is_not_there_is_sent_when_it_is() {
    let mut bench = Bench::<Sotw>::new(&[]);
    assert!(bench.request(ask(ROUTE, &["r"], "")).is_empty());
    assert_eq!(shape(&bench.publish(&[(ROUTE, "r")])), [(ROUTE, 1)]);
}

#[test]
fn only_types_that_changed_are_sent() {
    let (mut bench, _) = settled();
    let world = [(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r=2")];
    let responses = bench.publish(&world);
    assert_eq!(shape(&responses), [(ROUTE, 1)]);
    assert!(!bench.in_sync(ROUTE));
    bench.request(ask(ROUTE, &["r"], &responses[0].nonce));
    assert!(bench.in_sync(ROUTE) && bench.in_sync(CLUSTER));
    assert!(bench.publish(&world).is_empty(), "the same again is nothing new");
    assert_eq!(
        shape(&bench.publish(&[(CLUSTER, "a"), (ENDPOINTS, "a=2"), (LISTENER, "l"), (ROUTE, "r=2")])),
        [(ENDPOINTS, 1)]
    );
}

#[test]
fn a_refusal_is_kept_with_its_reason_and_the_same_is_not_sent_again() {
    let (mut bench, _) = settled();
    let bad = [(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l=bad"), (ROUTE, "r")];
    let responses = bench.publish(&bad);
    assert!(bench.request(refuse(LISTENER, &[], &responses[0].nonce, "address in use")).is_empty());
    assert_eq!(bench.refusal(LISTENER).as_deref(), Some("address in use"));
    assert_eq!(bench.store.nacks.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert!(bench.publish(&bad).is_empty());
    let back = bench.publish(&[(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r")]);
    assert_eq!(shape(&back), [(LISTENER, 1), (ROUTE, 1)], "a listener that is replaced waits for its routes");
    bench.request(ask(LISTENER, &[], &back[0].nonce));
    assert_eq!(bench.refusal(LISTENER), None);
}

#[test]
fn an_answer_to_an_older_response_means_nothing() {
    let (mut bench, [.., old]) = settled();
    let newer = bench.publish(&[(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r=2")]);
    assert!(bench.request(refuse(ROUTE, &["r", "s"], &old, "late")).is_empty());
    assert_eq!(bench.refusal(ROUTE), None);
    assert!(!bench.in_sync(ROUTE));
    bench.request(ask(ROUTE, &["r"], &newer[0].nonce));
    assert!(bench.in_sync(ROUTE));
}

#[test]
fn names_grow_and_go() {
    let mut bench = Bench::<Sotw>::new(&[(ROUTE, "r"), (ROUTE, "s")]);
    let nonce = subscribe(&mut bench, ROUTE, &["r"]);
    let more = bench.request(ask(ROUTE, &["r", "s"], &nonce));
    assert_eq!(shape(&more), [(ROUTE, 2)]);
    assert!(bench.request(ask(ROUTE, &["r", "s"], &more[0].nonce)).is_empty());
    assert!(bench.request(ask(ROUTE, &[], &more[0].nonce)).is_empty(), "it wants no more");
    assert!(!bench.proxy().types.contains_key(&ROUTE));
    assert!(bench.publish(&[(ROUTE, "r=2")]).is_empty());
    assert_eq!(shape(&bench.request(ask(ROUTE, &["r"], &more[0].nonce))), [(ROUTE, 1)]);
}

#[test]
fn types_that_are_not_served_are_passed_over() {
    let (mut bench, _) = settled();
    let request = DiscoveryRequest { type_url: "type.googleapis.com/x.Y".to_owned(), ..ask(ROUTE, &["r"], "") };
    assert!(bench.request(request).is_empty());
    assert_eq!(bench.proxy().types.len(), 4);
}

#[test]
fn routes_wait_for_the_clusters_they_name() {
    let (mut bench, [_, endpoints, ..]) = settled();
    let responses = bench.publish(&[
        (CLUSTER, "a"),
        (CLUSTER, "b"),
        (ENDPOINTS, "a"),
        (ENDPOINTS, "b"),
        (LISTENER, "l=2"),
        (ROUTE, "r=2"),
    ]);
    assert_eq!(shape(&responses), [(CLUSTER, 2)]);
    assert!(bench.request(ask(CLUSTER, &[], &responses[0].nonce)).is_empty(), "it has no endpoints of b yet");
    assert!(bench.session.holds());
    let answer = bench.request(ask(ENDPOINTS, &["a", "b"], &endpoints));
    assert_eq!(shape(&answer), [(ENDPOINTS, 2)]);
    let released = bench.request(ask(ENDPOINTS, &["a", "b"], &answer[0].nonce));
    assert_eq!(shape(&released), [(LISTENER, 1), (ROUTE, 1)]);
    assert!(!bench.session.holds());
}

#[test]
fn clusters_go_after_the_routes_that_named_them() {
    let (mut bench, _) = settled();
    let responses = bench.publish(&[(LISTENER, "l"), (ROUTE, "r=2")]);
    assert_eq!(shape(&responses), [(ROUTE, 1)]);
    let removed = bench.request(ask(ROUTE, &["r"], &responses[0].nonce));
    assert_eq!(shape(&removed), [(CLUSTER, 0)], "endpoints go with their cluster");
}

#[test]
fn clusters_that_a_refused_route_names_stay() {
    let (mut bench, _) = settled();
    let responses = bench.publish(&[(LISTENER, "l"), (ROUTE, "r=bad")]);
    assert!(bench.request(refuse(ROUTE, &["r"], &responses[0].nonce, "bad")).is_empty());
    let responses = bench.publish(&[(LISTENER, "l"), (ROUTE, "r=3")]);
    assert_eq!(shape(&bench.request(ask(ROUTE, &["r"], &responses[0].nonce))), [(CLUSTER, 0)]);
}

#[test]
fn refused_clusters_do_not_hold_up_routes() {
    let (mut bench, _) = settled();
    let responses = bench.publish(&[
        (CLUSTER, "a"),
        (CLUSTER, "b=bad"),
        (ENDPOINTS, "a"),
        (ENDPOINTS, "b"),
        (LISTENER, "l"),
        (ROUTE, "r=2"),
    ]);
    assert_eq!(shape(&bench.request(refuse(CLUSTER, &[], &responses[0].nonce, "bad"))), [(ROUTE, 1)]);
}

#[test]
fn a_proxy_that_never_answers_gets_its_routes_in_the_end() {
    let (mut bench, _) = settled();
    let responses = bench.publish(&[(CLUSTER, "a=2"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r=2")]);
    assert_eq!(shape(&responses), [(CLUSTER, 1), (ENDPOINTS, 1)], "a cluster that is replaced waits for its endpoints");
    assert!(bench.session.holds());
    assert_eq!(shape(&bench.patience_lost()), [(ROUTE, 1)]);
    assert!(!bench.session.holds());
}

fn comes_back(kind: TypeUrl, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest { version_info: "before".to_owned(), ..ask(kind, names, "") }
}

#[test]
fn a_proxy_that_comes_back_keeps_what_it_has_until_it_has_the_new_routes() {
    let world = [(CLUSTER, "a"), (CLUSTER, "b"), (ENDPOINTS, "a"), (ENDPOINTS, "b"), (LISTENER, "l"), (ROUTE, "r=2")];
    let mut bench = Bench::<Sotw>::new(&world);
    assert!(bench.request(comes_back(CLUSTER, &[])).is_empty(), "all of them, but which does it have?");
    let responses = bench.request(comes_back(ENDPOINTS, &["a", "gone"]));
    assert_eq!(shape(&responses), [(CLUSTER, 3), (ENDPOINTS, 1)]);
    assert_eq!(names(CLUSTER, &responses[0].resources, &["a", "b"]), ["a", "b", "?"], "one that stays as it is");
    assert!(bench.request(comes_back(LISTENER, &[])).is_empty());
    assert!(bench.request(comes_back(ROUTE, &["r"])).is_empty());
    assert!(bench.request(ask(CLUSTER, &[], &responses[0].nonce)).is_empty());
    let endpoints = bench.request(ask(ENDPOINTS, &["a", "b", "gone"], &responses[1].nonce));
    assert_eq!(shape(&endpoints), [(ENDPOINTS, 2)]);
    let released = bench.request(ask(ENDPOINTS, &["a", "b", "gone"], &endpoints[0].nonce));
    assert_eq!(shape(&released), [(LISTENER, 1), (ROUTE, 1)]);
    assert!(bench.request(ask(LISTENER, &[], &released[0].nonce)).is_empty());
    let settled = bench.request(ask(ROUTE, &["r"], &released[1].nonce));
    assert_eq!(shape(&settled), [(CLUSTER, 2)]);
    bench.request(ask(CLUSTER, &[], &settled[0].nonce));
    assert!(bench.request(ask(ENDPOINTS, &["a", "b"], &endpoints[0].nonce)).is_empty(), "fewer names need no answer");
}

#[test]
fn a_proxy_that_comes_back_without_endpoints_is_not_left_waiting() {
    let mut bench = Bench::<Sotw>::new(&[(CLUSTER, "a"), (LISTENER, "l")]);
    assert!(bench.request(comes_back(CLUSTER, &[])).is_empty());
    assert!(bench.request(comes_back(LISTENER, &[])).is_empty());
    assert_eq!(shape(&bench.patience_lost()), [(CLUSTER, 1)]);
    assert_eq!(shape(&bench.patience_lost()), [(LISTENER, 1)]);
}

#[test]
fn names_that_change_do_not_release_what_is_held() {
    let (mut bench, [.., routes]) = settled();
    let first = [(CLUSTER, "a"), (CLUSTER, "b"), (ENDPOINTS, "a"), (ENDPOINTS, "b"), (LISTENER, "l"), (ROUTE, "r=2")];
    bench.publish(&[&first[..], &[(ROUTE, "s")]].concat());
    assert!(bench.request(ask(ROUTE, &["r", "s"], &routes)).is_empty(), "s comes with the rest");
    assert!(bench.session.holds());
}

#[test]
fn fewer_names_need_no_answer() {
    let mut bench = Bench::<Sotw>::new(&[(ROUTE, "r"), (ROUTE, "s")]);
    let nonce = subscribe(&mut bench, ROUTE, &["r", "s"]);
    assert!(bench.request(ask(ROUTE, &["r"], &nonce)).is_empty());
    assert!(bench.publish(&[(ROUTE, "r"), (ROUTE, "s=2")]).is_empty());
    assert_eq!(shape(&bench.publish(&[(ROUTE, "r=2"), (ROUTE, "s=2")])), [(ROUTE, 1)]);
}
