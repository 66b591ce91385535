use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{Folder, Loaded};
use crate::problem::{Kind, Severity};

const ROUTER: &str = "apiVersion: meltemi.dev/v1alpha1
kind: MetaRouter
metadata: {name: echo}
spec:
  hosts: [echo.test]
  routes:
  - name: all
    route:
    - destination: {host: echo.test}
";

/// Makes a file as old as files are that nobody is writing.
fn age(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
}

fn told(loaded: &Loaded) -> Vec<String> {
    loaded.problems.iter().map(ToString::to_string).collect()
}

fn routers(loaded: &Loaded) -> Vec<&str> {
    loaded.model.meta_routers.iter().map(|router| router.metadata.name.as_str()).collect()
}

fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let folder = Folder::new(dir.path());
    (dir, folder)
}

#[test]
fn several_documents_and_unknown_kinds() {
    let text = format!("# comment\n---\n{ROUTER}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\n");
    let (_dir, mut folder) = folder(&[("a.yaml", &text), ("notes.txt", "no"), (".swp.yaml", "{{{")]);
    let loaded = folder.load();
    assert_eq!(loaded.model.meta_routers.len(), 1);
    assert_eq!(loaded.model.meta_routers[0].origin.line, Some(3));
    assert_eq!(loaded.problems.len(), 1);
    assert_eq!(loaded.problems[0].severity, Severity::Warning);
}

#[test]
fn errors_name_line_object_and_field() {
    let text = ROUTER.replace("    - destination", "    - wight: 3\n      destination");
    let (dir, mut folder) = folder(&[("a.yaml", &format!("---\n{text}"))]);
    let problems = folder.load().problems;
    let text = problems[0].to_string().replace(&dir.path().display().to_string(), "DIR");
    assert!(text.starts_with("DIR/a.yaml:10: error: MetaRouter default/echo: spec.routes[0].route[0]"), "{text}");
    assert!(text.contains("unknown field `wight`"), "{text}");
}

#[test]
fn a_broken_file_keeps_what_it_said() {
    let (dir, mut folder) = folder(&[("a.yaml", ROUTER)]);
    assert_eq!(folder.load().model.meta_routers.len(), 1);
    for broken in ["apiVersion: meltemi.dev/v1alpha1\nkind: MetaRou", "{", &ROUTER.replace("hosts:", "host:")] {
        fs::write(dir.path().join("a.yaml"), broken).unwrap();
        let loaded = folder.load();
        assert_eq!(loaded.model.meta_routers.len(), 1, "{broken}");
        assert!(loaded.problems.iter().any(|problem| problem.severity == Severity::Error));
        assert!(loaded.problems.iter().any(|problem| problem.reason.contains("last good MetaRouter default/echo")));
    }
    fs::write(dir.path().join("a.yaml"), "").unwrap();
    age(&dir.path().join("a.yaml"));
    assert_eq!(folder.load().model.meta_routers.len(), 0, "an empty file says that there is nothing");
    fs::write(dir.path().join("a.yaml"), ROUTER).unwrap();
    assert_eq!(folder.load().model.meta_routers.len(), 1);
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    assert_eq!(folder.load().model.meta_routers.len(), 0);
}

#[test]
fn one_bad_object_leaves_the_others_of_its_file() {
    let two = format!("{ROUTER}---\n{}", ROUTER.replace("name: echo", "name: other"));
    let (dir, mut folder) = folder(&[("a.yaml", &two)]);
    assert_eq!(folder.load().model.meta_routers.len(), 2);
    let changed = format!(
        "{}---\n{}",
        ROUTER.replace("name: all", "name: new"),
        ROUTER.replace("name: echo", "name: other").replace("hosts:", "host:")
    );
    fs::write(dir.path().join("a.yaml"), changed).unwrap();
    let loaded = folder.load();
    let names: Vec<&str> = loaded.model.meta_routers.iter().map(|r| r.spec.routes[0].name.as_str()).collect();
    assert_eq!(names, ["new", "all"]);
}

