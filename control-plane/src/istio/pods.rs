//! Which pods are behind a service, in a mesh that has thousands of both: looked up by a label, not searched for.

use std::collections::{BTreeMap, HashMap};

use super::Workload;

/// A pod's namespace, and the name and value of one of its labels.
type Label<'f> = (&'f str, &'f str, &'f str);

/// Pods by their labels.
pub(super) struct Pods<'f> {
    by_label: HashMap<Label<'f>, Vec<&'f Workload>>,
}

impl<'f> Pods<'f> {
    pub(super) fn new(workloads: &'f [Workload]) -> Self {
        let mut by_label: HashMap<Label<'f>, Vec<&Workload>> = HashMap::new();
        for pod in workloads {
            for (name, value) in &pod.labels {
                by_label.entry((&pod.namespace, name, value)).or_default().push(pod);
            }
        }
        Self { by_label }
    }

    /// Those that a service of the namespace selects, in their order; none without a selector.
    pub(super) fn behind(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Vec<&'f Workload> {
        let labels = selector.iter().map(|(name, value)| (namespace, name.as_str(), value.as_str()));
        let with = labels.map(|label| self.by_label.get(&label).map_or(&[][..], Vec::as_slice));
        // Of the labels that all have the rarest leaves least to look at.
        let rarest = with.min_by_key(|pods| pods.len()).unwrap_or_default();
        rarest.iter().copied().filter(|pod| pod.is_selected(namespace, selector)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_labels_of_a_selector_count_and_its_namespace() {
        let pod = |namespace: &str, name: &str, all: &[(&str, &str)]| Workload {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: labels(all),
        };
        let workloads = [
            pod("shop", "b", &[("app", "orders"), ("version", "v1")]),
            pod("shop", "a", &[("app", "orders"), ("version", "v2")]),
            pod("shop", "c", &[("app", "users"), ("version", "v1")]),
            pod("test", "d", &[("app", "orders"), ("version", "v1")]),
            pod("shop", "e", &[]),
        ];
        let pods = Pods::new(&workloads);
        for (namespace, selector, names) in [
            ("shop", &[("app", "orders")] as &[_], &["b", "a"] as &[&str]),
            ("shop", &[("app", "orders"), ("version", "v1")], &["b"]),
            ("shop", &[("app", "orders"), ("zone", "x")], &[]),
            ("test", &[("version", "v1")], &["d"]),
            ("none", &[("app", "orders")], &[]),
            ("shop", &[], &[]),
        ] {
            let behind = pods.behind(namespace, &labels(selector));
            assert_eq!(
                behind.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(),
                names,
                "{namespace} {selector:?}"
            );
        }
    }
}
