//! What we say about an object: conditions that tell whether it is taken, whether what it names is there, and whether
//! proxies run by it. Pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use crate::{
    problem::{Kind, Problem, Severity},
    store::Proxy,
};

/// Bytes of a message at most.
const MESSAGE: usize = 2000;

/// How far the newest configuration has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Proxies connected.
    pub(super) proxies: usize,
    /// Of these, how many run by what they were sent last.
    pub(super) acknowledged: usize,
    /// What a proxy said that refuses it.
    pub(super) refused: Option<String>,
}

impl Progress {
    /// Of proxies that should run by this generation.
    pub(super) fn of(proxies: &[Proxy], generation: u64) -> Self {
        let taken = |proxy: &&Proxy| {
            proxy.generation == generation
                && proxy.types.values().all(|state| state.error.is_none() && state.acked == state.sent)
        };
        let refused = proxies.iter().find_map(|proxy| {
            let error = proxy.types.values().find_map(|state| state.error.as_deref())?;
            Some(format!("{}: {error}", proxy.node))
        });
        Self { proxies: proxies.len(), acknowledged: proxies.iter().filter(taken).count(), refused }
    }
}

/// One condition, without the times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) kind: &'static str,
    pub(super) holds: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Judges an object. `problems` are its own; `open`: what is made from it and could not be written.
pub(super) fn judge(problems: &[&Problem], open: &[String], progress: &Progress) -> [Verdict; 3] {
    let accepted = accepted(problems);
    let programmed = programmed(&accepted, open, progress);
    [accepted, resolved(problems), programmed]
}

fn accepted(problems: &[&Problem]) -> Verdict {
    let errors: Vec<&&Problem> = problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let (holds, reason, message) = if errors.is_empty() {
        let message = if problems.is_empty() { "no problems".to_owned() } else { words(problems.iter()) };
        (true, "Accepted", message)
    } else {
        let reason = if errors.iter().any(|problem| problem.kind == Kind::Conflict) {
            "Conflicted"
        } else if errors.iter().all(|problem| problem.kind == Kind::Reference) {
            "RefNotResolved"
        } else {
            "Invalid"
        };
        (false, reason, words(errors.into_iter()))
    };
    Verdict { kind: "Accepted", holds, reason, message }
}

fn resolved(problems: &[&Problem]) -> Verdict {
    let missing: Vec<&&Problem> = problems.iter().filter(|problem| problem.kind == Kind::Reference).collect();
    let (holds, reason, message) = if missing.is_empty() {
        (true, "ResolvedRefs", "all that it names is there".to_owned())
    } else {
        (false, "RefNotFound", words(missing.into_iter()))
    };
    Verdict { kind: "ResolvedRefs", holds, reason, message }
}

fn programmed(accepted: &Verdict, open: &[String], progress: &Progress) -> Verdict {
    let count = format!("{} of {} connected proxies acknowledged", progress.acknowledged, progress.proxies);
    let (holds, reason, message) = if !accepted.holds {
        (false, "Invalid", "this version is not served; if there was a good one before, that one is".to_owned())
    } else if !open.is_empty() {
        (false, "NotWritten", open.join("; "))
    } else if let Some(refused) = &progress.refused {
        (false, "Refused", format!("{count}; {refused}"))
    } else if progress.acknowledged < progress.proxies {
        (false, "Pending", count)
    } else {
        (true, "Programmed", count)
    };
    Verdict { kind: "Programmed", holds, reason, message }
}

fn words<'p>(problems: impl Iterator<Item = &'p &'p Problem>) -> String {
    let mut text = String::new();
    for problem in problems {
        if !text.is_empty() {
            text.push_str("; ");
        }
        if !problem.field.is_empty() {
            text.push_str(&problem.field);
            text.push_str(": ");
        }
        text.push_str(&problem.reason);
        if text.len() > MESSAGE {
            break;
        }
    }
    text.chars().take(MESSAGE).collect()
}

/// The status as it should be, if it is not so yet.
pub(super) fn status(
    verdicts: &[Verdict],
    generation: Option<i64>,
    before: Option<&Value>,
    now: Timestamp,
) -> Option<Value> {
    let before_conditions: Vec<Condition> = before
        .and_then(|status| status.get("conditions"))
        .and_then(|conditions| serde_json::from_value(conditions.clone()).ok())
        .unwrap_or_default();
    let conditions: Vec<Condition> = verdicts
        .iter()
        .map(|verdict| {
            let status = if verdict.holds { "True" } else { "False" };
            let old = before_conditions.iter().find(|old| old.type_ == verdict.kind && old.status == status);
            Condition {
                type_: verdict.kind.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message: verdict.message.clone(),
                observed_generation: generation,
                last_transition_time: old.map_or(Time(now), |old| old.last_transition_time.clone()),
            }
        })
        .collect();
    let same = before_conditions == conditions
        && before.and_then(|status| status.get("observedGeneration")).and_then(Value::as_i64) == generation;
    (!same).then(|| json!({"observedGeneration": generation, "conditions": conditions}))
}

/// Conditions that hold now and did not, or the other way round, or for another reason.
pub(super) fn transitions<'v>(verdicts: &'v [Verdict], before: Option<&Value>) -> Vec<&'v Verdict> {
    let old = |kind: &str, field: &str| {
        let conditions = before?.get("conditions")?.as_array()?;
        let condition = conditions.iter().find(|condition| condition.get("type").is_some_and(|value| value == kind))?;
        condition.get(field)?.as_str()
    };
    let told = |verdict: &&Verdict| {
        let status = if verdict.holds { "True" } else { "False" };
        // On the way to the proxies is no news.
        verdict.reason != "Pending"
            && (old(verdict.kind, "status") != Some(status) || old(verdict.kind, "reason") != Some(verdict.reason))
    };
    verdicts.iter().filter(told).collect()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
