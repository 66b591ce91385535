use super::*;

fn spec(crd: &Value) -> Value {
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

#[test]
fn every_rule_finds_its_place() {
    for (mut spec, rules) in
        [(schema::<MetaRouter>(), META_ROUTER), (schema::<ApplicationProtocol>(), APPLICATION_PROTOCOL)]
    {
        for (path, _) in rules {
            let mut found = false;
            at(&mut spec, path, |_| found = true);
            assert!(found, "{path}");
        }
    }
    for (path, _) in BOUNDS {
        let mut list = false;
        at(&mut schema::<MetaRouter>(), path, |schema| list = schema["type"] == "array");
        assert!(list, "{path}");
    }
}

/// What Kubernetes calls structural: a type everywhere, no closed objects, no references.
#[test]
fn schemas_are_structural() {
    fn check(schema: &Value, path: &str) {
        assert!(schema["type"].is_string(), "{path}: {schema}");
        for word in ["$ref", "default", "anyOf", "oneOf", "$schema", "title", "const"] {
            assert!(schema.get(word).is_none(), "{path}: {word}");
        }
        assert!(schema.get("additionalProperties").is_none_or(Value::is_object), "{path}");
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            check(inner, &format!("{path}.{name}"));
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(schema) = schema.get(inner) {
                check(schema, &format!("{path}.{inner}"));
            }
        }
    }
    for crd in crds() {
        check(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "");
        assert!(spec(&crd)["description"].is_string());
    }
}

#[test]
fn the_chart_has_the_same() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../install/chart/meltemi/files/crds.yaml");
    let chart = std::fs::read_to_string(file).unwrap_or_default();
    assert!(chart == crds_yaml().unwrap(), "run `meltemi crds > install/chart/meltemi/files/crds.yaml`");
}
