// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Handshakes that wait for a place, as clients far away see it: nobody waits in silence.
//!
//! The hosts of the lab are joined by a [link](limiter_lab::link) that has a length, and may lose segments. A [`crowd`] opens
//! many connections at once and notes what each client hears, and when; the mail [`server`] notes when it has
//! let go of one and when the next one came; [a watch](limiter_lab::watch) holds the limit against the kernel's own socket table.
//!
//! What is required, wherever the clients are: each of them hears a greeting, a 421 or a reset within the
//! service's `wait` and two round trips, and a place that becomes free while somebody waits is used within two
//! round trips.
//!
//! The tests need root; without it each one says so and does nothing. `LIMITER_SECONDS` and `LIMITER_ROUNDS`
//! make the long ones longer: `LIMITER_SECONDS=66 LIMITER_ROUNDS=100 cargo test --test waiting`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where; helpers of tests are no exception"
)]

mod crowd;
mod figures;
mod freed;
mod link;
mod server;
mod setup;

mod burst;
mod competition;
mod leavers;
mod neighbours;
mod netem;
mod places;
mod takeover;
mod wait;

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_limiter");
