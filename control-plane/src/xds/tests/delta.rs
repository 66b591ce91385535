use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::{super::delta::Delta, *};

fn request(kind: TypeUrl) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.as_str().to_owned(), ..DeltaDiscoveryRequest::default() }
}

fn subscribe(kind: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
    let resource_names_subscribe = names.iter().map(|name| (*name).to_owned()).collect();
    DeltaDiscoveryRequest { resource_names_subscribe, ..request(kind) }
}

fn unsubscribe(kind: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
    let resource_names_unsubscribe = names.iter().map(|name| (*name).to_owned()).collect();
    DeltaDiscoveryRequest { resource_names_unsubscribe, ..request(kind) }
}

fn take(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
    DeltaDiscoveryRequest { type_url, response_nonce, ..DeltaDiscoveryRequest::default() }
}

fn refuse(response: &DeltaDiscoveryResponse, reason: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { error_detail: error(reason), ..take(response) }
}

/// `type +sent -removed` of each response.
fn shape(responses: &[DeltaDiscoveryResponse]) -> Vec<String> {
    let one = |response: &DeltaDiscoveryResponse| {
        let sent = response.resources.iter().map(|resource| format!(" +{}", resource.name));
        let removed = response.removed_resources.iter().map(|name| format!(" -{name}"));
        format!("{:?}{}", TypeUrl::parse(&response.type_url).unwrap(), sent.chain(removed).collect::<String>())
    };
    responses.iter().map(one).collect()
}

/// Asks, and takes the answer.
fn follow(bench: &mut Bench<Delta>, request: DeltaDiscoveryRequest) {
    for response in bench.request(request) {
        assert_eq!(shape(&bench.request(take(&response))), [""; 0]);
    }
}

