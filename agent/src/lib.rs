//! The agent: runs models behind a firewall and answers through the tunnel it dialled.
