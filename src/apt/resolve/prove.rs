//! Proving that a set cannot be had: what follows from what was asked for, step by step, until it contradicts itself.
//!
//! Every package has one candidate, so a package is in, out, or open. Three kinds of rules say what follows:
//!
//! - what was asked for is in;
//! - what is in has one alternative of each of its dependencies in;
//! - of two that conflict, one is out.
//!
//! A rule with one open package left decides it, and remembers that it did: following these decisions back from a rule
//! that cannot be kept gives the proof. Where that does not suffice, each alternative of a dependency is tried on its
//! own, and is out if it leads to a contradiction. That is not a complete decision procedure, but it finds what
//! a person would: a proof that needs more is one that nobody would read.

use std::collections::VecDeque;

use super::super::packages::RelationField;
use super::super::universe::{Dependency, PackageId, Universe, VersionId};
use super::state::{State, View, groups, is_critical, is_negative};

/// Something that must hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rule<'u, 'a> {
    /// Asked for by name, or essential.
    AskedFor { package: PackageId },
    /// `package` needs one of the group.
    Needs { package: PackageId, group: &'u [Dependency<'a>] },
    /// `package` cannot be beside `other`, by this relation.
    Conflicts { package: PackageId, other: PackageId, relation: &'u Dependency<'a> },
}

/// Index of a rule.
type RuleId = usize;

/// Why a package is in or out.
#[derive(Debug, Clone)]
enum Reason {
    Rule(RuleId),
    /// Having it in leads to a contradiction by these rules.
    Refuted(Vec<RuleId>),
    /// For the sake of argument.
    Assumed,
}

struct Prover<'s, 'u, 'a> {
    state: &'s State<'u, 'a>,
    rules: Vec<Rule<'u, 'a>>,
    /// Each rule as a list of wishes, one of which must be fulfilled.
    literals: Vec<Vec<(PackageId, bool)>>,
    /// For each package the rules that speak of it.
    mentions: Vec<Vec<RuleId>>,
    decided: Vec<Option<(bool, Reason)>>,
    /// In the order of decision.
    trail: Vec<PackageId>,
}

/// The rules that contradict each other, in the order in which one would tell them; `None` if no proof was found. `state`
/// has the candidates as they were before anything was marked.
pub(super) fn prove<'u, 'a>(state: &State<'u, 'a>, asked_for: &[PackageId]) -> Option<Vec<Rule<'u, 'a>>> {
    let count = state.choices.len();
    let mut prover = Prover {
        state,
        rules: Vec::new(),
        literals: Vec::new(),
        mentions: vec![Vec::new(); count],
        decided: vec![None; count],
        trail: Vec::new(),
    };
    prover.collect(asked_for);
    let contradiction = prover.search(asked_for.len())?;
    Some(prover.narrate(&contradiction).into_iter().map(|rule| prover.rules[rule]).collect())
}

