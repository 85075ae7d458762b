//! `adit-agent check`: everything that can be wrong before an agent runs, said at once.

use std::process::ExitCode;
use std::sync::Arc;

use adit_agent::config::Config;
use adit_agent::metrics::Metrics;
use adit_agent::serving::Repository;
use adit_agent::upstream::Upstreams;
use adit_certs::Bundle;
use adit_common::daemon::Shutdown;

/// Reads certificates and models, loads each version, and prints what it found. Fails if anything would not work.
pub(crate) fn check(mut config: Config) -> anyhow::Result<ExitCode> {
    let mut sound = true;
    let mut say = |good: bool, line: String| {
        println!("{} {line}", if good { "ok  " } else { "FAIL" });
        sound &= good;
    };
    match (&config.tls_dir, config.relays.is_empty()) {
        (Some(folder), _) => match adit_certs::agent_tunnel(&Bundle::agent(folder)) {
            Ok(_) => say(true, format!("identity {}", folder.display())),
            Err(error) => say(false, format!("identity: {:#}", anyhow::Error::from(error))),
        },
        (None, true) => {}
        (None, false) => say(false, "identity: a relay needs tls_dir, or --tls-dir".to_owned()),
    }
    for relay in &config.relays {
        say(true, format!("relay {} as {}", relay.address, relay.server_name()));
    }
    if config.relays.is_empty() && config.local.listen.is_none() {
        say(false, "nobody to serve: give a [[relay]], or [local] listen".to_owned());
    }
    let scope = Shutdown::new();
    match Upstreams::new(&config.upstreams, &Metrics::new(), &scope, &scope) {
        Ok(_) => config
            .upstreams
            .iter()
            .for_each(|upstream| say(true, format!("upstream {} at {}", upstream.name, upstream.url))),
        Err(error) => say(false, error.to_string()),
    }
    config.serving.embedded = Some(config.serves_embedded());
    match Repository::scan(&config.serving, Arc::new(Metrics::new())) {
        Err(error) => say(false, format!("{:#}", anyhow::Error::from(error))),
        Ok(repository) => {
            let catalogue = repository.catalogue();
            repository.load();
            for (name, version, entry) in catalogue.borrow().entries() {
                match entry.card() {
                    // It would be served, but not as it is described.
                    Some(_) if !entry.reason.is_empty() && !entry.is_asleep() => {
                        say(false, format!("model {name} version {version}: {}", entry.reason));
                    }
                    Some(card) => {
                        let (platform, shape, classes) = (&card.platform, card.shape, card.labels.all().len());
                        let device = &card.device;
                        let text = format!("{platform} on {device}, {shape} in, {classes} classes");
                        say(true, format!("model {name} version {version}: {text}"));
                    }
                    None => say(false, format!("model {name} version {version}: {}", entry.reason)),
                }
            }
        }
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
