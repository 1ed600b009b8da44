//! The memory of every process.

use mimalloc::MiMalloc;

/// A request allocates much that is small and soon gone, on many threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;
