//! Whether an option holds a certain value.

/// What `dirs` asks of options.
pub trait OptionExt<T> {
    /// True if there is a value, and it equals `wanted`.
    #[must_use]
    fn contains<U>(&self, wanted: &U) -> bool
    where
        U: PartialEq<T>;
}

impl<T> OptionExt<T> for Option<T> {
    fn contains<U>(&self, wanted: &U) -> bool
    where
        U: PartialEq<T>,
    {
        self.as_ref().is_some_and(|value| *wanted == *value)
    }
}