fn settled() -> Bench<Delta> {
    let mut bench = Bench::new(&[(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r")]);
    follow(&mut bench, subscribe(CLUSTER, &[]));
    follow(&mut bench, subscribe(ENDPOINTS, &["a"]));
    follow(&mut bench, subscribe(LISTENER, &["*"]));
    follow(&mut bench, subscribe(ROUTE, &["r"]));
    bench
}

#[test]
fn only_resources_that_changed_are_sent() {
    const A: [(TypeUrl, &str); 4] = [(CLUSTER, "a"), (ENDPOINTS, "a"), (ENDPOINTS, "b"), (ENDPOINTS, "d")];
    let world = |clusters: [&'static str; 2]| [A.to_vec(), clusters.map(|name| (CLUSTER, name)).to_vec()].concat();
    let mut bench = Bench::<Delta>::new(&world(["b", "c"]));
    follow(&mut bench, subscribe(ENDPOINTS, &["a", "b", "d"]));
    let first = bench.request(subscribe(CLUSTER, &[]));
    assert_eq!(shape(&first), ["Cluster +a +b +c"]);
    assert_eq!(first[0].resources[0].resource, Some(resource_of(CLUSTER, "a", "").any));
    assert!(bench.request(take(&first[0])).is_empty());
    assert!(bench.in_sync(CLUSTER));
    let second = bench.publish(&world(["b=2", "d"]));
    assert_eq!(shape(&second[..1]), ["Cluster +b +d"], "c goes when nothing can refer to it");
    assert!(bench.publish(&world(["b=2", "d"])).is_empty());
    assert!(bench.request(take(&second[0])).is_empty(), "its endpoints are still on their way");
    assert_eq!(shape(&bench.request(take(&second[1]))), ["Cluster -c"]);
}

fn comes_back(kind: TypeUrl, names: &[&str], has: &[(&str, &str)]) -> DeltaDiscoveryRequest {
    let version =
        |(name, content): &(&str, &str)| ((*name).to_owned(), resource_of(kind, name, content).version.to_string());
    DeltaDiscoveryRequest { initial_resource_versions: has.iter().map(version).collect(), ..subscribe(kind, names) }
}

#[test]
fn a_proxy_that_comes_back_keeps_what_it_has_until_it_has_the_new_routes() {
    for wildcard in [&[] as &[&str], &["*"]] {
        let world =
            [(CLUSTER, "a"), (CLUSTER, "b"), (ENDPOINTS, "a"), (ENDPOINTS, "b"), (LISTENER, "l"), (ROUTE, "r=2")];
        let mut bench = Bench::<Delta>::new(&world);
        let clusters = bench.request(comes_back(CLUSTER, wildcard, &[("a", ""), ("gone", "")]));
        assert_eq!(shape(&clusters), ["Cluster +b"], "what it kept is not sent again, what it lost not taken yet");
        let has = bench.request(comes_back(ENDPOINTS, &["a", "gone"], &[("a", ""), ("gone", "")]));
        assert_eq!(shape(&has), ["Endpoints"]);
        assert!(bench.request(comes_back(LISTENER, &[], &[("l", ""), ("old", "")])).is_empty());
        assert!(bench.request(comes_back(ROUTE, &["r"], &[("r", "")])).is_empty(), "routes wait for their clusters");
        assert!(bench.session.holds());
        assert!(bench.request(take(&has[0])).is_empty());
        assert!(bench.request(take(&clusters[0])).is_empty());
        let endpoints = bench.request(subscribe(ENDPOINTS, &["b"]));
        assert_eq!(shape(&endpoints), ["Endpoints +b"]);
        let released = bench.request(take(&endpoints[0]));
        assert_eq!(shape(&released), ["Listener -old", "Route +r"]);
        assert!(bench.request(take(&released[0])).is_empty());
        assert_eq!(shape(&bench.request(take(&released[1]))), ["Cluster -gone", "Endpoints -gone"]);
    }
}

#[test]
fn an_answer_of_another_type_does_not_release_what_is_held() {
    let mut bench = settled();
    let routes = bench.publish(&[(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r=2")]);
    assert_eq!(shape(&routes), ["Route +r"]);
    let new = [(CLUSTER, "a"), (CLUSTER, "b"), (ENDPOINTS, "a"), (ENDPOINTS, "b"), (LISTENER, "l"), (ROUTE, "r=3")];
    let clusters = bench.publish(&new);
    assert_eq!(shape(&clusters), ["Cluster +b"]);
    assert!(bench.request(take(&routes[0])).is_empty(), "the route before, not the one that is held");
    assert_eq!(shape(&bench.request(subscribe(ROUTE, &["r"]))), ["Route +r"]);
    assert!(bench.session.holds());
    bench.request(take(&clusters[0]));
    let endpoints = bench.request(subscribe(ENDPOINTS, &["b"]));
    assert_eq!(shape(&bench.request(take(&endpoints[0]))), ["Route +r"]);
}

#[test]
fn what_only_refused_routes_named_does_not_pile_up() {
    let mut bench = settled();
    for (number, name) in ["b", "c", "d"].into_iter().enumerate() {
        let route = format!("r=bad{number}");
        let new = [(CLUSTER, name), (ENDPOINTS, name), (LISTENER, "l"), (ROUTE, route.as_str())];
        let clusters = bench.publish(&new);
        bench.request(take(&clusters[0]));
        let endpoints = bench.request(subscribe(ENDPOINTS, &[name]));
        let routes = bench.request(take(&endpoints[0]));
        assert_eq!(shape(&routes), ["Route +r"]);
        let forgotten = bench.request(refuse(&routes[0], "bad"));
        for response in &forgotten {
            bench.request(take(response));
        }
        let gone = shape(&forgotten).concat();
        assert!(!gone.contains("-a"), "the route in use names it");
        assert_eq!(gone.matches("Cluster").count(), usize::from(number > 0), "{gone}");
    }
}

#[test]
fn clusters_found_by_name_get_time_to_be_found() {
    let mut bench = settled();
    let new = [(CLUSTER, "a"), (CLUSTER, "dns"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r=2")];
    let clusters = bench.publish(&new);
    assert!(bench.request(take(&clusters[0])).is_empty());
    assert_eq!(shape(&bench.patience_lost()), ["Route +r"]);
}

#[test]
fn what_is_missing_is_said_once_and_sent_when_it_comes() {
    let mut bench = Bench::<Delta>::new(&[]);
    let first = bench.request(subscribe(ROUTE, &["r"]));
    assert_eq!(shape(&first), ["Route -r"]);
    assert!(bench.request(take(&first[0])).is_empty());
    assert!(bench.publish(&[(ROUTE, "other")]).is_empty());
    assert_eq!(shape(&bench.publish(&[(ROUTE, "r")])), ["Route +r"]);
}

#[test]
fn names_come_and_go() {
    let mut bench = Bench::<Delta>::new(&[(ROUTE, "r"), (ROUTE, "s")]);
    follow(&mut bench, subscribe(ROUTE, &["r"]));
    assert_eq!(shape(&bench.request(subscribe(ROUTE, &["s"]))), ["Route +s"]);
    assert_eq!(shape(&bench.request(subscribe(ROUTE, &["r"]))), ["Route +r"], "asked for again, it is sent again");
    assert!(bench.request(unsubscribe(ROUTE, &["r"])).is_empty());
    assert_eq!(shape(&bench.publish(&[(ROUTE, "r=2"), (ROUTE, "s=2")])), ["Route +s"]);
}

#[test]
fn a_refusal_stays_though_later_responses_are_taken() {
    let mut bench = settled();
    let bad = bench.publish(&[(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l"), (LISTENER, "m=bad"), (ROUTE, "r")]);
    assert_eq!(shape(&bad), ["Listener +m"]);
    let good = bench.publish(&[(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l=2"), (LISTENER, "m=bad"), (ROUTE, "r")]);
    assert_eq!(shape(&good), ["Listener +l"]);
    assert!(bench.request(refuse(&bad[0], "address in use")).is_empty());
    assert!(bench.request(take(&good[0])).is_empty());
    assert_eq!(bench.refusal(LISTENER).as_deref(), Some("address in use"));
    let fixed = bench.publish(&[(CLUSTER, "a"), (ENDPOINTS, "a"), (LISTENER, "l=2"), (LISTENER, "m"), (ROUTE, "r")]);
    assert_eq!(shape(&fixed), ["Listener +m"]);
    bench.request(take(&fixed[0]));
    assert!(bench.in_sync(LISTENER));
}

#[test]
fn routes_wait_for_the_clusters_they_name() {
    let mut bench = settled();
    let new = [(CLUSTER, "a"), (CLUSTER, "b"), (ENDPOINTS, "a"), (ENDPOINTS, "b"), (LISTENER, "l"), (ROUTE, "r=2")];
    let clusters = bench.publish(&new);
    assert_eq!(shape(&clusters), ["Cluster +b"]);
    assert!(bench.request(take(&clusters[0])).is_empty());
    let endpoints = bench.request(subscribe(ENDPOINTS, &["b"]));
    assert_eq!(shape(&endpoints), ["Endpoints +b"]);
    assert_eq!(shape(&bench.request(take(&endpoints[0]))), ["Route +r"]);
}

#[test]
fn clusters_go_after_the_routes_that_named_them() {
    let mut bench = settled();
    let routes = bench.publish(&[(LISTENER, "l"), (ROUTE, "r=2")]);
    assert_eq!(shape(&routes), ["Route +r"]);
    assert_eq!(shape(&bench.request(take(&routes[0]))), ["Cluster -a", "Endpoints -a"]);
}

#[test]
fn listeners_that_are_gone_are_removed_at_once() {
    let mut bench = settled();
    let removed = bench.publish(&[(CLUSTER, "a"), (ENDPOINTS, "a")]);
    assert_eq!(shape(&removed), ["Listener -l", "Route -r"]);
}

#[test]
fn a_filter_keeps_its_configuration_while_it_is_asked_for() {
    const FILTER: TypeUrl = TypeUrl::ExtensionConfig;
    let mut bench = Bench::<Delta>::new(&[(FILTER, "f"), (FILTER, "g")]);
    let first = bench.request(comes_back(FILTER, &["e", "f", "g"], &[("e", ""), ("f", "")]));
    assert!(first.is_empty(), "held until the proxy has asked for more");
    let first = bench.patience_lost();
    assert_eq!(shape(&first), ["ExtensionConfig +g"], "e may be of another version of us");
    assert!(bench.request(take(&first[0])).is_empty());
    assert!(bench.publish(&[(FILTER, "g")]).is_empty());
    assert_eq!(shape(&bench.publish(&[(FILTER, "f=2"), (FILTER, "g")])), ["ExtensionConfig +f"]);
    // Who has none waits for no more.
    let none = bench.request(subscribe(FILTER, &["h"]));
    assert_eq!(shape(&none), ["ExtensionConfig -h"]);
}

#[test]
fn a_cluster_that_is_replaced_gets_its_endpoints_again() {
    let mut bench = settled();
    let responses = bench.publish(&[(CLUSTER, "a=2"), (ENDPOINTS, "a"), (LISTENER, "l"), (ROUTE, "r=2")]);
    assert_eq!(shape(&responses), ["Cluster +a", "Endpoints +a"]);
    assert_eq!(shape(&bench.patience_lost()), ["Route +r"]);
}

#[test]
fn refused_clusters_do_not_hold_up_routes() {
    let mut bench = settled();
    let new = [(CLUSTER, "a"), (CLUSTER, "b=bad"), (ENDPOINTS, "a"), (ENDPOINTS, "b"), (LISTENER, "l"), (ROUTE, "r=2")];
    let clusters = bench.publish(&new);
    assert_eq!(shape(&bench.request(refuse(&clusters[0], "bad"))), ["Route +r"]);
    assert_eq!(bench.refusal(CLUSTER).as_deref(), Some("bad"));
}

#[test]
fn a_large_answer_comes_in_parts() {
    let large = |name: &str| format!("{name}={}", "x".repeat(20_000));
    let (a, b) = (large("a"), large("b"));
    let world = [(CLUSTER, a.as_str()), (CLUSTER, b.as_str()), (ROUTE, a.as_str()), (ROUTE, b.as_str()), (ROUTE, "c")];
    let mut bench = Bench::<Delta>::new(&world);
    let routes = bench.request(subscribe(ROUTE, &["a", "b", "c", "gone"]));
    assert_eq!(shape(&routes), ["Route +a -gone", "Route +b +c"]);
    assert!(bench.request(take(&routes[1])).is_empty());
    assert!(!bench.in_sync(ROUTE), "the first part is not taken yet");
    assert!(bench.request(take(&routes[0])).is_empty());
    assert!(bench.in_sync(ROUTE));
    assert_eq!(
        shape(&bench.request(subscribe(CLUSTER, &[]))),
        ["Cluster +a +b"],
        "a proxy would not wait for the rest"
    );
}

#[test]
fn a_change_of_one_type_is_nothing_to_another() {
    const FILTER: TypeUrl = TypeUrl::ExtensionConfig;
    let mut bench = Bench::<Delta>::new(&[(FILTER, "f"), (ROUTE, "r")]);
    follow(&mut bench, subscribe(FILTER, &["f", "late"]));
    follow(&mut bench, subscribe(ROUTE, &["r"]));
    let changed = bench.publish(&[(FILTER, "f"), (ROUTE, "r=2")]);
    assert_eq!(shape(&changed), ["Route +r"]);
    assert!(bench.request(take(&changed[0])).is_empty());
    assert_eq!(shape(&bench.request(subscribe(FILTER, &["f"]))), ["ExtensionConfig +f"], "asked for again, sent again");
    assert_eq!(shape(&bench.publish(&[(FILTER, "f"), (FILTER, "late"), (ROUTE, "r=2")])), ["ExtensionConfig +late"]);
}
