//! Which figures of a scenario matter, and how they are written.

use super::sheet::{Cell, Sheet};

/// A column: its head, where its figures stand, and how they are written.
pub(super) struct Column<'a> {
    pub(super) head: String,
    pub(super) part: &'a str,
    pub(super) case: &'a str,
    pub(super) show: fn(&Cell<'_>) -> String,
}

/// A table: what it is called, and its columns.
pub(super) struct Layout<'a> {
    pub(super) title: String,
    pub(super) columns: Vec<Column<'a>>,
}

/// Three digits.
pub(super) fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// A figure, with how many times that of `direct` it is.
fn beside_direct(cell: &Cell<'_>, figure: &str, scale: f64) -> String {
    let own = cell.get(figure).map(|value| value * scale);
    let ratio = cell.get(figure).zip(cell.of("direct").get(figure)).filter(|(_, direct)| *direct > 0.0);
    match ratio {
        Some((own_value, direct)) if cell.peer != "direct" => format!("{} ({:.2}x)", number(own), own_value / direct),
        _ => number(own),
    }
}

/// `p50 / p99 (their ratios to direct)`, and what failed.
fn delay(cell: &Cell<'_>) -> String {
    let (Some(p50), Some(p99)) = (cell.get("p50_ms"), cell.get("p99_ms")) else { return "-".into() };
    let (ok, failed) = (cell.get("ok").unwrap_or(0.0), cell.get("failed").unwrap_or(0.0));
    if ok == 0.0 {
        return format!("none ({failed:.0} failed)");
    }
    let mut text = format!("{} / {}", number(Some(p50)), number(Some(p99)));
    let direct = cell.of("direct");
    if let (Some(half), Some(most)) = (direct.get("p50_ms"), direct.get("p99_ms"))
        && cell.peer != "direct"
        && half > 0.0
    {
        text += &format!(" ({:.2}x / {:.2}x)", p50 / half, p99 / most);
    }
    if failed > 0.0 {
        text += &format!(", {failed:.0} of {:.0} failed", ok + failed);
    }
    text
}

fn up(cell: &Cell<'_>) -> String {
    beside_direct(cell, "up_mbps", 1.0)
}

fn per_second(cell: &Cell<'_>) -> String {
    beside_direct(cell, "per_second", 1.0)
}

/// Processor seconds for ten thousand requests: front, relay and agent.
fn processor(cell: &Cell<'_>) -> String {
    // What was counted ran a little longer than what was asked for; answers of the warm-up are in both.
    let Some(answers) = cell.get("per_second").zip(cell.get("seconds")).map(|(rate, seconds)| rate * seconds) else {
        return "-".into();
    };
    let part = |role: &str| cell.get(&format!("cpu_s/{role}")).unwrap_or(0.0) * 1e4 / answers.max(1.0);
    let parts = ["front", "relay", "agent"].map(part);
    format!("{:.2} + {:.2} + {:.2} = {:.2}", parts[0], parts[1], parts[2], parts.iter().sum::<f64>())
}

fn memory(cell: &Cell<'_>) -> String {
    let role = |role: &str| {
        let [idle, peak] = ["idle_mb", "peak_mb"].map(|when| number(cell.get(&format!("{when}/{role}"))));
        format!("{role} {idle} -> {peak}")
    };
    let roles = ["front", "relay", "agent"].into_iter().filter(|role| cell.get(&format!("idle_mb/{role}")).is_some());
    let failed = cell.get("failed").filter(|failed| *failed > 0.0).map(|failed| format!(" ({failed:.0} failed)"));
    roles.map(role).collect::<Vec<_>>().join(", ") + &failed.unwrap_or_default()
}

fn recovery(cell: &Cell<'_>) -> String {
    let Some(seconds) = cell.get("recovered_s") else { return "-".into() };
    let failed = format!("{} failed, {} slow", number(cell.get("failed")), number(cell.get("slow"))).replace(".00", "");
    let after =
        if cell.get("recovered") == Some(1.0) { format!("{seconds:.2} s") } else { "not within the run".into() };
    format!("{after}; {failed}")
}

fn returned(cell: &Cell<'_>) -> String {
    let [before, after] =
        ["before", "after"].map(|when| cell.get(when).map_or("-".into(), |count| format!("{count:.0}")));
    let [first, median, last] = ["first_s", "median_s", "last_s"].map(|when| number(cell.get(when)));
    format!("{before} -> {after}; {first} / {median} / {last}; {} MB", number(cell.get("rss_mb")))
}

fn grown(cell: &Cell<'_>) -> String {
    format!("{} -> {}", number(cell.get("rss_before")), number(cell.get("rss_after")))
}

fn fairness(cell: &Cell<'_>) -> String {
    let Some(ratio) = cell.get("ratio") else { return "-".into() };
    let (tunnel, queue) = (number(cell.get("tunnel_mbps")), number(cell.get("queue_p50_ms")));
    format!("{ratio:.2} ({tunnel} Mbit/s, queue {queue} ms)")
}

