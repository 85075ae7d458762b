//! All scenarios by name, with their parts.

use anyhow::ensure;

use super::bottleneck::{Deep, Fair, Narrowing, Share};
use super::lan::Lan;
use super::outage::Outage;
use super::part::{Part, Work};
use super::slow::Slow;
use super::steady::{FAR, Load, NEAR, Steady};
use crate::house::Plan;

/// The names, with what each is about.
pub(crate) const NAMES: [(&str, &str); 17] = [
    ("smoke", "a few requests, to see whether a peer works"),
    ("lan", "no impairment: delay, requests a second, bulk, processor time, memory"),
    ("wan", "150 KB at 20/s and 15 KB at 50/s over 50 ms, with 0, 1 and 3 % of random loss"),
    ("wan_bbr", "the same with BBR as the kernel's TCP congestion control everywhere"),
    ("wanx", "bursts of loss; a link of 50 Mbit/s; bodies of 20 MB"),
    ("loss12", "random loss of 12 %"),
    ("policer", "a policer of 20 Mbit/s, which drops and queues nothing"),
    ("satellite", "a round trip of 300 ms at 20 Mbit/s"),
    ("ladder", "iroh's nine links from good Wi-Fi to absurd, each offered 30 % of its rate"),
    ("fair", "20 Mbit/s beside one and four flows of TCP, CUBIC and BBR"),
    ("share", "two tunnels at 20 Mbit/s"),
    ("deep", "20 Mbit/s with a queue of 1 s: how much of it stands"),
    ("drop", "a rate that falls from 50 to 5 Mbit/s"),
    ("cut", "5 s without a link; another address of the agent"),
    ("restart", "the relay killed, and back after 1 s"),
    ("restart50", "the same with 50 agents"),
    ("slow", "slow uploaders and readers beside others"),
];

/// iroh's ladder: name, Mbit/s, round trip in ms, loss in percent, mean burst.
const LADDER: [(&str, f64, u32, f64, u32); 9] = [
    ("good-wifi", 100.0, 16, 0.1, 1),
    ("congested-wifi", 25.0, 40, 1.0, 6),
    ("weak-4g", 8.0, 90, 2.0, 8),
    ("slow-3g", 3.0, 200, 3.0, 10),
    ("congested-cellular", 1.5, 300, 5.0, 12),
    ("very-bad", 0.8, 450, 8.0, 20),
    ("satellite", 25.0, 600, 1.5, 6),
    ("barely-usable", 0.5, 450, 12.0, 25),
    ("absurd", 0.256, 800, 25.0, 40),
];

/// The service time of most scenarios, and the path that asks for it.
const SERVICE_US: u64 = 30_000;
const INFER: &str = "/infer?us=30000";

/// The parts of the scenarios that are asked for: `wan` is all of them, `wan/loss1` is one. Loads over links that stay as they
/// are take so many seconds each.
pub(crate) fn parts(asked: &[String], seconds: u32) -> anyhow::Result<Vec<Part>> {
    let all: Vec<Part> = NAMES.iter().flat_map(|(name, _)| scenario(name, seconds)).collect();
    let mut chosen = Vec::new();
    for name in asked {
        let before = chosen.len();
        chosen.extend(all.iter().filter(|part| part.scenario == name || part.full_name() == *name).cloned());
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        ensure!(chosen.len() > before, "there is no scenario {name}; there are {}", names.join(", "));
    }
    Ok(chosen)
}

fn scenario(name: &'static str, seconds: u32) -> Vec<Part> {
    let part = |part: &str, work| Part { scenario: name, name: part.into(), plan: plan(), work };
    let steady =
        |name: &str, near: &str, far: String, loads| part(name, Work::Steady(Steady { near: near.into(), far, loads }));
    let outage = |name: &str, outage, agents| {
        let mut part = part(name, Work::Outage(outage));
        part.plan = Plan { agents, service_us: 10_000, ..Plan::default() };
        part
    };
    let large = || load("150k_20rps", 150_000, 20.0, seconds);
    let small = || load("15k_50rps", 15_000, 50.0, seconds);
    match name {
        "smoke" => {
            let few = |case: &str, path: &str, words: &str| Load {
                case: case.into(),
                path: path.into(),
                words: words.into(),
                before: None,
            };
            let loads = vec![
                few("150k", "/infer", "--connections 8 --requests 64 --body 150000 --timeout 10"),
                few("websocket", "/ws", "--websocket --connections 2 --requests 16 --timeout 5"),
            ];
            vec![steady("smoke", NEAR, FAR.into(), loads)]
        }
        "wan" | "wan_bbr" => [0, 1, 3]
            .map(|loss| {
                let mut part =
                    steady(&format!("loss{loss}"), NEAR, format!("{FAR} loss={loss}"), vec![large(), small()]);
                if name == "wan_bbr" {
                    part.plan.congestion = "bbr".into();
                }
                part
            })
            .into(),
        "wanx" => vec![
            steady("burst1", NEAR, format!("{FAR} burst=1:5"), vec![small()]),
            steady(
                "50mbit",
                NEAR,
                format!("{FAR} rate=50mbit queue=500k"),
                vec![large(), Load { before: Some("both rate=0".into()), ..bulk() }],
            ),
        ],
        "loss12" => vec![steady("loss12", NEAR, format!("{FAR} loss=12"), vec![small(), large()])],
        "policer" => {
            let offered = load("150k_5rps", 150_000, 5.0, seconds);
            vec![steady("20mbit", NEAR, format!("{FAR} police=20mbit:64k"), vec![offered, bulk()])]
        }
        "satellite" => {
            let far = "both delay=145ms rate=20mbit queue=750k";
            let loads = || vec![load("150k_5rps", 150_000, 5.0, seconds), bulk()];
            vec![steady("clean", NEAR, far.into(), loads()), steady("loss1", NEAR, format!("{far} loss=1"), loads())]
        }
        "ladder" => LADDER.iter().map(|rung| ladder(*rung, seconds)).collect(),
        "lan" => {
            let mut lan = part("lan", Work::Lan(Lan { seconds: seconds.min(5) }));
            lan.plan = Plan { emulated: false, ..Plan::default() };
            vec![lan]
        }
        "fair" => fair(seconds),
        "share" => {
            let far = format!("{FAR} rate=20mbit queue=250k");
            let mut share = part("two", Work::Share(Share { far, seconds }));
            share.plan = Plan { agents: 2, ..Plan::default() };
            vec![share]
        }
        "deep" => {
            let far = format!("{FAR} rate=20mbit queue=2500k");
            vec![part("1s", Work::Deep(Deep { far, seconds }))]
        }
        "drop" => [false, true]
            .map(|greedy| {
                let far = format!("{FAR} rate=50mbit queue=500k");
                let narrow = "both rate=5mbit".into();
                let mut drop =
                    part(if greedy { "bulk" } else { "alone" }, Work::Narrowing(Narrowing { far, narrow, greedy }));
                drop.plan.service_us = 10_000;
                drop
            })
            .into(),
        "restart" => vec![outage("one", Outage::Restart, 1)],
        "restart50" => vec![outage("fifty", Outage::Many, 50)],
        "cut" => {
            vec![outage("down5s", Outage::Cut, 1), outage("rebind", Outage::Rebind, 1)]
        }
        "slow" => {
            let mut slow = part("slow", Work::Slow(Slow { seconds: seconds.min(15) }));
            slow.plan = Plan { emulated: false, service_us: 10_000, ..plan() };
            vec![slow]
        }
        _ => Vec::new(),
    }
}

