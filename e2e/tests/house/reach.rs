//! Which agent is asked, and what becomes of a request whose agent is not there.

use std::time::{Duration, Instant};

use adit_agent::config::TransportChoice;
use adit_e2e::{Delays, House, LIMIT, Plan, Version};
use anyhow::{Context as _, Result};
use http::StatusCode;
use tokio::time::timeout;

use crate::ask::{get, raw};

fn slow(seconds: u64) -> Delays {
    Delays { forward: Duration::from_secs(seconds), ..Delays::default() }
}

#[tokio::test]
async fn each_model_is_asked_where_it_is() -> Result<()> {
    let east = Plan::new("east").stand_in("maps", Delays::default()).stand_in("both", Delays::default());
    let west = Plan::new("west").stand_in("mines", Delays::default()).stand_in("both", Delays::default());
    let house = House::builder().agent(east).agent(west).open().await?;
    let mut client = house.client(Version::Http2).await?;
    for model in ["maps", "mines", "both"] {
        for _ in 0..4 {
            assert_eq!(client.ask(raw(model, "image")).await?.inferred()?.model_name, model);
        }
    }
    let count = |agent: &str, model: &str| {
        house.agent_metric(agent, &format!("adit_agent_requests_total{{model=\"{model}\",outcome=\"ok\"}}"))
    };
    assert_eq!((count("east", "maps")?, count("west", "mines")?), (4.0, 4.0));
    assert!(count("east", "mines").is_err() && count("west", "maps").is_err());
    assert_eq!(count("east", "both").unwrap_or_default() + count("west", "both").unwrap_or_default(), 4.0);

    for (path, because) in [
        ("/v2/models/moon", "no model named moon"),
        ("/v2/models/maps/versions/7", "no version 7"),
        ("/v1/models", "nothing answers"),
        ("/.adit/manifest", "nothing answers"),
    ] {
        let refused = client.ask(get(path)).await?;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{path}: {refused:?}");
        assert!(refused.error()?.contains(because), "{path}: {refused:?}");
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn a_lost_agent_costs_what_it_had_and_is_welcome_again() -> Result<()> {
    a_lost_agent(Plan::new("box").link(), TransportChoice::Auto).await
}

#[tokio::test]
async fn an_agent_that_is_lost_over_tcp_costs_no_more() -> Result<()> {
    a_lost_agent(Plan::new("box").link(), TransportChoice::Tcp).await
}

async fn a_lost_agent(plan: Plan, transport: TransportChoice) -> Result<()> {
    let idle = Duration::from_secs(1);
    let plan = plan.stand_in("slow", slow(600)).stand_in("fast", Delays::default());
    let plan = plan.change(move |config| {
        (config.tunnel.idle_timeout, config.tunnel.keep_alive) = (idle, idle / 4);
        config.relays[0].transport = transport;
    });
    let house = House::builder().relay(|config| config.tunnel.idle_timeout = idle).agent(plan).open().await?;
    let mut client = house.client(Version::Http2).await?;
    let under_way = tokio::spawn(client.send(raw("slow", "image")));
    house.until_busy("box", 1, 0).await?;

    house.link("box")?.cut();
    let begun = Instant::now();
    let lost = timeout(LIMIT, under_way).await.context("it should not hang")???;
    assert_eq!(lost.status, StatusCode::BAD_GATEWAY, "{lost:?}");
    assert!(lost.error()?.contains("the agent was lost"), "{lost:?}");
    assert!(begun.elapsed() < idle * 4, "{:?}", begun.elapsed());
    for path in ["/v2/models/fast", "/v2", "/"] {
        let refused = client.ask(get(path)).await?;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {refused:?}");
        assert_eq!(refused.header("retry-after")?, "1");
        refused.error()?;
    }

    house.link("box")?.mend();
    house.until_known("box").await?;
    client.ask(raw("fast", "image")).await?.inferred()?;
    house.until_busy("box", 0, 0).await?;
    assert!(house.close().await);
    Ok(())
}

#[tokio::test]
async fn an_answer_that_takes_too_long_is_given_up_everywhere() -> Result<()> {
    let patience = Duration::from_millis(300);
    let plan = Plan::new("box").stand_in("slow", slow(600)).stand_in("fast", Delays::default());
    let house = House::builder().relay(|config| config.proxy.timeout = patience).agent(plan).open().await?;
    for version in [Version::Http1, Version::Http2] {
        let mut client = house.client(version).await?;
        let begun = Instant::now();
        let late = client.ask(raw("slow", "image")).await?;
        assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT, "{late:?}");
        late.error()?;
        assert!(begun.elapsed() >= patience, "{:?}", begun.elapsed());
        // Its place is free again, and so is the connection.
        house.until_busy("box", 0, 0).await?;
        client.ask(raw("fast", "image")).await?.inferred()?;
    }
    assert!(house.close().await);
    Ok(())
}
