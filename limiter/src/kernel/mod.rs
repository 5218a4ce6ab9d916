// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel side, as the rest of the daemon sees it: load, attach, pin, take over, read. The only
//! place that knows aya.

mod bpf;
pub mod btf;
mod bulk;
pub mod census;
pub mod environment;
pub mod grace;
pub mod greeter;
pub mod hooks;
mod iterator;
mod link;
pub mod listening;
pub mod maintenance;
mod map;
mod memory;
mod mounts;
pub mod netns;
mod object;
pub mod pins;
pub mod privilege;
pub mod pulse;
pub mod release;
pub mod sets;
pub mod shield;
mod sizes;
pub mod tables;
pub mod waiting;
mod walk;

pub use object::{Attached, Target};
pub use pins::Found;
pub use tables::Tables;
