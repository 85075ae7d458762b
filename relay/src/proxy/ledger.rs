//! What agents counted before they were started anew, or went: sums over a fleet must not fall.
//!
//! Of each agent the last count is kept, and what it had counted when it began anew. It is asked for seldom, by people and by
//! programs that measure, so one lock holds it all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use adit_common::id::AgentId;
use serde_json::Value;

use super::merge::{add, fell, name, nothing, rows};

/// How many counts are kept; beyond it those of who is not asked now are forgotten.
const MOST: usize = 4096;

#[derive(Debug)]
struct Account {
    /// What it counted in earlier lives.
    before: Value,
    /// What it last said.
    last: Value,
}

type Accounts = HashMap<AgentId, HashMap<String, Account>>;

/// The counts of all agents, row by row.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Accounts>);

impl Ledger {
    /// Notes what agents say now, and returns one document of rows over all agents that ever said something of what they are
    /// asked for. `narrow` is what the question is narrowed to, such as a model: rows of others are left out.
    pub(super) fn sum(
        &self,
        said: Vec<(AgentId, Value)>,
        at: &str,
        key: &[String],
        narrow: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let mut accounts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut whole = said.first()?.1.clone();
        if accounts.values().map(HashMap::len).sum::<usize>() > MOST {
            accounts.retain(|agent, _| said.iter().any(|(now, _)| now == agent));
        }
        for (agent, mut document) in said {
            let list = document.pointer_mut(at)?.as_array_mut()?;
            let known = accounts.entry(agent).or_default();
            for row in std::mem::take(list) {
                let account =
                    known.entry(name(&row, key)).or_insert_with(|| Account { before: nothing(), last: nothing() });
                let last = std::mem::replace(&mut account.last, row);
                if fell(&last, &account.last) {
                    account.before = add("", std::mem::replace(&mut account.before, Value::Null), last);
                }
            }
        }
        let all = accounts.values().flat_map(HashMap::values);
        let counted = all.filter(|account| narrow(&account.last));
        let each = counted.map(|account| add("", account.before.clone(), account.last.clone()));
        *whole.pointer_mut(at)? = each.collect();
        rows(vec![whole], at, key)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(agent: &str, model: &str, count: u64) -> (AgentId, Value) {
        (agent.parse().unwrap(), json!({ "stats": [{ "name": model, "count": count }] }))
    }

    fn sum(ledger: &Ledger, said: Vec<(AgentId, Value)>) -> u64 {
        let document = ledger.sum(said, "/stats", &["name".into()], |_| true).unwrap();
        document["stats"].as_array().unwrap().iter().find(|row| row["name"] == "m").unwrap()["count"].as_u64().unwrap()
    }

    #[test]
    fn a_sum_never_falls_whoever_leaves_or_begins_anew() {
        let ledger = Ledger::default();
        assert_eq!(sum(&ledger, vec![said("one", "m", 5), said("two", "m", 7)]), 12);
        assert_eq!(sum(&ledger, vec![said("one", "m", 6), said("two", "m", 7)]), 13);
        // Two was started anew.
        assert_eq!(sum(&ledger, vec![said("one", "m", 6), said("two", "m", 1)]), 14);
        assert_eq!(sum(&ledger, vec![said("one", "m", 6), said("two", "m", 3)]), 16);
        // One has left.
        assert_eq!(sum(&ledger, vec![said("two", "m", 4)]), 17);
        // And comes back with nothing counted.
        assert_eq!(sum(&ledger, vec![said("one", "m", 0), said("two", "m", 4)]), 17);
        assert_eq!(sum(&ledger, vec![said("one", "m", 2), said("two", "m", 4)]), 19);
    }

    #[test]
    fn a_question_of_one_model_is_answered_with_one() {
        let ledger = Ledger::default();
        sum(&ledger, vec![said("one", "m", 5), said("two", "other", 9)]);
        let now = vec![said("one", "m", 5)];
        let narrowed = ledger.sum(now, "/stats", &["name".into()], |row| row["name"] == "m").unwrap();
        assert_eq!(narrowed, json!({ "stats": [{ "name": "m", "count": 5 }] }));
    }
}
