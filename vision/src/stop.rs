//! A way to end a forward pass early. A caller who hangs up should free the device at the next layer, not at the end
//! of the network; the network asks, so that this crate needs neither threads nor a runtime.

use std::fmt;

use crate::error::VisionError;

/// A question that a network asks between its layers: shall I stop?
#[derive(Clone, Copy)]
pub struct Stop<'a>(Option<&'a dyn Fn() -> bool>);

impl<'a> Stop<'a> {
    /// Stops as soon as `question` answers true. It is asked once a layer, so it should be cheap: an atomic load.
    #[must_use]
    pub const fn when(question: &'a dyn Fn() -> bool) -> Self {
        Self(Some(question))
    }

    /// Never stops.
    #[must_use]
    pub const fn never() -> Self {
        Self(None)
    }

    /// Whether to stop now.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.is_some_and(|question| question())
    }

    /// [`VisionError::Stopped`] when it is time to stop.
    pub fn check(&self) -> Result<(), VisionError> {
        if self.asked() { Err(VisionError::Stopped) } else { Ok(()) }
    }
}

impl fmt::Debug for Stop<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Stop(when asked)" } else { "Stop(never)" })
    }
}
