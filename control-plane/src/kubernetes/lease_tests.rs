use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// An API server that knows one lease, and may be out of order.
#[derive(Debug, Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    down: bool,
    writes: Vec<String>,
}

fn client(server: &Arc<Mutex<Server>>) -> Client {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    let server = server.clone();
    tokio::spawn(async move {
        while let Some((request, send)) = handle.next_request().await {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let (status, answer) = server.lock().unwrap().answer(&head.method, &body);
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            send.send_response(Response::builder().status(status).body(body).unwrap());
        }
    });
    Client::new(service, "meltemi")
}

impl Server {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (StatusCode, Value) {
        let failure = |code: StatusCode, reason: &str| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason}),
            )
        };
        if self.down {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable");
        }
        if method == Method::GET {
            return match &self.lease {
                Some(lease) => (StatusCode::OK, lease.clone()),
                None => failure(StatusCode::NOT_FOUND, "NotFound"),
            };
        }
        let mut new: Value = serde_json::from_slice(body).unwrap();
        let known = self.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
        if known.unwrap_or(Value::Null) != new["metadata"]["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        self.version += 1;
        new["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.writes.push(new["spec"]["holderIdentity"].as_str().unwrap().to_owned());
        self.lease = Some(new.clone());
        (StatusCode::OK, new)
    }
}

struct Replica {
    leadership: Leadership,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

fn replica(server: &Arc<Mutex<Server>>, name: &str) -> Replica {
    let (elector, leadership) = Elector::new(client(server), "meltemi-system", name);
    let (stop, stopped) = watch::channel(false);
    Replica { leadership, stop, task: tokio::spawn(elector.run(stopped)) }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_holds_it_and_gives_it_back() {
    let server = Arc::<Mutex<Server>>::default();
    let (first, second) = (replica(&server, "a"), replica(&server, "b"));
    for _ in 0..100 {
        sleep(Duration::from_millis(500)).await;
        assert_eq!(u32::from(first.leadership.holds()) + u32::from(second.leadership.holds()), 1);
    }
    let (leader, mut other) = if first.leadership.holds() { (first, second) } else { (second, first) };
    leader.stop.send_replace(true);
    leader.task.await.unwrap();
    assert!(!leader.leadership.holds());
    let start = Instant::now();
    other.leadership.changed().await;
    assert!(other.leadership.holds() && start.elapsed() <= RETRY + Duration::from_millis(1));
    assert_eq!(server.lock().unwrap().lease.as_ref().unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_holder_is_waited_for() {
    let server = Arc::<Mutex<Server>>::default();
    let mut first = replica(&server, "a");
    first.leadership.changed().await;
    let mut second = replica(&server, "b");
    sleep(Duration::from_secs(5)).await;
    first.task.abort();
    let start = Instant::now();
    second.leadership.changed().await;
    let waited = start.elapsed();
    assert!(waited > DURATION - RETRY * 2 && waited <= DURATION + RETRY * 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_gone_stops_the_writing_before_others_begin() {
    let server = Arc::<Mutex<Server>>::default();
    let mut first = replica(&server, "a");
    first.leadership.changed().await;
    server.lock().unwrap().down = true;
    let start = Instant::now();
    first.leadership.changed().await;
    assert!(!first.leadership.holds() && start.elapsed() <= BELIEF + RETRY);
    server.lock().unwrap().down = false;
    first.leadership.changed().await;
    assert!(first.leadership.holds(), "it is still ours");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_took_is_lost() {
    let server = Arc::<Mutex<Server>>::default();
    let mut first = replica(&server, "a");
    first.leadership.changed().await;
    {
        let mut server = server.lock().unwrap();
        let lease = server.lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = json!("b");
        lease["metadata"]["resourceVersion"] = json!("900");
    }
    first.leadership.changed().await;
    assert!(!first.leadership.holds());
    assert!(server.lock().unwrap().writes.iter().all(|holder| holder == "a"));
}
