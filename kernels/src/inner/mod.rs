//! The inner loops, generic over vectors, and the table that holds them compiled for each set of instructions.
//!
//! What they work on are pointers with strides, filled in by `steps` from views that the plan has laid out and checked. All memory is
//! blocked: `[images][blocks of channels][rows][columns][lanes]`, with borders of zeros around each plane where a window reaches
//! over its edge.

pub(crate) mod bytes;
pub(crate) mod depthwise;
pub(crate) mod dot;
pub(crate) mod finish;
pub(crate) mod pool;
pub(crate) mod repeat;
pub(crate) mod scale;
pub(crate) mod table;
pub(crate) mod tile;
pub(crate) mod winograd;
