// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The laboratory of tests, demo and measurements: hosts in network namespaces, links between them, servers, clients,
//! and the kernel's own tables, to hold the limiter's counts against.
//!
//! | what | where |
//! |---|---|
//! | two connected hosts, addresses | [`lab`] |
//! | a link with a delay that may lose segments, and what passes | [`link`], [`segment`] |
//! | network namespaces, cgroups, processes, commands | [`namespace`], [`cgroup`], [`process`], [`command`] |
//! | open files, what a killed run left behind | [`limits`], [`sweep`] |
//! | what a mail server does, what a client does | [`sink`], [`client`] |
//! | the kernel's socket table | [`sockets`] (`ss`, with processes), [`sock_diag`] (fast), [`watch`] (without a pause) |
//! | the kernel's counters, CPUs; a program of others on a hook | [`proc_net`], [`cpu`]; [`bystander`], [`xdp`] |
//! | a daemon of the limiter; an instance with its checks, and its maps | [`daemon`]; [`limiter`], [`pinned`] |
//! | Ctrl-C, where something has to be undone | [`interrupt`] |
//! | waiting for a condition, with a deadline | [`poll`] |
//!
//! What makes or starts something returns a [`Result`](anyhow::Result). What checks something, or is for tests only, panics:
//! the test fails there, and says why.
#![expect(clippy::must_use_candidate, clippy::missing_panics_doc, reason = "most of it is for tests")]

pub mod bystander;
pub mod cgroup;
pub mod client;
pub mod command;
pub mod cpu;
pub mod daemon;
pub mod interrupt;
pub mod lab;
pub mod limiter;
pub mod limits;
pub mod link;
pub mod namespace;
pub mod output;
#[cfg(feature = "maps")]
pub mod pinned;
pub mod poll;
pub mod proc_net;
pub mod process;
pub mod random;
pub mod segment;
pub mod sink;
pub mod skip;
pub mod sock_diag;
#[cfg(feature = "maps")]
pub mod sockets;
pub mod sweep;
pub mod watch;
pub mod xdp;

pub use client::{Answer, answer};
pub use lab::{Family, Lab, V4, V6};
pub use limiter::Limiter;
pub use namespace::Namespace;
pub use output::say;
pub use poll::{SOON, deadline, eventually, let_time_pass, same};
pub use sink::Sink;
pub use skip::{skip, skip_without};
