//! A whole house in one process: relay, agent and client over real TLS and QUIC on loopback.
