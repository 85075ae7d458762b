//! Clients that hang up, and clients that may not ask.

use std::time::Duration;

use adit_common::timing::Stage;
use adit_e2e::{Delays, House, LIMIT, Plan, Version};
use adit_vision::image::digit_picture;
use anyhow::{Context as _, Result};
use http::StatusCode;
use tokio::time::timeout;

use crate::ask::{get, raw};

/// Long enough to be hung up on in its middle.
const FORWARD: Duration = Duration::from_millis(800);

const BEGUN: &str = "adit_agent_forwards_begun_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_leaves_nothing_behind_queued_or_running() -> Result<()> {
    who_hangs_up(Plan::new("box")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hangs_up_leaves_nothing_behind_over_tcp() -> Result<()> {
    who_hangs_up(Plan::new("box").at_front()).await
}

async fn who_hangs_up(plan: Plan) -> Result<()> {
    let slow = Delays { forward: FORWARD, ..Delays::default() };
    let house = House::builder().agent(plan.stand_in("slow", slow)).open().await?;
    let mut running_client = house.client(Version::Http1).await?;
    let running = tokio::spawn(running_client.send(raw("slow", "image")));
    house.until_busy("box", 1, 0).await?;
    house.until_counted("box", BEGUN, 1.0).await?;
    let mut queued_client = house.client(Version::Http2).await?;
    let queued = tokio::spawn(queued_client.send(raw("slow", "image")));
    house.until_busy("box", 2, 1).await?;

    // One stream of a connection that goes on, then a whole connection.
    queued.abort();
    house.until_busy("box", 1, 0).await?;
    assert_eq!(house.agent_metric("box", "adit_agent_cancelled_queued_total")?, 1.0);
    assert_eq!(house.agent_metric("box", "adit_agent_cancelled_running_total")?, 0.0);
    running_client.hang_up();
    house.until_busy("box", 0, 0).await?;
    assert!(timeout(LIMIT, running).await??.is_err());
    assert_eq!(house.agent_metric("box", "adit_agent_cancelled_running_total")?, 1.0);
    assert_eq!(house.agent_metric("box", BEGUN)?, 1.0, "who was queued was never run");
    assert_eq!(house.agent_metric("box", "adit_agent_forwards_total")?, 0.0, "who was run was stopped");

    let next = queued_client.ask(raw("slow", "image")).await?;
    next.inferred()?;
    let waited = next.timing()?.stage(Stage::Queue).context("no queue")?;
    assert!(waited < FORWARD / 4, "{waited:?}");
    assert_eq!(house.agent_metric("box", "adit_agent_forwards_total")?, 1.0);
    assert_eq!(house.relay_metric("adit_relay_cancelled_total").await?, 2.0);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_that_wait_and_hang_up_none_is_run() -> Result<()> {
    const CONNECTIONS: usize = 4;
    const EACH: usize = 50;
    const ALL: usize = CONNECTIONS * EACH;
    // Nothing of what waits gets its turn by itself; batches are on, and would take eight at a time.
    let slow = Delays { forward: Duration::from_secs(600), ..Delays::default() };
    let house = House::builder().agent(Plan::new("box").stand_in("slow", slow)).open().await?;
    let mut running_client = house.client(Version::Http1).await?;
    let running = tokio::spawn(running_client.send(raw("slow", "image")));
    house.until_counted("box", BEGUN, 1.0).await?;

    let (mut clients, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        let mut client = house.client(Version::Http2).await?;
        waiting.extend((0..EACH).map(|_| tokio::spawn(client.send(raw("slow", "image")))));
        clients.push(client);
    }
    house.until_busy("box", u32::try_from(1 + ALL)?, u32::try_from(ALL)?).await?;
    // Half of them end their streams, the others their connections.
    waiting.iter().take(ALL / 2).for_each(tokio::task::JoinHandle::abort);
    clients.drain(CONNECTIONS / 2..).for_each(|client| client.hang_up());
    house.until_busy("box", 1, 0).await?;
    assert_eq!(house.agent_metric("box", "adit_agent_cancelled_queued_total")?, ALL as f64);
    assert_eq!(house.agent_metric("box", "adit_agent_queued_images{model=\"slow\"}")?, 0.0);

    // The worker is free again, and finds none of them.
    running_client.hang_up();
    house.until_busy("box", 0, 0).await?;
    assert!(timeout(LIMIT, running).await??.is_err());
    let fast = clients[0].ask(get("/v2/models/slow/ready")).await?;
    assert_eq!(fast.status, StatusCode::OK);
    assert_eq!(house.agent_metric("box", BEGUN)?, 1.0, "of 201 requests one has reached a forward pass");
    assert_eq!(house.agent_metric("box", "adit_agent_batch_images_count{model=\"slow\"}")?, 0.0);
    assert_eq!(house.agent_metric("box", "adit_agent_cancelled_running_total")?, 1.0);
    assert_eq!(house.agent("box")?.metrics().outcomes("slow", "cancelled"), ALL as u64 + 1);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn without_a_key_that_fits_nobody_is_answered() -> Result<()> {
    let house = House::builder().agent(Plan::new("box").digits()).open().await?;
    for version in [Version::Http1, Version::Http2] {
        let cases = [
            (None, StatusCode::UNAUTHORIZED, "an API key is required"),
            (Some("adit_house_wrong"), StatusCode::UNAUTHORIZED, "unknown or was revoked"),
            (Some(house.control_key()), StatusCode::FORBIDDEN, "lacks the scope \"infer\""),
        ];
        for (key, status, because) in cases {
            let mut client = house.client_with(version, key).await?;
            for request in [raw("digits", digit_picture(1)?), get("/"), get("/v2/models/digits")] {
                let refused = client.ask(request).await?;
                assert_eq!(refused.status, status, "{refused:?}");
                assert!(refused.error()?.contains(because), "{refused:?}");
                let asks = refused.headers.contains_key("www-authenticate");
                assert_eq!(asks, status == StatusCode::UNAUTHORIZED, "{refused:?}");
            }
        }
    }
    let asked = house.agent_metric("box", "adit_agent_requests_total{model=\"digits\",outcome=\"ok\"}");
    assert!(asked.is_err(), "the agent has heard of none of them");
    assert!(house.close().await);
    Ok(())
}
