use std::sync::Mutex;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::{client::Body, runtime::watcher::Event};
use serde_json::{Value, json};

use super::*;
use crate::{istio::DesiredKind, kubernetes::live::KINDS};

/// Answers as it is told, and writes down what it was asked.
#[derive(Default)]
struct Server {
    asked: Vec<(Method, String, Value)>,
    /// By path: a status and a body.
    answers: BTreeMap<String, (u16, Value)>,
}

struct World {
    server: Arc<Mutex<Server>>,
    live: Arc<Live>,
    writer: Writer,
    report: watch::Receiver<Report>,
    lease: watch::Sender<Option<Instant>>,
}

fn target(name: &str) -> Target {
    Target { kind: DesiredKind::EnvoyFilter, namespace: "istio-system".to_owned(), name: name.to_owned() }
}

fn order(number: u64, names: &[(&str, Value)]) -> Order {
    let wanted = names.iter().map(|(name, spec)| (target(name), Wanted { spec: spec.into(), owner: None }));
    Order { number, wanted: wanted.collect(), held: BTreeSet::new() }
}

fn object(name: &str, version: u64, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {
            "name": name,
            "namespace": "istio-system",
            "uid": format!("uid-{name}"),
            "resourceVersion": version.to_string(),
            "labels": {MANAGED_BY.0: MANAGED_BY.1},
            "managedFields": [{"manager": MANAGER, "operation": "Apply"}],
        },
        "spec": spec,
    })
}

impl World {
    fn new(existing: &[Value]) -> Self {
        let server = Arc::<Mutex<Server>>::default();
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let answering = server.clone();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let (status, answer) = answering.lock().unwrap().answer(&head.method, head.uri.path(), body);
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                send.send_response(Response::builder().status(status).body(answer).unwrap());
            }
        });
        let client = Client::new(service, "meltemi");
        let live = Arc::new(Live::default());
        for kind in KINDS {
            live.take(kind, Event::Init);
            if kind == DesiredKind::EnvoyFilter {
                for object in existing {
                    live.take(kind, Event::InitApply(serde_json::from_value(object.clone()).unwrap()));
                }
            }
            live.take(kind, Event::InitDone);
        }
        let (lease, leadership) = Leadership::of_test(true);
        let (reports, report) = watch::channel(Report::default());
        let events = Events::new(client.clone(), "test");
        let writer = Writer::new(client, live.clone(), leadership, events, reports);
        Self { server, live, writer, report, lease }
    }

    /// What was written since the last time, events apart.
    fn writes(&self) -> Vec<(Method, String)> {
        let asked = std::mem::take(&mut self.server.lock().unwrap().asked);
        let writes = asked.into_iter().filter(|(method, path, _)| method != Method::GET && !path.contains("/events"));
        writes.map(|(method, path, _)| (method, path.rsplit('/').next().unwrap().to_owned())).collect()
    }

    fn told(&self, object: &Value) {
        let object = serde_json::from_value(object.clone()).unwrap();
        self.live.take(DesiredKind::EnvoyFilter, Event::Apply(object));
    }
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (StatusCode, Value) {
        self.asked.push((method.clone(), path.to_owned(), body.clone()));
        let name = path.rsplit('/').next().unwrap();
        if let Some((status, answer)) = self.answers.get(path) {
            return (StatusCode::from_u16(*status).unwrap(), answer.clone());
        }
        match *method {
            Method::GET => (StatusCode::NOT_FOUND, json!({"kind": "Status", "code": 404, "reason": "NotFound"})),
            Method::PATCH => (StatusCode::OK, object(name, 100, &body["spec"])),
            _ => (StatusCode::OK, json!({"kind": "Status", "status": "Success"})),
        }
    }
}

const fn write(method: Method, name: &str) -> (Method, &str) {
    (method, name)
}

fn is(writes: &[(Method, String)], expected: &[(Method, &str)]) {
    let mut sorted: Vec<(Method, &str)> = writes.iter().map(|(method, name)| (method.clone(), name.as_str())).collect();
    sorted.sort_by_key(|(_, name)| name.to_string());
    assert_eq!(sorted, expected);
}

