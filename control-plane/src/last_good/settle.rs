//! Which version of each object is served.

use std::collections::HashSet;

use super::is_error;
use crate::{
    compile::Compiled,
    model::{AnyObject, Model},
    problem::{Key, Problem},
};

/// Changed objects that are tried one by one for who made another object wrong.
const SUSPECTS: usize = 64;

/// One object and its versions.
struct Candidate {
    key: Key,
    newest: AnyObject,
    good: Option<AnyObject>,
    choice: Choice,
    /// The newest version is the last good one.
    unchanged: bool,
    seen: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Newest,
    /// The last good one.
    Good,
    /// None.
    Nothing,
}

impl Candidate {
    /// Whose claims count first: those of objects that have not changed, then those that once were good.
    fn rank(&self) -> (u8, u64) {
        // Endpoints are in nobody's way; that their order stays keeps the cluster's version as it is.
        let settled =
            self.unchanged || self.choice == Choice::Good || matches!(self.newest, AnyObject::EndpointSlice(_));
        let rank = match &self.good {
            _ if settled => 0,
            Some(_) => 1,
            None => 2,
        };
        (rank, self.seen)
    }

    fn chosen(&self) -> Option<&AnyObject> {
        match self.choice {
            Choice::Newest => Some(&self.newest),
            Choice::Good => self.good.as_ref(),
            Choice::Nothing => None,
        }
    }

    /// What is served without the newest version.
    const fn fallback(&self) -> Choice {
        if self.good.is_some() { Choice::Good } else { Choice::Nothing }
    }

    /// Whether it may be to blame for what is wrong elsewhere.
    fn is_new(&self) -> bool {
        self.choice == Choice::Newest && !self.unchanged
    }
}

/// What came out.
pub(super) struct Settled {
    pub(super) model: Model,
    pub(super) compiled: Compiled,
    pub(super) problems: Vec<Problem>,
    /// Newest versions that are good.
    pub(super) good: Vec<AnyObject>,
}

pub(super) struct Settling<'j> {
    candidates: Vec<Candidate>,
    judge: &'j dyn Fn(&Model) -> Compiled,
    /// About versions that are not served.
    refused: Vec<Problem>,
}

impl<'j> Settling<'j> {
    pub(super) fn new(
        objects: impl Iterator<Item = (u64, AnyObject, Option<AnyObject>)>,
        judge: &'j dyn Fn(&Model) -> Compiled,
    ) -> Self {
        let candidates = objects
            .map(|(seen, newest, good)| Candidate {
                key: newest.key(),
                unchanged: good.as_ref().is_some_and(|good| good.says_the_same(&newest)),
                choice: Choice::Newest,
                newest,
                good,
                seen,
            })
            .collect();
        Self { candidates, judge, refused: Vec::new() }
    }

    /// Each turn takes at least one newest version out, so there is an end.
    pub(super) fn settle(mut self) -> Settled {
        loop {
            let (model, compiled) = self.compile();
            let wrong = wrong(&compiled);
            if wrong.is_empty() || !(self.fall_back(&compiled, &wrong) || self.blame(&compiled, &wrong)) {
                return self.finish(model, compiled, &wrong);
            }
        }
    }

    fn compile(&mut self) -> (Model, Compiled) {
        self.candidates.sort_by_key(Candidate::rank);
        let model: Model = self.candidates.iter().filter_map(Candidate::chosen).cloned().collect();
        let compiled = (self.judge)(&model);
        (model, compiled)
    }

    /// Takes the last good version of all that are wrong and have one.
    fn fall_back(&mut self, compiled: &Compiled, wrong: &HashSet<Key>) -> bool {
        let mut any = false;
        for candidate in &mut self.candidates {
            if candidate.is_new() && candidate.good.is_some() && wrong.contains(&candidate.key) {
                candidate.choice = Choice::Good;
                any = true;
                let own = compiled.problems.iter().filter(|problem| problem.origin.key() == candidate.key);
                self.refused.extend(own.map(|problem| {
                    let mut problem = problem.clone();
                    if is_error(&problem) {
                        problem.reason.push_str(STILL);
                    }
                    problem
                }));
            }
        }
        any
    }

    /// Finds a new version without which an object that has not changed is right again.
    fn blame(&mut self, compiled: &Compiled, wrong_before: &HashSet<Key>) -> bool {
        let hurt: HashSet<&Key> = self
            .candidates
            .iter()
            .filter(|candidate| {
                !candidate.is_new() && candidate.good.is_some() && wrong_before.contains(&candidate.key)
            })
            .map(|candidate| &candidate.key)
            .collect();
        if hurt.is_empty() {
            return false;
        }
        let hurt: HashSet<Key> = hurt.into_iter().cloned().collect();
        let suspects: Vec<Key> = self.candidates.iter().filter(|c| c.is_new()).map(|c| c.key.clone()).collect();
        for suspect in suspects.iter().take(SUSPECTS) {
            let Some(fallback) = self.choose(suspect, None) else { continue };
            let (_, without) = self.compile();
            let wrong_without = wrong(&without);
            let healed: Vec<&Key> = hurt.iter().filter(|key| !wrong_without.contains(*key)).collect();
            let worse = wrong_without.iter().any(|key| key != suspect && !wrong_before.contains(key));
            if healed.is_empty() || worse {
                self.choose(suspect, Some(Choice::Newest));
                continue;
            }
            let what = if fallback == Choice::Good { STILL } else { "; left out" };
            let Some(candidate) = self.candidates.iter().find(|candidate| candidate.key == *suspect) else { continue };
            for problem in compiled.problems.iter().filter(|p| is_error(p) && healed.contains(&&p.origin.key())) {
                let Problem { origin, field, reason, .. } = problem;
                let reason = format!("with it {} {} would be wrong: {field}: {reason}{what}", origin.kind, origin.name);
                self.refused.push(candidate.newest.origin().error("", reason));
            }
            return true;
        }
        false
    }

    /// Sets the choice of an object, without a choice to what there is without its newest version.
    fn choose(&mut self, key: &Key, choice: Option<Choice>) -> Option<Choice> {
        let candidate = self.candidates.iter_mut().find(|candidate| candidate.key == *key)?;
        candidate.choice = choice.unwrap_or(candidate.fallback());
        Some(candidate.choice)
    }

    fn finish(self, model: Model, compiled: Compiled, wrong: &HashSet<Key>) -> Settled {
        // What is said about an old version would point into a file that says something else now.
        let old: HashSet<&Key> =
            self.candidates.iter().filter(|candidate| candidate.choice == Choice::Good).map(|c| &c.key).collect();
        let current = compiled.problems.iter().filter(|problem| !old.contains(&problem.origin.key()));
        let problems = self.refused.iter().chain(current).cloned().collect();
        let good = self.candidates.into_iter().filter(|candidate| {
            candidate.choice == Choice::Newest && (candidate.unchanged || !wrong.contains(&candidate.key))
        });
        Settled { model, compiled, problems, good: good.map(|candidate| candidate.newest).collect() }
    }
}

fn wrong(compiled: &Compiled) -> HashSet<Key> {
    compiled.problems.iter().filter(|problem| is_error(problem)).map(|problem| problem.origin.key()).collect()
}

const STILL: &str = "; still serving the last good version";
