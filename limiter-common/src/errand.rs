//! What the daemon asks of the steward, the kernel program that changes the ledger on its behalf.
//!
//! User space cannot change a map value in one atomic step, and a look followed by a write would
//! lose what happened in between. So the daemon writes an errand, runs the steward
//! (`BPF_PROG_TEST_RUN`), and reads what became of it.

use bytemuck::{Pod, Zeroable};

use crate::Key;

/// Keys one errand can name.
pub const BATCH: usize = 64;

/// One batch of sources to collect, and the outcome.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Errand {
    /// How many of `keys` are meant, 0 to [`BATCH`].
    pub asked: u32,
    /// How many entries were deleted.
    pub collected: u32,
    /// Whether a reservation that came to nothing was given back on this CPU.
    pub cancelled: u32,
    /// The sources.
    pub keys: [Key; BATCH],
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Errand {}
