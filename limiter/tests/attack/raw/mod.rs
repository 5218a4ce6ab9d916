// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! TCP by hand: headers written byte by byte, sent and caught on the wire itself.
//!
//! The kernel of the client host knows nothing of it: it sees packets for addresses that are not its own,
//! and drops them. So nobody answers but the test, and nothing is sent but what the test sends.

mod caller;
mod crowd;
mod segment;
mod wire;

pub use caller::Caller;
pub use crowd::Crowd;
pub use segment::{ACK, RST, SYN, Segment, extension};
pub use wire::Wire;