#[test]
fn a_name_is_taken_once() {
    let (_dir, mut folder) = folder(&[("a.yaml", ROUTER), ("b.yaml", ROUTER)]);
    let loaded = folder.load();
    assert_eq!(loaded.model.meta_routers.len(), 1);
    assert!(loaded.problems[0].to_string().contains("b.yaml"), "the first one stays");
}

#[test]
fn a_blank_file_is_half_written_for_a_while() {
    let (dir, mut folder) = folder(&[("a.yaml", ROUTER)]);
    folder.load();
    for blank in ["", "# nothing\n---\n"] {
        fs::write(dir.path().join("a.yaml"), blank).unwrap();
        let loaded = folder.load();
        assert_eq!(routers(&loaded), ["echo"]);
        assert!(told(&loaded)[0].contains("as if it were being written"), "{:?}", told(&loaded));
        assert!(loaded.again.is_some_and(|again| again <= super::SETTLES));
    }
    age(&dir.path().join("a.yaml"));
    let loaded = folder.load();
    assert_eq!((routers(&loaded), told(&loaded), loaded.again), (vec![], vec![], None));
    fs::write(dir.path().join("a.yaml"), "").unwrap();
    assert_eq!(folder.load().again, None, "there was nothing");
}

#[test]
fn a_misspelt_kind_or_group_takes_nothing_away() {
    let other = ROUTER.replace("name: echo", "name: other");
    let foreign = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: other}\n";
    let two = format!("{ROUTER}---\n{other}---\n{foreign}");
    for (from, to) in
        [("MetaRouter", "MetaRouterr"), ("meltemi.dev/v1alpha1", "meltemi.de/v1alpha1"), ("MetaRouter", "Lisst")]
    {
        let (dir, mut folder) = folder(&[("a.yaml", &two)]);
        assert_eq!(folder.load().model.meta_routers.len(), 2);
        let text = format!("{}---\n{other}---\n{foreign}", ROUTER.replace(from, to));
        fs::write(dir.path().join("a.yaml"), text).unwrap();
        for _ in 0..2 {
            let loaded = folder.load();
            assert_eq!(routers(&loaded), ["other", "echo"], "{to}");
            assert!(told(&loaded).iter().any(|text| text.contains("last good MetaRouter default/echo")), "{to}");
        }
    }
    let (dir, mut folder) = folder(&[("a.yaml", &two)]);
    folder.load();
    // A stranger that has been there all the time keeps nobody from leaving, although it has the name.
    fs::write(dir.path().join("a.yaml"), format!("{ROUTER}---\n{foreign}")).unwrap();
    assert_eq!(routers(&folder.load()), ["echo"]);
    // What moves to another file is not kept in two.
    fs::write(dir.path().join("a.yaml"), "kind: {").unwrap();
    fs::write(dir.path().join("b.yaml"), ROUTER).unwrap();
    let loaded = folder.load();
    assert_eq!((routers(&loaded), loaded.problems.len()), (vec!["echo"], 1));
}

#[test]
fn a_broken_document_keeps_all_that_its_file_said() {
    let other = ROUTER.replace("name: echo", "name: other");
    let (dir, mut folder) = folder(&[("a.yaml", &format!("{ROUTER}---\n{other}"))]);
    folder.load();
    // Whose name is misspelt as well: it might be either.
    let broken = ROUTER.replace("name: echo", "name: ecko").replace("hosts:", "host:");
    fs::write(dir.path().join("a.yaml"), format!("{broken}---\n{other}")).unwrap();
    assert_eq!(routers(&folder.load()), ["other", "echo"]);
}

