//! Memory that is allocated once, begins at a cache line, and is shared between threads by address.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::slice;

use crate::error::KernelError;

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// f32 elements, at first zeros.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<f32>,
    length: usize,
    layout: Layout,
}

// SAFETY: it owns its elements alone; what is written through a shared `Memory` is written through `address`, whose users
// vouch for it.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn zeroed(length: usize) -> Result<Self, KernelError> {
        let failed = KernelError::Memory(length);
        let bytes = length.max(1).checked_mul(size_of::<f32>()).ok_or(failed.clone())?;
        let layout = Layout::from_size_align(bytes, LINE).map_err(|_| failed.clone())?;
        // SAFETY: the layout has at least the size of one element.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }.cast()).ok_or(failed)?;
        Ok(Self { start, length, layout })
    }

    pub(crate) fn of(elements: &[f32]) -> Result<Self, KernelError> {
        let mut memory = Self::zeroed(elements.len())?;
        memory.elements_mut().copy_from_slice(elements);
        Ok(memory)
    }

    /// Bytes, in as many elements as they need.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Result<Self, KernelError> {
        let memory = Self::zeroed(bytes.len().div_ceil(size_of::<f32>()))?;
        // SAFETY: there is room for so many bytes, and the memory is held alone.
        unsafe { memory.start.cast::<u8>().copy_from_nonoverlapping(NonNull::from_ref(bytes).cast(), bytes.len()) };
        Ok(memory)
    }

    pub(crate) fn elements(&self) -> &[f32] {
        // SAFETY: so many elements were allocated, as zeros, and nobody writes while they are lent: who writes through
        // `address` holds the `Memory` alone.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    pub(crate) fn elements_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `elements`; and it is held alone.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    /// Where it begins, for threads that write to parts of it at the same time.
    pub(crate) fn address(&mut self) -> Address {
        Address(self.start.as_ptr())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout.
        unsafe { dealloc(self.start.as_ptr().cast(), self.layout) }
    }
}

/// An address that threads may share. What is done with it is unsafe, and vouched for there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address(*mut f32);

// SAFETY: it is a number; only following it is unsafe.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Address {
    pub(crate) const fn new(start: *mut f32) -> Self {
        Self(start)
    }

    /// The element so many elements on.
    ///
    /// # Safety
    /// It lies in the same memory, or right behind its end.
    #[inline(always)]
    pub(crate) unsafe fn at(self, element: usize) -> *mut f32 {
        // SAFETY: the caller vouches for it.
        unsafe { self.0.add(element) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_at_a_cache_line_with_zeros() {
        let mut memory = Memory::zeroed(100).unwrap();
        assert!(memory.elements().iter().all(|element| *element == 0.0) && memory.elements().len() == 100);
        assert!((memory.elements().as_ptr() as usize).is_multiple_of(LINE));
        memory.elements_mut()[99] = 1.0;
        // SAFETY: it has 100 elements.
        assert_eq!(unsafe { *memory.address().at(99) }, 1.0);
        assert_eq!(Memory::of(&[1.0, 2.0]).unwrap().elements(), [1.0, 2.0]);
        let bytes = Memory::of_bytes(&[0, 0, 0x80, 0x3f, 0]).unwrap();
        assert_eq!(bytes.elements(), if cfg!(target_endian = "little") { [1.0, 0.0] } else { [4.6006e-41, 0.0] });
        assert_eq!(Memory::zeroed(0).unwrap().elements(), [0.0; 0]);
        assert!(matches!(Memory::zeroed(usize::MAX), Err(KernelError::Memory(_))));
    }
}
