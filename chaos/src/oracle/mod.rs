//! Decides from what was observed whether each property holds. It shares no code with the engine:
//! what events must come to is worked out by `samples::recompute`, the rest here.

mod balances;
mod confirmations;
mod events;
mod redemptions;
mod requests;
#[cfg(test)]
mod tests;
mod tiers;

use serde::Serialize;

use crate::observe::Observed;

/// How many violations are kept in words.
const EXAMPLES: usize = 10;

/// A property, and whether it holds.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub says: &'static str,
    /// How many things were looked at.
    pub looked_at: usize,
    /// How many of them break it.
    pub violations: usize,
    /// Some of those, in words.
    pub examples: Vec<String>,
    /// What is as it may be and should be known.
    pub listed: Vec<String>,
}

impl Property {
    /// True when nothing breaks it.
    pub fn holds(&self) -> bool {
        self.violations == 0
    }

    fn new(name: &'static str, says: &'static str) -> Self {
        Self {
            name,
            says,
            looked_at: 0,
            violations: 0,
            examples: Vec::new(),
            listed: Vec::new(),
        }
    }

    /// Looks at one thing.
    fn expect(&mut self, is_so: bool, words: impl FnOnce() -> String) {
        self.looked_at += 1;
        if !is_so {
            self.broken(words());
        }
    }

    /// Counts a violation of something that was looked at already.
    fn broken(&mut self, words: String) {
        self.violations += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(words);
        }
    }
}

/// Judges everything.
pub fn judge(observed: &Observed) -> Vec<Property> {
    let expected = events::Expected::of(observed);
    vec![
        events::all_are_there(observed),
        events::one_effect(observed, &expected),
        events::dead_letters(observed, &expected),
        requests::answered(observed, &expected),
        balances::fold(observed),
        balances::sum(observed),
        balances::never_negative(observed),
        balances::holds(observed),
        redemptions::one_end(observed),
        redemptions::one_effect(observed),
        redemptions::books(observed),
        redemptions::published(observed),
        confirmations::awards(observed),
        confirmations::totals(observed),
        confirmations::order(observed),
        confirmations::outbox(observed),
        tiers::once(observed),
        tiers::due(observed),
        tiers::acknowledged(observed),
    ]
}
