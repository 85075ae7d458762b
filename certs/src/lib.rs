//! The identities of the house: a private certificate authority and the TLS settings of the tunnel.