#[test]
fn who_has_a_name_keeps_it() {
    let (dir, mut folder) = folder(&[("b.yaml", ROUTER)]);
    folder.load();
    fs::write(dir.path().join("a.yaml"), ROUTER.replace("name: all", "name: thief")).unwrap();
    for _ in 0..2 {
        let loaded = folder.load();
        assert_eq!(loaded.model.meta_routers[0].spec.routes[0].name, "all");
        assert!(told(&loaded)[0].contains("a.yaml") && loaded.problems.len() == 1, "{:?}", told(&loaded));
    }
    // In one file as well.
    fs::remove_file(dir.path().join("a.yaml")).unwrap();
    fs::write(dir.path().join("b.yaml"), format!("{}---\n{ROUTER}", ROUTER.replace("name: all", "name: thief")))
        .unwrap();
    assert_eq!(folder.load().model.meta_routers[0].spec.routes[0].name, "all");
}

#[test]
fn groups_are_told_apart() {
    let theirs = ROUTER
        .replace("meltemi.dev/", "metaprotocol.aeraki.io/")
        .replace("host: echo.test}", "host: echo.test, port: {number: 0}}");
    let (_dir, mut folder) = folder(&[("a.yaml", &format!("{ROUTER}---\n{theirs}"))]);
    let loaded = folder.load();
    assert_eq!((loaded.model.meta_routers.len(), told(&loaded)), (2, vec![]));
    assert_eq!(loaded.model.meta_routers[1].spec.routes[0].route[0].destination.port, None, "as Aeraki has it");
}

#[test]
fn lists_are_taken_apart() {
    let indented = ROUTER.replace('\n', "\n  ");
    let text = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {indented}\n- apiVersion: meltemi.dev/v1alpha1\n  kind: MetaRouter\n  \
         metadata: {{name: two}}\n  spec:\n    hots: []\nmetadata: {{resourceVersion: ''}}\n"
    );
    let (_dir, mut folder) = folder(&[("a.yaml", &text)]);
    let loaded = folder.load();
    assert_eq!(routers(&loaded), ["echo"]);
    assert_eq!(loaded.model.meta_routers[0].origin.line, Some(4));
    let line = text.lines().position(|line| line.contains("hots")).unwrap() + 1;
    assert!(
        told(&loaded)[0].contains(&format!("a.yaml:{line}: error: MetaRouter default/two: spec.hots")),
        "{:?}",
        told(&loaded)
    );
}

#[test]
fn what_stands_behind_the_separator_counts() {
    let flow =
        "--- {apiVersion: meltemi.dev/v1alpha1, kind: MetaRouter, metadata: {name: two}, spec: {hosts: [two.test]}}\n";
    let (_dir, mut folder) = folder(&[("a.yaml", &format!("%YAML 1.2\n--- # one\n{ROUTER}{flow}...\n"))]);
    let loaded = folder.load();
    assert_eq!((routers(&loaded), told(&loaded)), (vec!["echo", "two"], vec![]));
}

#[test]
fn what_kubernetes_leaves_empty_is_null() {
    let text = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, labels: null, annotations: null}
addressType: IPv4
endpoints: null
ports: null
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: b}
endpoints: [{addresses: [10.0.0.1], conditions: {ready: null}, labels: null}, {addresses: null, conditions: null}]
ports: [{name: null, port: null, appProtocol: null}, {name: a, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: a, namespace: null}
spec: {clusterIP: null, clusterIPs: null, ports: null, selector: null}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec: {hosts: null, addresses: null, ports: null, endpoints: [{address: 10.0.0.1, ports: null, labels: null}], resolution: STATIC}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: a, subsets: [{name: a, labels: null}], trafficPolicy: {portLevelSettings: null, connectionPool: {tcp: null, http: null}, tls: {mode: null, subjectAltNames: null}}}
";
    let (_dir, mut folder) = folder(&[("a.yaml", text)]);
    let loaded = folder.load();
    assert_eq!(told(&loaded), [""; 0]);
    assert_eq!(loaded.model.endpoint_slices[1].spec.ports.len(), 1, "a port without a number is none");
    assert_eq!(loaded.model.services[0].metadata.namespace, "default");
}

