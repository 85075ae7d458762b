//! HTTPS in front of peers that only carry TCP: haproxy, the same for all of them.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::addresses::HTTPS_PORT;
use super::place::{Launch, Place};

/// How to start it, with a server an agent. Its pool of connections into the tunnel is kind to tunnels that are slow to open one.
pub(super) fn launch(place: &Place, targets: &[SocketAddr]) -> anyhow::Result<Launch> {
    let mut text = format!(
        "global
  maxconn 8000
  log stderr format raw local0 emerg
defaults
  mode http
  timeout connect 10s
  timeout client 120s
  timeout server 120s
  timeout http-request 120s
  timeout tunnel 600s
  http-reuse always
frontend front
  bind :{HTTPS_PORT} ssl crt {} alpn h2,http/1.1
",
        place.file("front.pem").display()
    );
    for agent in 0..targets.len() {
        let _ = writeln!(text, "  use_backend agent{agent} if {{ hdr(host) -i {} }}", place.host(agent));
    }
    for (agent, target) in targets.iter().enumerate() {
        let _ = writeln!(text, "backend agent{agent}\n  retries 0\n  server server {target}");
    }
    let file = place.write("haproxy.cfg", &text)?;
    Ok(Launch::new(place.program("haproxy")?, "-db -f").and(file))
}