fn plan() -> Plan {
    Plan { service_us: SERVICE_US, ..Plan::default() }
}

fn load(case: &str, body: usize, rate: f64, seconds: u32) -> Load {
    let words = format!("--connections 32 --rate {rate} --body {body} --seconds {seconds} --warmup 3 --timeout 20");
    Load { case: case.into(), path: INFER.into(), words, before: None }
}

/// Three large bodies, one after another.
fn bulk() -> Load {
    let words = "--connections 1 --requests 3 --body 20000000 --timeout 90".into();
    Load { case: "20mb".into(), path: "/infer".into(), words, before: None }
}

/// Two products of rate and delay may wait; in one part eight, so that who fills queues can be seen to.
fn fair(seconds: u32) -> Vec<Part> {
    let beside =
        [("cubic1", "cubic", 1, 250), ("cubic4", "cubic", 4, 250), ("bbr1", "bbr", 1, 250), ("bbr4", "bbr", 4, 250)];
    let deep = [("cubic1-deep", "cubic", 1, 1000)];
    let part = |(name, congestion, flows, queue): (&str, &'static str, usize, u32)| {
        let far = format!("{FAR} rate=20mbit queue={queue}k");
        let work = Work::Fair(Fair { far, flows, congestion, seconds });
        Part { scenario: "fair", name: name.into(), plan: Plan::default(), work }
    };
    beside.into_iter().chain(deep).map(part).collect()
}

/// Offers 30 % of a rung's rate, in requests that are as large as the rung lets some come every second.
fn ladder((name, mbit, round_trip_ms, loss, burst): (&str, f64, u32, f64, u32), seconds: u32) -> Part {
    let body = match mbit {
        mbit if mbit >= 20.0 => 150_000,
        mbit if mbit >= 1.0 => 15_000,
        _ => 4_000,
    };
    let rate = 0.3 * mbit * 1e6 / (8.0 * f64::from(body));
    // One product of rate and delay waits at most, as on a link that was built with care; but never less than 32 packets.
    let queue = (mbit * 1e6 / 8.0 * f64::from(round_trip_ms) / 1e3).max(48_000.0);
    let loss = if burst > 1 { format!("burst={loss}:{burst}") } else { format!("loss={loss}") };
    let delay = f64::from(round_trip_ms) / 2.0;
    let far = format!("both delay={delay}ms rate={mbit}mbit queue={queue:.0} {loss}");
    let words = format!(
        "--connections 32 --rate {rate:.3} --body {body} --seconds {} --warmup 3 --timeout 20 --grace 10",
        // The slow rungs get time for some hundred requests.
        seconds.max(if rate < 10.0 { 40 } else { 20 })
    );
    let load = Load { case: "offered30".into(), path: INFER.into(), words, before: None };
    let work = Work::Steady(Steady { near: "both up".into(), far, loads: vec![load] });
    Part { scenario: "ladder", name: name.into(), plan: plan(), work }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_and_parts_are_found_by_name() {
        for (name, _) in NAMES {
            assert!(!parts(&[name.into()], 20).unwrap().is_empty(), "{name}");
        }
        let names = |asked: &str| {
            let parts = parts(&[asked.into()], 20).unwrap();
            parts.iter().map(Part::full_name).collect::<Vec<_>>()
        };
        assert_eq!(names("wan/loss1"), ["wan/loss1"]);
        assert_eq!(names("ladder").len(), 9);
        assert!(parts(&["wan/loss2".into()], 20).is_err());
    }

    #[test]
    fn a_rung_is_offered_a_third_of_its_rate() {
        let part = ladder(LADDER[2], 20);
        let Work::Steady(work) = &part.work else { panic!("steady") };
        assert_eq!(work.far, "both delay=45ms rate=8mbit queue=90000 burst=2:8");
        assert!(work.loads[0].words.contains("--rate 20.000 --body 15000"));
    }
}
