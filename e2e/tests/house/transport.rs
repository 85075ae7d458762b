//! What a tunnel travels over: blocked, opened again, forced; and that nobody who asks notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adit_agent::config::TransportChoice;
use adit_common::timing::Stage;
use adit_e2e::{Delays, House, LIMIT, Plan, Version};
use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::ask::{get, raw};

/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(20);

/// Asks all the time, and counts.
struct Asking {
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<()>>,
}

impl Asking {
    /// The first request that is not answered as it should be ends it.
    async fn start(house: &House) -> Result<Self> {
        let mut client = house.client(Version::Http2).await?;
        let (answered, stop): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let (counter, stopped) = (answered.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                client.ask(raw("quick", "image")).await?.inferred()?;
                counter.fetch_add(1, Ordering::Relaxed);
                sleep(PACE).await;
            }
            Ok(())
        });
        Ok(Self { answered, stop, task })
    }

    /// Waits until so many more were answered.
    async fn more(&self, requests: usize) -> Result<()> {
        let wanted = self.answered.load(Ordering::Relaxed) + requests;
        let wait = async {
            while self.answered.load(Ordering::Relaxed) < wanted {
                ensure!(!self.task.is_finished(), "a request failed");
                sleep(PACE).await;
            }
            Ok(())
        };
        timeout(LIMIT, wait).await.context("more answers")?
    }

    async fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

fn quick(plan: Plan) -> Plan {
    plan.stand_in("quick", Delays { forward: Duration::from_millis(10), ..Delays::default() })
}

