//! What the slot asks of each of the three decisions: how its deciders are told and asked, what makes an answer valid,
//! and how it is explained.

use crate::decided::{Candidate, Kind};
use crate::inventory::Inventory;
use crate::recent::Entry;
use crate::wasm::{Failure, LoadError, Policy};
use warren_policy_rules::{Delta, HostInfo};

/// One of the three interfaces, as the slot sees it.
pub(crate) trait Interface: Sized + 'static {
    /// Which decision.
    const KIND: Kind;
    /// The built-in default's state.
    type Native: Send;
    /// A policy's instance.
    type Guest: Send;
    /// What is remembered of an answer.
    type Outcome: Send;

    /// Takes a change of the inventory into the built-in default's state.
    fn apply(native: &mut Self::Native, delta: Delta);

    /// Makes an instance that knows these hosts.
    fn start(policy: &Policy, config: &str, hosts: &[HostInfo]) -> Result<Self::Guest, LoadError>;

    /// One line for people: what was chosen and why.
    fn text(entry: &Entry<Self::Outcome>, inventory: Option<&Inventory>) -> String;

    /// The candidates, for people.
    fn candidates(entry: &Entry<Self::Outcome>, inventory: Option<&Inventory>) -> Vec<Candidate>;
}

/// One question to an interface.
pub(crate) trait Ask<I: Interface> {
    /// What comes back.
    type Answer;

    /// The request's own time.
    fn now_ms(&self) -> u64;
    /// The built-in default's answer.
    fn native(&self, native: &mut I::Native) -> Self::Answer;
    /// Lets the built-in default learn what it would have learnt by answering.
    fn follow(&self, _native: &mut I::Native) {}
    /// The policy's answer and the fuel it burnt.
    fn guest(
        &self,
        guest: &mut I::Guest,
        native: &I::Native,
        deltas: &[Delta],
    ) -> (Result<Self::Answer, Failure>, u64);
    /// The hard limits: what is wrong with the policy's answer.
    fn check(&self, native: &I::Native, answer: &Self::Answer) -> Result<(), String>;
    /// What is remembered.
    fn outcome(&self, answer: &Self::Answer) -> I::Outcome;
    /// Notes the candidates.
    fn note(&self, answer: &Self::Answer, entry: &mut Entry<I::Outcome>);
}
