// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Attacks with hand-made packets, from addresses nobody owns and in the names of those who own theirs.
//!
//! [`raw`] writes every header itself, so that SYNs, ACKs, RSTs and FINs come in any order and number.
//! What the limiter says is held against the kernel's own socket table, read through `sock_diag` as fast
//! as it goes ([a watch](limiter_lab::watch)).
//!
//! The tests need root; without it each one says so and does nothing. `cargo test --test attack` runs
//! everything, within a few minutes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where; helpers of tests are no exception"
)]

mod honest;
mod lab;
mod raw;

mod burst;
mod census;
mod forgery;
mod greeter;
mod ladder;
mod peers;
mod stray;
mod waiters;

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_limiter");