#[tokio::test]
async fn writes_what_differs_and_deletes_what_nobody_wants() {
    let same = json!({"a": 1});
    let mut world = World::new(&[object("same", 1, &same), object("old", 1, &same), object("other", 1, &same)]);
    let order = order(1, &[("same", same), ("other", json!({"a": 2})), ("new", json!({"a": 3}))]);
    world.writer.bring_about(&order).await;
    let deletion = world.server.lock().unwrap().asked.iter().find(|(method, ..)| method == Method::DELETE).cloned();
    assert_eq!(deletion.unwrap().2["preconditions"], json!({"uid": "uid-old", "resourceVersion": "1"}));
    is(&world.writes(), &[write(Method::PATCH, "new"), write(Method::DELETE, "old"), write(Method::PATCH, "other")]);
    assert_eq!(*world.report.borrow(), Report { number: 1, open: BTreeMap::new() });
    world.writer.bring_about(&order).await;
    is(&world.writes(), &[]);
}

#[tokio::test]
async fn nothing_is_written_without_the_lease_or_before_all_is_known() {
    let mut world = World::new(&[object("old", 1, &json!({}))]);
    world.lease.send_replace(None);
    world.writer.bring_about(&order(1, &[("new", json!({}))])).await;
    is(&world.writes(), &[]);
    world.lease.send_replace(Some(Instant::now() + PATIENCE));
    world.writer.live = Arc::new(Live::default());
    world.writer.bring_about(&order(1, &[("new", json!({}))])).await;
    is(&world.writes(), &[]);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone() {
    let mut world = World::new(&[]);
    let path = "/apis/networking.istio.io/v1alpha3/namespaces/istio-system/envoyfilters/theirs";
    let mut theirs = object("theirs", 1, &json!({}));
    theirs["metadata"]["labels"] = json!({});
    world.server.lock().unwrap().answers.insert(path.to_owned(), (200, theirs));
    let order = order(1, &[("theirs", json!({"a": 1})), ("ours", json!({"a": 1}))]);
    world.writer.bring_about(&order).await;
    is(&world.writes(), &[write(Method::PATCH, "ours")]);
    let open = world.report.borrow().open.clone();
    assert!(open[&target("theirs")].contains("not ours"), "{open:?}");
    // Not asked again at once.
    world.writer.bring_about(&order).await;
    assert_eq!(world.server.lock().unwrap().asked.iter().filter(|(_, path, _)| path.ends_with("theirs")).count(), 0);
}

#[tokio::test]
async fn drift_is_repaired_by_force_and_told_once() {
    let mut world = World::new(&[]);
    let order = order(1, &[("a", json!({"a": 1}))]);
    world.writer.bring_about(&order).await;
    world.writes();
    for version in [101, 102] {
        world.told(&object("a", version, &json!({"a": "edited"})));
        world.writer.bring_about(&order).await;
        // What the mock gives back is older than what was told: as if the watch were ahead.
        is(&world.writes(), &[write(Method::PATCH, "a")]);
    }
    world.live.take(
        DesiredKind::EnvoyFilter,
        Event::Delete(serde_json::from_value(object("a", 103, &json!({"a": 1}))).unwrap()),
    );
    world.writer.bring_about(&order).await;
    is(&world.writes(), &[write(Method::PATCH, "a")]);
}

#[tokio::test]
async fn a_write_that_fails_is_reported_and_does_not_stop_others() {
    let mut world = World::new(&[]);
    let path = "/apis/networking.istio.io/v1alpha3/namespaces/istio-system/envoyfilters/bad";
    let refusal = json!({"kind": "Status", "status": "Failure", "code": 403, "message": "bad is forbidden", "reason": "Forbidden"});
    world.server.lock().unwrap().answers.insert(path.to_owned(), (403, refusal));
    world.writer.bring_about(&order(7, &[("bad", json!({})), ("good", json!({"a": 1}))])).await;
    assert_eq!(world.report.borrow().number, 7);
    assert_eq!(world.report.borrow().open[&target("bad")], "bad is forbidden");
    assert!(world.writes().contains(&(Method::PATCH, "good".to_owned())));
    assert!(world.writer.pacing.next(Instant::now()).is_some(), "it is tried again");
}
