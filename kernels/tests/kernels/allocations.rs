//! A pass allocates nothing, but the first of so many images: every allocation of a thread is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use adit_kernels::{Plan, PlanOptions};

use crate::networks;
use crate::numbers::numbers;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller has it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller has it.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[test]
fn a_pass_allocates_nothing() {
    let weights = networks::weights();
    for graph in [networks::googlenet(&weights, 64), networks::mobilenet_v2(&weights, 64)] {
        let graph = graph.unwrap();
        let input = numbers(1, 2 * 3 * 64 * 64);
        let mut output = vec![0.0; 2 * 1000];
        for threads in [1, 2] {
            let options = PlanOptions { threads, batch: 2, cache: 100_000, ..PlanOptions::default() };
            let mut plan = Plan::new(&graph, &options).unwrap();
            for (images, allowed) in [(1, true), (1, false), (2, true), (2, false), (1, false), (2, false)] {
                let (input, output) = (&input[..images * 3 * 64 * 64], &mut output[..images * 1000]);
                let (before, memory) = (ALLOCATIONS.get(), plan.memory());
                plan.run(input, &mut [output]).unwrap();
                assert_eq!(ALLOCATIONS.get() > before, allowed, "{images} images, {threads} threads");
                assert_eq!(plan.memory() > memory, allowed, "{images} images, {threads} threads");
            }
        }
    }
    let before = ALLOCATIONS.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(ALLOCATIONS.get() - before, 1, "they are counted");
}
