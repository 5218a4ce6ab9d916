// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the kernel programs and the daemon share.
//!
//! Two kinds of things live here: plain-data types, laid out once for both sides, and the decisions
//! themselves as pure functions (no maps, no clocks, no I/O: state and time come in, a verdict goes
//! out). The kernel runs the same code that the host tests by properties.
//!
//! Counting follows the laws of `docs/architecture.md`: only a completed handshake counts, and the limit is
//! exact. [`count`] holds the protocol that makes it exact on many CPUs.
#![no_std]

#[cfg(any(test, feature = "user"))]
extern crate std;

pub mod addr;
pub mod census;
pub mod count;
pub mod counters;
pub mod coverage;
pub mod drop_cache;
pub mod ending;
pub mod grounds;
pub mod kernel;
pub mod key;
pub mod ladder;
pub mod ledger;
pub mod listening;
pub mod maintenance;
mod names;
pub mod rate;
pub mod record;
pub mod reservation;
pub mod room;
pub mod rule;
pub mod service;
pub mod slot;
pub mod verdict;
pub mod waiting;

pub use addr::Addr;
pub use count::Count;
pub use counters::Counters;
pub use drop_cache::{CachedDrop, DropCache, Syn};
pub use ending::Ending;
pub use grounds::Grounds;
pub use key::{Key, Tier};
pub use ladder::{Cause, Ladder, Penalty};
pub use ledger::{CountKeys, Entry, Pending, Total};
pub use rate::Rate;
pub use record::{ConnectionRecord, DatedRecord, Kept};
pub use room::Room;
pub use rule::{Action, Rule, RuleMatch, Scope};
pub use service::{Keepalive, Mode, Protocol, Response, ServiceId, ServicePolicy};
pub use slot::Slot;
pub use verdict::{Limits, Reason, Usage, Verdict};
pub use waiting::Waiter;

/// Version of everything that is pinned: bumped whenever a shared type or a map changes shape or
/// meaning. A daemon that finds another version replaces the pins, it never reads them.
pub const LAYOUT_VERSION: u64 = 16;

/// The most services an instance can have; service 0 means "no service".
pub const MAX_SERVICES: u32 = 64;

/// How many sets of ports, services and rules there are: one is in force, the other is where the next
/// one is made. A program reads which is in force once a run, so no verdict is a mixture of two.
pub const SETS: u32 = 2;

/// A bit of the word whose lowest says which set is in force: rules of that set say where sources are counted
/// ([`Scope`]), so that for each address it has to be looked up.
pub const SCOPES: u64 = 2;

/// Words of the port table: eight ports a word, one byte a port, the byte being the service.
pub const PORT_WORDS: u32 = 65536 / 8;
