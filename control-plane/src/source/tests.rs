use std::fs;

use super::Folder;
use crate::problem::Severity;

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
        assert!(loaded.problems.iter().any(|problem| problem.reason.contains("last good default/echo")));
    }
    fs::write(dir.path().join("a.yaml"), "").unwrap();
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
fn a_missing_folder_is_a_problem() {
    assert_eq!(Folder::new("/nonexistent/folder").load().problems.len(), 1);
}
