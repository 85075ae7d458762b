//! A part of a scenario: the lab that it wants, and its work in it.

use serde::Serialize;
use serde_json::Value;

use super::bottleneck::{Deep, Fair, Narrowing, Share};
use super::lan::Lan;
use super::outage::Outage;
use super::slow::Slow;
use super::steady::Steady;
use crate::house::{Lab, Plan};

/// A part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// Of which scenario.
    pub(crate) scenario: &'static str,
    /// Its name in the scenario.
    pub(crate) name: String,
    /// The lab that it wants.
    pub(crate) plan: Plan,
    /// What is done in it.
    pub(super) work: Work,
}

/// What is done in a lab.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Work {
    Steady(Steady),
    Outage(Outage),
    Slow(Slow),
    Fair(Fair),
    Share(Share),
    Deep(Deep),
    Narrowing(Narrowing),
    Lan(Lan),
}

/// Takes what was measured, case by case, as soon as it is there.
pub(crate) struct Cases<'a> {
    take: &'a mut dyn FnMut(&str, Value) -> anyhow::Result<()>,
}

impl<'a> Cases<'a> {
    /// Each case is handed to `take`, with its name and an object of figures.
    pub(crate) fn new(take: &'a mut dyn FnMut(&str, Value) -> anyhow::Result<()>) -> Self {
        Self { take }
    }

    pub(super) fn add(&mut self, name: &str, figures: &impl Serialize) -> anyhow::Result<()> {
        (self.take)(name, serde_json::to_value(figures)?)
    }
}

impl Part {
    /// How it is asked for: `wan/loss1`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.scenario, self.name)
    }

    /// Does the work.
    pub(crate) async fn perform(&self, lab: &mut Lab, cases: &mut Cases<'_>) -> anyhow::Result<()> {
        match &self.work {
            Work::Steady(work) => work.perform(lab, cases).await,
            Work::Outage(work) => work.perform(lab, cases).await,
            Work::Slow(work) => work.perform(lab, cases).await,
            Work::Fair(work) => work.perform(lab, cases).await,
            Work::Share(work) => work.perform(lab, cases).await,
            Work::Deep(work) => work.perform(lab, cases).await,
            Work::Narrowing(work) => work.perform(lab, cases).await,
            Work::Lan(work) => work.perform(lab, cases).await,
        }
    }
}