fn sharing(cell: &Cell<'_>) -> String {
    let Some(ratio) = cell.get("ratio") else { return "-".into() };
    let [one, other] = [0, 1].map(|which| number(cell.get(&format!("tunnels_mbps/{which}"))));
    format!("{ratio:.2} ({one} and {other} Mbit/s)")
}

fn queue(cell: &Cell<'_>) -> String {
    let [half, most, longest] = ["queue_p50_ms", "queue_p95_ms", "queue_max_ms"].map(|figure| number(cell.get(figure)));
    format!("{half} / {most} / {longest}")
}

fn narrowed(cell: &Cell<'_>) -> String {
    let [before, after] = ["p99_before_ms", "p99_after_ms"].map(|when| number(cell.get(when)));
    format!("{before} -> {after}; {}", recovery(cell))
}

/// The tables of a scenario.
pub(super) fn layouts<'a>(sheet: &'a Sheet, scenario: &'a str) -> Vec<Layout<'a>> {
    let at = |part: &'a str, head: &str, case: &'a str, show| Column { head: head.into(), part, case, show };
    let one = |title: &str, columns| vec![Layout { title: title.into(), columns }];
    let parts = |case: &'a str, show: fn(&Cell<'_>) -> String| {
        sheet.parts(scenario, Some(case)).into_iter().map(|part| at(part, part, case, show)).collect::<Vec<_>>()
    };
    match scenario {
        "lan" => one(
            "delay in ms, p50 / p99; answers a second; Gbit/s; processor seconds for 10,000 requests (front + relay + agent); \
             megabytes idle and with 1,000 requests under way",
            vec![
                at("lan", "ms, 1 KB, 1 at a time", "1k_1", delay),
                at("lan", "ms, 150 KB, 1", "150k_1", delay),
                at("lan", "answers/s, 1 KB, 32 at a time", "1k_32", per_second),
                at("lan", "answers/s, 1 KB, 256", "1k_256", per_second),
                at("lan", "answers/s, 150 KB, 32", "150k_32", per_second),
                at("lan", "Gbit/s, 100 MB up", "100m_up", |cell| beside_direct(cell, "up_mbps", 1e-3)),
                at("lan", "Gbit/s, 100 MB down", "100m_down", |cell| beside_direct(cell, "down_mbps", 1e-3)),
                at("lan", "answers/s, fresh connections", "fresh_16", per_second),
                at("lan", "CPU s, 1 KB", "1k_32", processor),
                at("lan", "CPU s, 150 KB", "150k_32", processor),
                at("lan", "MB", "memory", memory),
            ],
        ),
        "slow" => one(
            "150 KB at 20/s, p50 / p99 in ms, alone and beside slow clients; megabytes of relay and agent",
            vec![
                at("slow", "alone", "alone", delay),
                at("slow", "beside slow clients", "beside", delay),
                at("slow", "memory", "beside", grown),
                at("slow", "WebSocket echo, 1 KB", "websocket", delay),
            ],
        ),
        "cut" | "restart" => {
            one("seconds until every later request was answered within 1 s", parts("recovery", recovery))
        }
        "restart50" => one(
            "agents that answer before and after; seconds until the first, half of them, all do; relay's megabytes",
            parts("returned", returned),
        ),
        "fair" => one("the tunnel's rate over that of one flow of TCP", parts("shared", fairness)),
        "share" => one("the slower tunnel's rate over the faster one's", parts("shared", sharing)),
        "deep" => one(
            "32 uploads at a time over 20 Mbit/s with 1 s of buffer; the queue's p50 / p95 / max in ms",
            vec![
                at("1s", "queue", "filled", queue),
                at("1s", "Mbit/s", "filled", up),
                at("1s", "150 KB, p50 / p99 ms", "filled", delay),
            ],
        ),
        "drop" => {
            let title = "p99 in ms before the rate fell, and from 3 s after on; seconds until every later request took less than 0.5 s";
            one(title, [parts("alone", narrowed), parts("beside bulk", narrowed)].into_iter().flatten().collect())
        }
        _ => sheet.cases(scenario).into_iter().map(|case| steady(sheet, scenario, case)).collect(),
    }
}

/// Of a case, a column a part.
fn steady<'a>(sheet: &'a Sheet, scenario: &'a str, case: &'a str) -> Layout<'a> {
    let is_bulk = case == "20mb";
    let show: fn(&Cell<'_>) -> String = if is_bulk { up } else { delay };
    let title = if is_bulk { "bodies of 20 MB, Mbit/s".to_owned() } else { format!("{case}, p50 / p99 in ms") };
    let parts = sheet.parts(scenario, Some(case));
    let columns = parts.into_iter().map(|part| Column { head: part.into(), part, case, show }).collect();
    Layout { title, columns }
}
