// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter`: exact connection limits for mail hosts, in the kernel. Daemon and command line.

mod advice;
mod bans;
mod bounded;
mod changes;
mod cli;
mod config;
mod conntrack;
mod daemon;
mod diagnose;
mod doctor;
mod evidence;
mod greeter;
mod history;
mod import;
mod instance;
mod kernel;
mod ledger;
mod listeners;
mod loaded;
mod netlink;
mod policy;
mod printable;
mod reconcile;
mod sandbox;
#[cfg(test)]
mod schema;
mod shield;
mod sock_diag;
mod spans;
mod staged;
mod standing;
mod status;
mod trust;
mod user_text;
mod waiting;
mod wording;

fn main() -> std::process::ExitCode {
    cli::main()
}
