//! Questions for the whole fleet: every agent is asked, and the relay answers for all.

use adit_e2e::{Client, Delays, House, Plan, Version, full};
use anyhow::{Context as _, Result};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::ask::{get, prepared};

async fn two() -> Result<House> {
    let house = House::builder();
    let house = house.agent(Plan::new("one").stand_in("cats", Delays::default()).stand_in("both", Delays::default()));
    house.agent(Plan::new("two").stand_in("dogs", Delays::default()).stand_in("both", Delays::default())).open().await
}

fn post(path: &str, body: &Value) -> Result<Request<adit_e2e::Body>> {
    Ok(Request::post(path).header("content-type", "application/json").body(full(body.to_string()))?)
}

/// The names in a list of rows, sorted.
fn names(rows: &Value) -> Result<Vec<&str>> {
    let rows = rows.as_array().with_context(|| format!("no list: {rows}"))?;
    let mut names: Vec<_> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    names.sort_unstable();
    Ok(names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_index_lists_what_any_agent_has() -> Result<()> {
    let house = two().await?;
    let mut client = house.client(Version::Http1).await?;
    let answer = client.ask(post("/v2/repository/index", &json!({ "ready": true }))?).await?;
    assert_eq!(names(&answer.json()?)?, ["both", "cats", "dogs"], "one row for what two agents have");
    assert!(answer.timing()?.total() > std::time::Duration::ZERO);
    let answer = client.ask(get("/models")).await?;
    let mut models: Vec<_> = answer.json()?["data"]["models"].as_array().context("a list")?.clone();
    models.sort_by_key(Value::to_string);
    assert_eq!(models, [json!("both"), json!("cats"), json!("dogs")]);
    let wrong = client.ask(post("/v2/repository/index", &json!("no object"))?).await?;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    assert!(!wrong.error()?.is_empty());
    let long = client.ask(post("/v2/repository/index", &json!({ "x": "y".repeat(70_000) }))?).await?;
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(house.close().await);
    Ok(())
}

/// How many requests for a model were answered, over all agents.
async fn answered(client: &mut Client, model: &str) -> Result<u64> {
    let stats = client.ask(get(&format!("/v2/models/{model}/stats"))).await?.json()?;
    let rows = stats["model_stats"].as_array().with_context(|| format!("no rows: {stats}"))?;
    assert_eq!(rows.len(), 1, "{stats}");
    assert_eq!(rows[0]["name"], model);
    rows[0]["inference_stats"]["success"]["count"].as_u64().with_context(|| format!("no count: {stats}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_are_added_up_and_do_not_fall_when_an_agent_leaves() -> Result<()> {
    let mut house = two().await?;
    let mut client = house.client(Version::Http2).await?;
    assert_eq!(answered(&mut client, "both").await?, 0);
    for count in 1..=20 {
        assert_eq!(client.ask(prepared("both", 1.0)).await?.status, StatusCode::OK);
        assert_eq!(answered(&mut client, "both").await?, count);
    }
    assert_eq!(answered(&mut client, "cats").await?, 0);
    house.move_out("one").await?;
    assert_eq!(answered(&mut client, "both").await?, 20);
    assert_eq!(client.ask(prepared("both", 1.0)).await?.status, StatusCode::OK);
    assert_eq!(answered(&mut client, "both").await?, 21);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_unloaded_wherever_it_is() -> Result<()> {
    let house = two().await?;
    let mut client = house.client_with(Version::Http2, Some(house.control_key())).await?;
    let answer = client.ask(post("/v2/repository/models/both/unload", &json!({}))?).await?;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let gone = |fleet: &Value| {
        let agents = fleet["agents"].as_array().cloned().unwrap_or_default();
        let models = agents.iter().flat_map(|agent| agent["models"].as_array().cloned().unwrap_or_default());
        models.filter(|model| model["name"] == "both").all(|model| model["state"] != "READY")
    };
    house.until(gone).await?;
    let mut asker = house.client(Version::Http2).await?;
    assert_eq!(asker.ask(prepared("both", 1.0)).await?.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(client.ask(post("/v2/repository/models/both/load", &json!({}))?).await?.status, StatusCode::OK);
    for agent in ["one", "two"] {
        house.until_known(agent).await?;
    }
    assert_eq!(asker.ask(prepared("both", 1.0)).await?.status, StatusCode::OK);
    assert!(house.close().await);
    Ok(())
}
