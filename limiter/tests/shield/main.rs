// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The shield's verdict on single frames, built field by field, and what a verdict costs: the kernel runs
//! the pinned program on them (`BPF_PROG_TEST_RUN`), so no wire is needed. The lab and the limiter's harness
//! are those of the system tests.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where; helpers of tests are no exception"
)]

#[expect(dead_code, unused_imports, reason = "the system tests' harness, of which these need a part")]
#[path = "../system/support/mod.rs"]
mod support;

mod assembly;
mod cost;
mod drop_cache;
mod frame;
mod ground;
mod program;
mod table;
mod truncated;
