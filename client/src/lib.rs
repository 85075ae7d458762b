//! adit: the command-line client.
