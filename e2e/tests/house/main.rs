//! The whole path in one process: a client's request over HTTPS, through relay, tunnel and agent, and back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod abuse;
mod ask;
mod boxes;
mod cancel;
mod chaos;
mod detect;
mod extensions;
mod formats;
mod gather;
mod grpc;
mod many;
mod notify;
mod origin;
mod photos;
mod reach;
mod reload;
mod socket;
mod tfserving;
mod timing;
mod transport;
mod upstream;
mod walk;