impl<'u, 'a> Prover<'_, 'u, 'a> {
    /// All rules about everything that can be reached from what was asked for.
    fn collect(&mut self, asked_for: &[PackageId]) {
        let universe: &'u Universe<'a> = self.state.universe;
        for &package in asked_for {
            self.add(Rule::AskedFor { package });
        }
        let mut reached = vec![false; self.mentions.len()];
        let mut queue: VecDeque<PackageId> = asked_for.iter().copied().collect();
        let mut order = Vec::new();
        while let Some(package) = queue.pop_front() {
            let candidate = self.state.choice(package).candidate;
            let Some(version) = candidate.filter(|_| !std::mem::replace(&mut reached[package.0 as usize], true)) else {
                continue;
            };
            order.push((package, version));
            for group in groups(universe.dependencies(version)) {
                if is_critical(group[0].field) && !is_negative(group[0].field) {
                    self.add(Rule::Needs { package, group });
                    queue.extend(self.alternatives(package, group));
                }
            }
        }
        for (package, version) in order {
            for relation in universe.dependencies(version).iter().filter(|relation| is_negative(relation.field)) {
                let hit: Vec<VersionId> = self.state.targets(package, relation, View::Candidate).collect();
                for other in hit.into_iter().map(|hit| universe.version(hit).package) {
                    if reached[other.0 as usize] {
                        self.add(Rule::Conflicts { package, other, relation });
                    }
                }
            }
        }
    }

    fn add(&mut self, rule: Rule<'u, 'a>) {
        let id = self.rules.len();
        self.rules.push(rule);
        let literals = self.literals_of(rule);
        for (package, _) in &literals {
            let mentions = &mut self.mentions[package.0 as usize];
            if mentions.last() != Some(&id) {
                mentions.push(id);
            }
        }
        self.literals.push(literals);
    }

    fn alternatives(&self, package: PackageId, group: &'u [Dependency<'a>]) -> Vec<PackageId> {
        let universe = self.state.universe;
        let versions = group.iter().flat_map(|dependency| self.state.targets(package, dependency, View::Candidate));
        versions.map(|version| universe.version(version).package).collect()
    }

    fn literals_of(&self, rule: Rule<'u, 'a>) -> Vec<(PackageId, bool)> {
        match rule {
            Rule::AskedFor { package } => vec![(package, true)],
            Rule::Needs { package, group } => {
                let alternatives = self.alternatives(package, group);
                // Who satisfies himself needs nobody.
                if alternatives.contains(&package) {
                    return Vec::new();
                }
                std::iter::once((package, false)).chain(alternatives.into_iter().map(|one| (one, true))).collect()
            }
            Rule::Conflicts { package, other, .. } => vec![(package, false), (other, false)],
        }
    }

    fn value(&self, package: PackageId) -> Option<bool> {
        self.decided[package.0 as usize].as_ref().map(|(value, _)| *value)
    }

    fn decide(&mut self, package: PackageId, value: bool, reason: Reason) {
        self.decided[package.0 as usize] = Some((value, reason));
        self.trail.push(package);
    }

    /// Draws all conclusions from what was decided at or after `from`; the rule that cannot be kept if there is one.
    fn propagate(&mut self, mut from: usize) -> Result<(), RuleId> {
        while let Some(&package) = self.trail.get(from) {
            from += 1;
            for at in 0..self.mentions[package.0 as usize].len() {
                self.apply(self.mentions[package.0 as usize][at])?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, rule: RuleId) -> Result<(), RuleId> {
        let mut open: Option<(PackageId, bool)> = None;
        for &(package, wanted) in &self.literals[rule] {
            match self.value(package) {
                Some(value) if value == wanted => return Ok(()),
                Some(_) => {}
                None if open.is_some_and(|other| other != (package, wanted)) => return Ok(()),
                None => open = Some((package, wanted)),
            }
        }
        match open {
            Some((package, value)) => self.decide(package, value, Reason::Rule(rule)),
            None if self.literals[rule].is_empty() => {}
            None => return Err(rule),
        }
        Ok(())
    }

    /// The rules of a contradiction.
    fn search(&mut self, asked_for: usize) -> Option<Vec<RuleId>> {
        let start: Result<(), RuleId> = (0..self.rules.len()).try_for_each(|rule| {
            // What nothing can satisfy must be found even if nobody decided about it.
            if rule < asked_for || self.literals[rule].len() == 1 { self.apply(rule) } else { Ok(()) }
        });
        if let Err(rule) = start.and_then(|()| self.propagate(0)) {
            return Some(self.trace(rule));
        }
        loop {
            let settled = self.trail.len();
            for rule in 0..self.rules.len() {
                if let Err(contradiction) = self.try_alternatives(rule) {
                    return Some(self.trace(contradiction));
                }
            }
            if self.trail.len() == settled {
                return None;
            }
        }
    }

    /// Rules out alternatives of an open dependency that lead nowhere.
    fn try_alternatives(&mut self, rule: RuleId) -> Result<(), RuleId> {
        let Rule::Needs { package, .. } = self.rules[rule] else { return Ok(()) };
        if self.value(package) != Some(true) {
            return Ok(());
        }
        let literals = self.literals[rule].clone();
        if literals.iter().any(|&(package, wanted)| self.value(package) == Some(wanted)) {
            return Ok(());
        }
        for (alternative, _) in literals {
            if self.value(alternative).is_some() {
                continue;
            }
            let mark = self.trail.len();
            self.decide(alternative, true, Reason::Assumed);
            let refuted = self.propagate(mark).err().map(|contradiction| self.trace(contradiction));
            for undone in self.trail.split_off(mark) {
                self.decided[undone.0 as usize] = None;
            }
            if let Some(proof) = refuted {
                self.decide(alternative, false, Reason::Refuted(proof));
                self.propagate(mark)?;
            }
        }
        Ok(())
    }

    /// The rules that led to `contradiction`, in an order in which each follows from those before it.
    fn trace(&self, contradiction: RuleId) -> Vec<RuleId> {
        enum Step {
            /// First what the rule builds on, then the rule.
            Visit(RuleId),
            Emit(RuleId),
        }
        let mut proof: Vec<RuleId> = Vec::new();
        let (mut visited, mut emitted) = (vec![false; self.rules.len()], vec![false; self.rules.len()]);
        // Chains can be long: depth first with a stack of our own.
        let mut stack = vec![Step::Visit(contradiction)];
        while let Some(step) = stack.pop() {
            match step {
                Step::Emit(rule) if !std::mem::replace(&mut emitted[rule], true) => proof.push(rule),
                Step::Visit(rule) if !std::mem::replace(&mut visited[rule], true) => {
                    stack.push(Step::Emit(rule));
                    for &(package, _) in self.literals[rule].iter().rev() {
                        match &self.decided[package.0 as usize] {
                            Some((_, Reason::Rule(reason))) => stack.push(Step::Visit(*reason)),
                            // Complete in itself: what it builds on may have been decided in another way since.
                            Some((_, Reason::Refuted(rules))) => {
                                stack.extend(rules.iter().rev().map(|&rule| Step::Emit(rule)));
                            }
                            Some((_, Reason::Assumed)) | None => {}
                        }
                    }
                }
                Step::Emit(_) | Step::Visit(_) => {}
            }
        }
        proof
    }

    /// Puts a proof into the order in which one would tell it: from what was asked for along what it needs, and what
    /// does not go together in the end.
    fn narrate(&self, proof: &[RuleId]) -> Vec<RuleId> {
        let owner = |rule: RuleId| match self.rules[rule] {
            Rule::AskedFor { package } | Rule::Needs { package, .. } | Rule::Conflicts { package, .. } => package,
        };
        let is_conflict = |rule: &RuleId| matches!(self.rules[*rule], Rule::Conflicts { .. });
        let mut stack: Vec<RuleId> =
            proof.iter().copied().filter(|&rule| matches!(self.rules[rule], Rule::AskedFor { .. })).collect();
        stack.sort_by_key(|&rule| std::cmp::Reverse(self.state.universe.name(owner(rule))));
        let mut told = vec![false; self.rules.len()];
        let mut story: Vec<RuleId> = Vec::new();
        while let Some(rule) = stack.pop() {
            if std::mem::replace(&mut told[rule], true) {
                continue;
            }
            story.push(rule);
            for &(introduced, wanted) in self.literals[rule].iter().rev() {
                let about = |next: &RuleId| wanted && owner(*next) == introduced && !is_conflict(next);
                stack.extend(proof.iter().rev().copied().filter(about));
            }
        }
        story.extend(proof.iter().copied().filter(|rule| !told[*rule]));
        story
    }
}

/// The verb of a relation.
pub(super) fn verb(field: RelationField) -> &'static str {
    match field {
        RelationField::PreDepends => "pre-depends on",
        RelationField::Depends => "depends on",
        RelationField::Conflicts => "conflicts with",
        RelationField::Breaks => "breaks",
        RelationField::Recommends => "recommends",
        RelationField::Suggests => "suggests",
        RelationField::Replaces => "replaces",
        RelationField::Enhances => "enhances",
        RelationField::Provides => "provides",
    }
}