#[test]
fn fields_without_effect_are_told() {
    let text = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, generation: 1}
spec:
  host: a
  trafficPolicie: {}
  trafficPolicy:
    loadBalancer: {simple: PASSTHROUGH, localityLbSetting: {enabled: true}}
    connectionPool:
      tcp: {tcpKeepalive: {time: 1s}}
      http: {maxRequestsPerConnection: 1}
    portLevelSettings:
    - port: {number: 1}
      loadBalancer: {consistentHash: {httpCookie: {name: a}}}
status: {x: y}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a]
  resolution: NONE
specc: {}
";
    let (dir, mut folder) = folder(&[("a.yaml", text)]);
    let loaded = folder.load();
    let name = dir.path().join("a.yaml").display().to_string();
    let told: Vec<String> =
        told(&loaded).iter().map(|text| text.replace(&name, "F").replace(" warning:", "")).collect();
    for want in [
        "F:8: DestinationRule default/a: spec.trafficPolicy.loadBalancer.simple: PASSTHROUGH",
        "F:6: DestinationRule default/a: spec.trafficPolicie: there is no such field",
        "F:8: DestinationRule default/a: spec.trafficPolicy.loadBalancer.localityLbSetting: not acted on",
        "F:10: DestinationRule default/a: spec.trafficPolicy.connectionPool.tcp.tcpKeepalive: not acted on",
        "F:11: DestinationRule default/a: spec.trafficPolicy.connectionPool.http.maxRequestsPerConnection: not acted on",
        "F:14: DestinationRule default/a: spec.trafficPolicy.portLevelSettings[0].loadBalancer.consistentHash.httpCookie: not",
        "F:22: ServiceEntry default/a: spec.resolution: NONE",
        "F:23: ServiceEntry default/a: specc: there is no such field",
    ] {
        assert!(told.iter().any(|text| text.starts_with(want)), "{want}: {told:#?}");
    }
    assert_eq!(told.len(), 8, "{told:#?}");
    assert!(loaded.problems.iter().all(|problem| problem.severity == Severity::Warning));
    // In a mesh istiod acts on them, and only what nobody knows is worth a word.
    let everywhere = loaded.problems.iter().filter(|problem| problem.kind != Kind::Standalone);
    assert_eq!(everywhere.map(|problem| problem.field.as_str()).collect::<Vec<_>>(), ["spec.trafficPolicie", "specc"]);
}

#[test]
fn links_are_followed_once() {
    let (dir, mut folder) = folder(&[("a.yaml", ROUTER)]);
    std::os::unix::fs::symlink(".", dir.path().join("loop")).unwrap();
    std::os::unix::fs::symlink("a.yaml", dir.path().join("b.yaml")).unwrap();
    let loaded = folder.load();
    assert_eq!((routers(&loaded), told(&loaded)), (vec!["echo"], vec![]));
}

#[test]
fn a_folder_that_cannot_be_read_takes_nothing_away() {
    let (dir, mut folder) = folder(&[("a.yaml", ROUTER)]);
    let sub = dir.path().join("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("b.yaml"), ROUTER.replace("name: echo", "name: other")).unwrap();
    assert_eq!(folder.load().model.meta_routers.len(), 2);
    // Whoever may read everything, as root may, is told so by a reading of our own making.
    let mut reading = folder.read();
    reading.files.remove(&sub.join("b.yaml"));
    reading.unreadable.insert(sub, "no".to_owned());
    let loaded = folder.take(&reading);
    assert_eq!((loaded.model.meta_routers.len(), loaded.problems.len(), loaded.is_readable), (2, 1, true));
    fs::remove_dir_all(dir.path()).unwrap();
    let loaded = folder.load();
    assert_eq!((loaded.model.meta_routers.len(), loaded.problems.len(), loaded.is_readable), (2, 1, false));
}

#[test]
fn a_missing_folder_is_a_problem() {
    assert_eq!(Folder::new("/nonexistent/folder").load().problems.len(), 1);
}
