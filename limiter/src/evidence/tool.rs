// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A mail daemon's own program, asked by a process of its own that may do nothing else ([`crate::sandbox`]).
//!
//! It is started as this program again (`limiter tool`), gives up what it does not need, and becomes the mail daemon's
//! program. That one reads what strangers have said, such as their names, so nothing that it prints is trusted either: it
//! is bounded, and read as data.

mod launch;
mod serve;

pub use launch::{Ask, Program, ask};
pub use serve::{Part, serve};
