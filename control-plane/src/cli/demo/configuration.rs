//! The YAML that the demo writes, as a user would.

/// Where things are.
pub(super) struct Places {
    pub(super) protocol: &'static str,
    pub(super) service: u16,
    pub(super) v1: u16,
    pub(super) v2: u16,
}

/// The service and its two versions.
pub(super) fn service(places: &Places) -> String {
    let Places { protocol, service, v1, v2 } = places;
    let port = format!("tcp-metaprotocol-{protocol}");
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: demo}}
spec:
  hosts: [demo.test]
  ports: [{{number: {service}, name: {port}, protocol: TCP}}]
  resolution: STATIC
  endpoints:
  - {{address: 127.0.0.1, ports: {{{port}: {v1}}}, labels: {{version: v1}}}}
  - {{address: 127.0.0.1, ports: {{{port}: {v2}}}, labels: {{version: v2}}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: demo}}
spec:
  host: demo.test
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
"
    )
}

/// A MetaRouter with these routes, given as the lines below `routes:`.
pub(super) fn routes(lines: &str) -> String {
    format!(
        "apiVersion: meltemi.dev/v1alpha1
kind: MetaRouter
metadata: {{name: demo}}
spec:
  hosts: [demo.test]
  routes:
{lines}"
    )
}

pub(super) const ALL_TO_V1: &str = "  - {name: all, route: [{destination: {host: demo.test, subset: v1}}]}
";

pub(super) const BY_WEIGHT: &str = "  - name: weighted
    route:
    - {destination: {host: demo.test, subset: v1}, weight: 20}
    - {destination: {host: demo.test, subset: v2}, weight: 80}
";

pub(super) const BY_METHOD: &str = "  - {name: pinned, match: {attributes: {method: {exact: slow}}}, route: [{destination: {host: demo.test, subset: v2}}]}
  - {name: rest, route: [{destination: {host: demo.test, subset: v1}}]}
";

pub(super) const BY_HEADER: &str =
    "  - {name: gray, match: {attributes: {env: {exact: gray}}}, route: [{destination: {host: demo.test, subset: v2}}]}
  - {name: rest, route: [{destination: {host: demo.test, subset: v1}}]}
";

pub(super) const WITH_FAULT: &str = "  - name: broken
    match: {attributes: {method: {exact: slow}}}
    fault: {abort: {percentage: {value: 100}}}
    route: [{destination: {host: demo.test, subset: v1}}]
  - {name: rest, route: [{destination: {host: demo.test, subset: v1}}]}
";

pub(super) const TO_BOTH: &str = "  - name: both
    retries: {attempts: 3, idempotent: true}
    route: [{destination: {host: demo.test}}]
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::{Host, compile},
        source::Folder,
    };

    #[test]
    fn every_phase_is_taken_without_a_word() {
        let places = Places { protocol: "thrift", service: 9090, v1: 9091, v2: 9092 };
        for lines in [ALL_TO_V1, BY_WEIGHT, BY_METHOD, BY_HEADER, WITH_FAULT, TO_BOTH] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("service.yaml"), service(&places)).unwrap();
            std::fs::write(dir.path().join("routes.yaml"), routes(lines)).unwrap();
            let loaded = Folder::new(dir.path()).load();
            assert_eq!(loaded.problems, [], "{lines}");
            assert_eq!(compile(&loaded.model, &Host::Module).problems, [], "{lines}");
        }
    }
}
