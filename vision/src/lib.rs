//! Networks, images and training: pure computation, no network, no clock.
