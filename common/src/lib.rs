//! What both ends of an Adit tunnel must agree on.
