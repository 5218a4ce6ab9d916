// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The limiter binary, a real kernel and real mail software.
//!
//! Each test builds a [`limiter_lab::Lab`]: a client host and a mail host, two network namespaces on one
//! wire, and runs an instance of the limiter of its own in it, so the tests run side by side. They need
//! root; without it each one says so and does nothing.
//!
//! What the limiter says is held against `limiter_lab::sockets`, the kernel's own socket table.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, and says where; helpers of tests are no exception"
)]

mod support;

mod adoption;
mod advise;
mod bad_input;
mod bans;
mod burst;
mod causes;
mod cgroups;
mod check;
mod closed_ports;
mod connections;
mod counts;
mod cpus;
mod crowds;
mod dead;
mod descriptors;
mod doctor;
mod endings;
mod explain;
mod ghosts;
mod greeter;
mod history;
mod instances;
mod kept_bans;
mod kernels;
mod limits;
mod locks;
mod log;
mod malformed;
mod many_rules;
mod memory;
mod messages;
mod mptcp;
mod namespaces;
mod networks;
mod observe;
mod outgoing;
mod pains;
mod pins;
mod privileges;
mod rates;
mod real_software;
mod reconciliation;
mod reload;
mod restarts;
mod routed;
mod rule_limits;
mod rules;
mod save;
mod shield;
mod source_prefixes;
mod steps;
mod stopped;
mod takeover;
mod tls;
mod tls_cost;
mod told;
mod totals;
mod tproxy;
mod translated;
mod waiting;
mod words;

/// The program under test.
const BINARY: &str = env!("CARGO_BIN_EXE_limiter");
