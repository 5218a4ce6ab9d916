// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mail software, and failing system calls: what only these tests are built from.

pub mod clients;
pub mod dovecot;
pub mod exim;
pub mod mail_daemon;
pub mod postfix;
pub mod schema;
pub mod seccomp;
pub mod service;
