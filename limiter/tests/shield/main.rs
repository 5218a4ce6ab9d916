// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The shield's verdict on single frames, built field by field, and what a verdict costs: the kernel runs
//! the pinned program on them (`BPF_PROG_TEST_RUN`), so no wire is needed.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where; helpers of tests are no exception"
)]

mod assembly;
mod cost;
mod drop_cache;
mod frame;
mod program;
mod setup;
mod table;
mod truncated;

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_limiter");
