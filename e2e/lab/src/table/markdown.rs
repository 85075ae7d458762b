//! Tables as Markdown.

use super::columns::{Layout, layouts};
use super::sheet::{Cell, Sheet};
use crate::record::Record;

/// The tables of all scenarios that were run: medians over rounds, in brackets how many times `direct` it is.
pub(crate) fn markdown(records: Vec<Record>) -> String {
    let sheet = Sheet::new(records);
    let mut text = String::new();
    for scenario in sheet.scenarios() {
        for layout in layouts(&sheet, scenario) {
            let rounds = sheet.rounds(scenario);
            text +=
                &format!("### {scenario}: {} ({rounds} round{})\n\n", layout.title, if rounds == 1 { "" } else { "s" });
            text += &table(&sheet, scenario, &layout);
            text.push('\n');
        }
        text += &failures(&sheet, scenario);
    }
    text
}

fn table(sheet: &Sheet, scenario: &str, layout: &Layout<'_>) -> String {
    let peers = sheet.peers(scenario);
    let show = |peer: &str, column: usize| {
        let column = &layout.columns[column];
        let cell = Cell { sheet, peer, scenario, part: column.part, case: column.case };
        match (cell.is_there(), cell.went_wrong()) {
            (false, true) => "failed".into(),
            (false, false) => "-".into(),
            (true, _) => (column.show)(&cell),
        }
    };
    // Many columns and few peers are easier read the other way round.
    let columns = 0..layout.columns.len();
    if layout.columns.len() > 4 && peers.len() < layout.columns.len() {
        let head = std::iter::once(String::new()).chain(peers.iter().map(|peer| (*peer).to_owned())).collect();
        let row = |column: usize| {
            let figures = peers.iter().map(|peer| show(peer, column));
            std::iter::once(layout.columns[column].head.clone()).chain(figures).collect()
        };
        return lines(head, columns.map(row));
    }
    let head =
        std::iter::once("peer".to_owned()).chain(layout.columns.iter().map(|column| column.head.clone())).collect();
    lines(
        head,
        peers.iter().map(|peer| {
            std::iter::once((*peer).to_owned()).chain(columns.clone().map(|column| show(peer, column))).collect()
        }),
    )
}

fn lines(head: Vec<String>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    line(&head) + &rule + &rows.map(|row| line(&row)).collect::<String>()
}

/// Which peers could not be measured in which parts.
fn failures(sheet: &Sheet, scenario: &str) -> String {
    let mut text = String::new();
    for part in sheet.parts(scenario, None) {
        for peer in sheet.peers(scenario) {
            let cell = Cell { sheet, peer, scenario, part, case: "failed" };
            if let Some(error) = cell.error() {
                text += &format!("{peer} in {scenario}/{part}: {}\n\n", error.lines().next().unwrap_or_default());
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::record::Turn;

    fn turn(round: usize, peer: &str, scenario: &'static str, part: &str) -> Turn {
        Turn { round, peer: peer.into(), scenario, part: part.into() }
    }

    #[test]
    fn a_table_has_medians_and_ratios() {
        let figures = |p50: f64, failed: u32| json!({"ok": 400, "failed": failed, "p50_ms": p50, "p99_ms": 2.0 * p50});
        let mut records = Vec::new();
        for (round, p50) in [(1, 400.0), (2, 500.0), (3, 410.0)] {
            records.push(turn(round, "direct", "wan", "loss1").record("150k_20rps", &figures(p50, 0)).unwrap());
            records.push(turn(round, "adit", "wan", "loss1").record("150k_20rps", &figures(p50 / 4.0, 3)).unwrap());
        }
        records.push(turn(3, "bore", "wan", "loss1").failed(&anyhow::anyhow!("bore never came up\nlogs")));
        let expected = "### wan: 150k_20rps, p50 / p99 in ms (3 rounds)\n\n\
             | peer | loss1 |\n|---|---|\n\
             | direct | 410 / 820 |\n\
             | adit | 102 / 205 (0.25x / 0.25x), 3 of 403 failed |\n\
             | bore | failed |\n\n\
             bore in wan/loss1: bore never came up\n\n";
        assert_eq!(markdown(records), expected);
    }

    #[test]
    fn every_scenario_has_a_table_of_what_it_measured() {
        let figures = json!({"recovered_s": 0.25, "recovered": true, "failed": 0, "slow": 2, "ratio": 0.9, "tunnel_mbps": 9.0,
            "queue_p50_ms": 3.0, "tunnels_mbps": [8.0, 9.0], "before": 50, "after": 50, "first_s": 0.1, "median_s": 0.2,
            "last_s": 0.3, "rss_mb": 12.0, "p99_before_ms": 70.0, "p99_after_ms": 90.0});
        for (scenario, part, case, expected) in [
            ("cut", "down5s", "recovery", "0.25 s; 0 failed, 2 slow"),
            ("restart50", "fifty", "returned", "50 -> 50; 0.10 / 0.20 / 0.30; 12.0 MB"),
            ("fair", "cubic1", "shared", "0.90 (9.00 Mbit/s, queue 3.00 ms)"),
            ("share", "two", "shared", "0.90 (8.00 and 9.00 Mbit/s)"),
            ("drop", "alone", "alone", "70.0 -> 90.0; 0.25 s; 0 failed, 2 slow"),
        ] {
            let table = markdown(vec![turn(1, "adit", scenario, part).record(case, &figures).unwrap()]);
            assert!(table.contains(&format!("| adit | {expected} |")), "{table}");
        }
    }
}
