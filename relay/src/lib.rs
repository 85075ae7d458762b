//! The public relay: terminates HTTPS and sends requests down the agents' tunnels.
