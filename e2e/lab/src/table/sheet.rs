//! Medians over the rounds.

use crate::record::Record;

/// All records, to look things up in.
#[derive(Debug)]
pub(super) struct Sheet(Vec<Record>);

/// Where a figure stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) sheet: &'a Sheet,
    pub(super) peer: &'a str,
    pub(super) scenario: &'a str,
    pub(super) part: &'a str,
    pub(super) case: &'a str,
}

/// The value in the middle; of an even number of them, the mean of the two there.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

impl Sheet {
    pub(super) fn new(records: Vec<Record>) -> Self {
        Self(records)
    }

    /// The different values of a field, in the order in which they first came.
    fn distinct<'a>(&'a self, which: impl Fn(&'a Record) -> Option<&'a str>) -> Vec<&'a str> {
        let mut found = Vec::new();
        for value in self.0.iter().filter_map(which) {
            if !found.contains(&value) {
                found.push(value);
            }
        }
        found
    }

    /// The scenarios that were run.
    pub(super) fn scenarios(&self) -> Vec<&str> {
        self.distinct(|record| Some(&record.scenario))
    }

    /// The peers that took part in one.
    pub(super) fn peers(&self, scenario: &str) -> Vec<&str> {
        self.distinct(|record| (record.scenario == scenario).then_some(&record.peer))
    }

    /// The parts of it that have this case; all of its parts, if none is named.
    pub(super) fn parts(&self, scenario: &str, case: Option<&str>) -> Vec<&str> {
        let has = |record: &Record| record.scenario == scenario && case.is_none_or(|case| record.case == case);
        self.distinct(|record| has(record).then_some(&record.part))
    }

    /// The cases with figures.
    pub(super) fn cases(&self, scenario: &str) -> Vec<&str> {
        let has = |record: &Record| record.scenario == scenario && !record.figures.is_empty();
        self.distinct(|record| has(record).then_some(&record.case))
    }

    /// How many rounds were begun.
    pub(super) fn rounds(&self, scenario: &str) -> usize {
        self.0.iter().filter(|record| record.scenario == scenario).map(|record| record.round).max().unwrap_or(0)
    }
}

impl<'a> Cell<'a> {
    fn records(&self) -> impl Iterator<Item = &'a Record> + use<'a> {
        let Self { sheet, peer, scenario, part, case } = *self;
        sheet.0.iter().filter(move |record| {
            record.peer == peer && record.scenario == scenario && record.part == part && record.case == case
        })
    }

    /// The same of another peer.
    pub(super) fn of(self, peer: &'a str) -> Self {
        Self { peer, ..self }
    }

    /// The same of another case of the part.
    pub(super) fn case(self, case: &'a str) -> Self {
        Self { case, ..self }
    }

    /// Whether it was measured.
    pub(super) fn is_there(&self) -> bool {
        self.records().next().is_some()
    }

    /// Whether it could not be measured.
    pub(super) fn went_wrong(&self) -> bool {
        self.error().is_some()
    }

    /// Why its part could not be measured, in a round in which no later attempt did.
    pub(super) fn error(&self) -> Option<&'a str> {
        let done = |round| self.case("done").records().any(|record| record.round == round);
        let failed = self.case("failed").records().filter(|record| !done(record.round));
        failed.filter_map(|record| record.error.as_deref()).last()
    }

    /// The median of a figure by its JSON pointer without the first slash, such as `cpu_s/relay`. Truth counts as one.
    pub(super) fn get(&self, pointer: &str) -> Option<f64> {
        let number = |record: &Record| {
            let (first, rest) = pointer.split_once('/').map_or((pointer, String::new()), |(a, b)| (a, format!("/{b}")));
            let value = record.figures.get(first)?.pointer(&rest)?;
            value.as_f64().or_else(|| value.as_bool().map(f64::from))
        };
        median(self.records().filter_map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn figures_are_found_over_all_rounds() {
        let record = |round: usize, peer: &str, figures| Record {
            round,
            peer: peer.into(),
            scenario: "wan".into(),
            part: "loss1".into(),
            case: "150k".into(),
            error: None,
            figures: serde_json::from_value(figures).unwrap(),
        };
        let sheet = Sheet::new(vec![
            record(1, "direct", json!({"p50_ms": 4.0, "cpu_s": {"relay": 1.0}, "well": true})),
            record(1, "adit", json!({"p50_ms": 1.0})),
            record(2, "direct", json!({"p50_ms": 5.0, "cpu_s": {"relay": 2.0}, "well": true})),
            record(3, "direct", json!({"p50_ms": 9.0})),
        ]);
        let cell = Cell { sheet: &sheet, peer: "direct", scenario: "wan", part: "loss1", case: "150k" };
        let found = ["p50_ms", "cpu_s/relay", "well", "cpu_s/agent", "none"].map(|pointer| cell.get(pointer));
        assert_eq!(found, [Some(5.0), Some(1.5), Some(1.0), None, None]);
        assert_eq!(cell.of("adit").get("p50_ms"), Some(1.0));
        assert!(!cell.of("bore").is_there());
        assert_eq!((sheet.peers("wan"), sheet.rounds("wan")), (vec!["direct", "adit"], 3));
    }
}
