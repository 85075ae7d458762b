//! Delays are planted one at a time, and each must be found in its own stage and in no other.

use std::collections::BTreeMap;
use std::time::Duration;

use adit_common::timing::{Stage, Timing};
use adit_e2e::{Client, Delays, House, Plan, Version, pieces};
use anyhow::Result;
use bytes::Bytes;

use crate::ask::{raw, raw_body};

/// What is planted. So long that a twentieth of it, 20 ms, is far above what a busy machine adds by chance.
const PLANTED: Duration = Duration::from_millis(400);

/// Of so many measurements the median counts: a single hiccup of the machine is nobody's delay.
const ROUNDS: usize = 5;

async fn house() -> Result<House> {
    let decode = Delays { decode: PLANTED, ..Delays::default() };
    let prepare = Delays { prepare: PLANTED, ..Delays::default() };
    let forward = Delays { forward: PLANTED, ..Delays::default() };
    let plan = Plan::new("box").link().one_at_a_time().stand_in("plain", Delays::default());
    let plan = plan.stand_in("decode", decode).stand_in("prepare", prepare).stand_in("forward", forward);
    House::builder().agent(plan).alone().open().await
}

type Stages = BTreeMap<Stage, Duration>;

/// The median of each stage.
fn medians(timings: &[Timing]) -> Stages {
    let median = |stage| {
        let mut times: Vec<_> = timings.iter().map(|timing| timing.stage(stage).unwrap_or_default()).collect();
        times.sort();
        times[times.len() / 2]
    };
    Stage::ALL.into_iter().map(|stage| (stage, median(stage))).collect()
}

async fn ask(client: &mut Client, model: &str) -> Result<Timing> {
    let answer = client.ask(raw(model, "image")).await?;
    answer.inferred()?;
    answer.timing()
}

async fn measure(client: &mut Client, model: &str) -> Result<Stages> {
    let mut timings = Vec::new();
    for _ in 0..ROUNDS {
        timings.push(ask(client, model).await?);
    }
    Ok(medians(&timings))
}

/// Fails unless `after` is `before` with the planted delay in this stage, within a twentieth of it everywhere.
#[track_caller]
fn found_in(planted: Stage, before: &Stages, after: &Stages) {
    for stage in Stage::ALL {
        let expected = before[&stage] + if stage == planted { PLANTED } else { Duration::ZERO };
        let off = after[&stage].abs_diff(expected);
        assert!(off <= PLANTED / 20, "{stage:?} is off by {off:?}: {before:#?} became {after:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_decoder_network_or_preparation_shows_in_its_own_stage() -> Result<()> {
    let house = house().await?;
    let mut client = house.client(Version::Http2).await?;
    let before = measure(&mut client, "plain").await?;
    for (model, stage) in [("decode", Stage::Decode), ("prepare", Stage::Prepare), ("forward", Stage::Forward)] {
        found_in(stage, &before, &measure(&mut client, model).await?);
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_way_shows_as_transit() -> Result<()> {
    let house = house().await?;
    let mut client = house.client(Version::Http2).await?;
    let before = measure(&mut client, "plain").await?;
    house.link("box")?.delay(PLANTED / 2);
    // The first one goes while both ends still believe in a short way, and repeat themselves.
    ask(&mut client, "plain").await?;
    found_in(Stage::Transit, &before, &measure(&mut client, "plain").await?);
    house.link("box")?.delay(Duration::ZERO);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_network_shows_as_queue() -> Result<()> {
    let house = house().await?;
    let mut client = house.client(Version::Http2).await?;
    let before = measure(&mut client, "forward").await?;
    let mut timings = Vec::new();
    for _ in 0..ROUNDS {
        // Two at once: the later one waits while the earlier one is run.
        let (one, two) = (client.send(raw("forward", "image")), client.send(raw("forward", "image")));
        let (one, two) = futures_util::future::try_join(one, two).await?;
        let both = [one.timing()?, two.timing()?];
        timings.extend(both.into_iter().max_by_key(|timing| timing.stage(Stage::Queue)));
    }
    found_in(Stage::Queue, &before, &medians(&timings));
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sends_slowly_shows_as_upload() -> Result<()> {
    const PIECES: u32 = 8;
    let house = house().await?;
    for version in [Version::Http1, Version::Http2] {
        let mut client = house.client(version).await?;
        let before = measure(&mut client, "plain").await?;
        let mut timings = Vec::new();
        for _ in 0..ROUNDS {
            let drops = std::iter::repeat_n(Bytes::from_static(b"drop"), PIECES as usize);
            let answer = client.ask(raw_body("plain", pieces(PLANTED / PIECES, drops.collect::<Vec<_>>()))).await?;
            answer.inferred()?;
            timings.push(answer.timing()?);
        }
        found_in(Stage::Upload, &before, &medians(&timings));
        // What the agent saw of it stands beside the sum. The median, as of the stages: one round may meet a busy machine.
        let mut received: Vec<_> = timings.iter().filter_map(Timing::receive).collect();
        received.sort_unstable();
        let received = received[received.len() / 2];
        assert!(received.abs_diff(PLANTED) <= PLANTED / 8, "{received:?}");
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_of_a_requests_time_is_nobodys() -> Result<()> {
    let house = house().await?;
    for version in [Version::Http1, Version::Http2] {
        let mut client = house.client(version).await?;
        for _ in 0..ROUNDS {
            let timing = ask(&mut client, "forward").await?;
            let named: Duration =
                timing.stages().filter(|(stage, _)| *stage != Stage::Other).map(|(_, time)| time).sum();
            assert!(named <= timing.total() && timing.total() - named <= timing.total() / 50, "{timing:?}");
        }
    }
    assert!(house.close().await);
    Ok(())
}
