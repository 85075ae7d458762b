//! Models without serving: as they lie in their folders, opened, looked through and measured.
//!
//! [`Opened`] is a version's network with all that it needs; [`survey`] opens every version of a folder and says what is wrong
//! with it; [`Measurement`] runs one in batches of several sizes and takes the time of each stage; [`quantise`] makes one
//! ready to compute in bytes. No queue, no worker and no
//! runtime stands between: what is seen here is the model alone.

mod find;
mod measure;
mod memory;
mod open;
mod quantise;
mod survey;

pub use find::{Found, Located, find, locate};
pub use measure::{Measurement, Stages};
pub use memory::Memory;
pub use open::Opened;
pub use quantise::{Agreement, Quantised, quantise};
pub use survey::{State, Surveyed, survey};
