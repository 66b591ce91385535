//! What the load client counts: calls by kind, and of each kind by who answered.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Calls by kind (`hello`, `gray`: the same with a header, `slow`: another method), by who answered: `v1`, `v2`, or the text of
/// an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Counts(pub(super) BTreeMap<String, BTreeMap<String, u64>>);

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        for (kind, answers) in &other.0 {
            let own = self.0.entry(kind.clone()).or_default();
            for (answer, count) in answers {
                let sum = own.entry(answer.clone()).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }

    pub(super) fn calls(&self, kind: &str) -> u64 {
        self.0.get(kind).map_or(0, |answers| answers.values().sum())
    }

    /// Share of the calls of a kind that one answered, in percent.
    pub(super) fn share(&self, kind: &str, answer: &str) -> f64 {
        let count = self.0.get(kind).and_then(|answers| answers.get(answer)).copied().unwrap_or(0);
        100.0 * count as f64 / self.calls(kind).max(1) as f64
    }

    /// Errors by kind of call and text.
    pub(super) fn errors(&self) -> Vec<(&str, &str, u64)> {
        let all = self.0.iter().flat_map(|(kind, answers)| {
            answers.iter().map(move |(answer, count)| (kind.as_str(), answer.as_str(), *count))
        });
        all.filter(|(_, answer, _)| !matches!(*answer, "v1" | "v2")).collect()
    }

    /// One line for people.
    pub(super) fn show(&self) -> String {
        let kinds = self.0.iter().map(|(kind, answers)| {
            let calls = self.calls(kind);
            let shares: Vec<String> = answers
                .keys()
                .map(|answer| {
                    let share = self.share(kind, answer);
                    let bar = "█".repeat((share / 10.0).round() as usize);
                    format!("{answer} {share:.0} % {bar}")
                })
                .collect();
            format!("{kind:<5} {calls:>5} calls: {}", shares.join("  "))
        });
        kinds.collect::<Vec<_>>().join("\n    ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_errors() {
        let mut counts = Counts::default();
        for line in [r#"{"hello":{"v1":1,"v2":3}}"#, r#"{"hello":{"v2":4},"slow":{"Boom 6":2}}"#] {
            counts.add(&serde_json::from_str(line).unwrap());
        }
        assert_eq!((counts.calls("hello"), counts.calls("none")), (8, 0));
        assert!((counts.share("hello", "v2") - 87.5).abs() < 0.01);
        assert_eq!(counts.errors(), [("slow", "Boom 6", 2)]);
    }
}
