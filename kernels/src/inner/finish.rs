//! What is done to sums before they are results: activation, a second operand, another activation.

use crate::activation::Activation;
use crate::lanes::Lanes;

/// `after(before(x) + other)`, where there is an other; else `before(x)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    pub(crate) before: Activation,
    pub(crate) after: Activation,
    /// Of both activations, where they are nothing but bounds.
    pub(crate) bounds: Option<[[f32; 2]; 2]>,
}

impl Finish {
    pub(crate) fn new(before: Activation, after: Activation) -> Self {
        let bounds = match (before.bounds(), after.bounds()) {
            (Some(before), Some(after)) => Some([before, after]),
            _ => None,
        };
        Self { before, after, bounds }
    }
}

/// A run of vectors to be finished; `to` may be `from`.
#[derive(Clone, Copy)]
pub(crate) struct Combine {
    pub(crate) from: *const f32,
    /// The second operand, or null.
    pub(crate) other: *const f32,
    pub(crate) to: *mut f32,
    /// Vectors.
    pub(crate) count: usize,
    pub(crate) finish: Finish,
}

/// # Safety
/// `count` vectors can be read from `from` and, unless it is null, `other`, and be written to `to`.
#[inline(always)]
pub(crate) unsafe fn combine<V: Lanes>(run: &Combine) {
    let Finish { before, after, .. } = run.finish;
    for place in 0..run.count {
        let at = place * V::COUNT;
        // SAFETY: the caller vouches for the memory.
        unsafe {
            let value = V::load(run.from.add(at)).activate(before);
            let value = if run.other.is_null() { value } else { value.add(V::load(run.other.add(at))).activate(after) };
            value.store(run.to.add(at));
        }
    }
}

/// Finishes one vector whose activations are bounds, as they come out of an inner loop.
///
/// # Safety
/// A vector can be read from `other`, unless it is null.
#[inline(always)]
pub(crate) unsafe fn bounded<V: Lanes>(value: V, bounds: &[[V; 2]; 2], other: *const f32) -> V {
    let [[low, high], [after_low, after_high]] = bounds;
    let value = value.at_least(*low).at_most(*high);
    if other.is_null() {
        return value;
    }
    // SAFETY: the caller vouches for the memory.
    value.add(unsafe { V::load(other) }).at_least(*after_low).at_most(*after_high)
}

/// The bounds of a finish as vectors; none at all where it has to be deferred.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
pub(crate) unsafe fn bounds<V: Lanes>(finish: &Finish) -> [[V; 2]; 2] {
    let [before, after] = finish.bounds.unwrap_or([[f32::NEG_INFINITY, f32::INFINITY]; 2]);
    // SAFETY: the caller vouches for the instructions.
    unsafe { [[V::splat(before[0]), V::splat(before[1])], [V::splat(after[0]), V::splat(after[1])]] }
}