/// Waits until requests go over this, and nothing else is left.
async fn until_over(house: &House, transport: &str) -> Result<()> {
    let over = |fleet: &serde_json::Value| {
        let agents = fleet["agents"].as_array().map(Vec::as_slice).unwrap_or_default();
        matches!(agents, [only] if only["transport"] == transport && only["draining"] == false)
    };
    house.until(over).await.with_context(|| format!("a tunnel over {transport}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_udp_the_tunnel_is_over_tcp_and_it_returns_without_a_failed_request() -> Result<()> {
    let began = Instant::now();
    let house = House::builder().agent(quick(Plan::new("box").udp_blocked())).open().await?;
    println!("UDP blocked from the start: known with its models {:.2?} after the house began to open", began.elapsed());
    until_over(&house, "tcp").await?;
    assert_eq!(house.relay_metric("adit_relay_agent_transport{agent=\"box\",transport=\"tcp\"}").await?, 1.0);
    assert_eq!(house.agent_metric("box", "adit_agent_tunnels{transport=\"tcp\"}")?, 1.0);
    let asking = Asking::start(&house).await?;
    asking.more(20).await?;

    house.link("box")?.open_udp();
    let opened = Instant::now();
    until_over(&house, "quic").await?;
    println!("UDP opened: all over QUIC again after {:.2?}", opened.elapsed());
    asking.more(20).await?;
    println!("{} requests all the while, each answered", asking.stop().await?);
    assert_eq!(house.relay_metric("adit_relay_sessions_lost_total").await?, 0.0, "the old tunnel was left in order");
    assert_eq!(house.agent_metric("box", "adit_agent_tunnels{transport=\"tcp\"}")?, 0.0);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_that_is_blocked_later_is_noticed_and_tcp_takes_over() -> Result<()> {
    let house = House::builder().agent(quick(Plan::new("box").link())).open().await?;
    until_over(&house, "quic").await?;
    house.link("box")?.block_udp();
    let blocked = Instant::now();
    // The old tunnel is there until its time-out; the new one is asked at once.
    house
        .until(|fleet| {
            let mut agents = fleet["agents"].as_array().into_iter().flatten();
            agents.any(|entry| entry["transport"] == "tcp" && entry["draining"] == false)
        })
        .await?;
    let took = blocked.elapsed();
    println!("UDP blocked under a tunnel: over TCP after {took:.2?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let mut client = house.client(Version::Http2).await?;
    client.ask(raw("quick", "image")).await?.inferred()?;
    assert!(house.close().await);
    Ok(())
}

/// Uploads one picture after another, several at a time, until it is dropped.
struct Uploading(Vec<JoinHandle<Result<()>>>);

impl Uploading {
    async fn start(house: &House) -> Result<Self> {
        let mut tasks = Vec::new();
        for _ in 0..6 {
            let mut client = house.client(Version::Http1).await?;
            tasks.push(tokio::spawn(async move {
                loop {
                    client.ask(raw("quick", vec![7; 400_000])).await?.inferred()?;
                }
            }));
        }
        Ok(Self(tasks))
    }

    fn stop(self) {
        assert!(self.0.iter().all(|task| !task.is_finished()), "an upload failed");
        self.0.iter().for_each(JoinHandle::abort);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_is_limited_the_tunnel_moves_to_tcp_and_stays_if_that_carries_more() -> Result<()> {
    for carries_more in [true, false] {
        let house = House::builder().agent(quick(Plan::new("box").link())).open().await?;
        until_over(&house, "quic").await?;
        let link = house.link("box")?;
        link.delay(Duration::from_millis(5));
        link.limit_udp(2_000_000);
        if !carries_more {
            link.limit_tcp(2_000_000);
        }
        let (began, asking, uploads) = (Instant::now(), Asking::start(&house).await?, Uploading::start(&house).await?);
        until_over(&house, "tcp").await?;
        println!("UDP limited: over TCP after {:.2?}", began.elapsed());
        if carries_more {
            // Longer than the trial takes.
            sleep(Duration::from_secs(8)).await;
            until_over(&house, "tcp").await?;
        } else {
            until_over(&house, "quic").await?;
            println!("TCP limited too: over QUIC again after {:.2?}", began.elapsed());
        }
        asking.more(20).await?;
        uploads.stop();
        println!("{} small requests all the while, each answered", asking.stop().await?);
        assert!(house.close().await);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_use_tcp_does_at_either_port_and_times_as_over_quic() -> Result<()> {
    let house = House::builder()
        .agent(quick(Plan::new("own")).change(|config| config.relays[0].transport = TransportChoice::Tcp))
        .agent(quick(Plan::new("front").at_front()))
        .open()
        .await?;
    house
        .until(|fleet| {
            fleet["agents"].as_array().is_some_and(|agents| agents.iter().all(|entry| entry["transport"] == "tcp"))
        })
        .await?;
    for version in [Version::Http1, Version::Http2] {
        let mut client = house.client(version).await?;
        for _ in 0..6 {
            let answer = client.ask(raw("quick", "image")).await?;
            answer.inferred()?;
            let timing = answer.timing()?;
            let forward = timing.stage(Stage::Forward).context("no forward")?;
            assert!(forward >= Duration::from_millis(10) && forward < timing.total(), "{timing:?}");
        }
        // Asked of both, and merged.
        assert_eq!(client.ask(get("/v2/models/quick/ready")).await?.status, 200);
    }
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_over_tcp_leaves_without_a_failed_request() -> Result<()> {
    let mut house = House::builder()
        .agent(quick(Plan::new("one").at_front()))
        .agent(quick(Plan::new("two").at_front()))
        .open()
        .await?;
    let asking = Asking::start(&house).await?;
    asking.more(20).await?;
    house.move_out("one").await?;
    asking.more(20).await?;
    asking.stop().await?;
    assert_eq!(house.relay_metric("adit_relay_sessions_lost_total").await?, 0.0);
    assert!(house.close().await);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_the_tunnels_protocol_without_a_certificate_gets_nowhere_and_clients_never_see_that_door()
-> Result<()> {
    let house = House::builder().agent(quick(Plan::new("box").at_front())).open().await?;
    // TLS 1.3 lets a client finish before it is judged: what comes next is the alert.
    if let Ok(mut stream) = house.tls("rh2").await {
        let mut rest = Vec::new();
        let read = timeout(LIMIT, stream.read_to_end(&mut rest)).await?;
        assert!(read.is_err() && rest.is_empty(), "{read:?} {rest:?}");
    }
    assert_eq!(house.relay_metric("adit_relay_tunnels_failed_total").await?, 1.0);
    // At the tunnels' own port nobody else is served.
    assert!(house.tls_to_tunnel("h2").await.is_err());
    let mut client = house.client(Version::Http2).await?;
    client.ask(raw("quick", "image")).await?.inferred()?;
    assert_eq!(house.relay_metric("adit_relay_handshakes_failed_total").await?, 0.0);
    assert!(house.close().await);
    Ok(())
}
