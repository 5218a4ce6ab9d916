// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a contributor types, each verb in a file of its own: `cargo xtask build`, `lint`, `test`, `run`, `demo`.
//!
//! What a verb needs and the machine lacks is named, with the reason, and installed; see [`packages`].

mod artifacts;
mod bench;
mod bpffs;
mod build;
#[cfg(test)]
mod claims;
mod command;
mod compiler;
mod demo;
#[cfg(test)]
mod disassembly;
mod fuzz;
mod linker;
mod lint;
mod packages;
mod paths;
mod privilege;
mod run;
mod senders;
mod sleeping;
mod soak;
mod test;
mod unpacked;
mod versions;
mod vm;
mod wheel;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds and checks `limiter`.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the kernel programs, and the limiter that carries them
    Build(build::Build),
    /// Build, and run the limiter as root; arguments after `--` are those of `limiter run`
    Run(run::Run),
    /// Show what a client sees that opens more connections than it may, in namespaces of its own
    Demo(demo::Demo),
    /// Check formatting, spelling, links, shell scripts, licences, and the lints of all crates
    Lint(lint::Lint),
    /// Run all tests, with the mail software they talk to
    Test(test::Test),
    /// Measure against everything a mail host could use instead, in namespaces of its own
    Bench(bench::Bench),
    /// The mail server that is measured
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchServer(bench::Server),
    /// The client that holds connections meanwhile
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchHold(bench::Hold),
    /// Give the configuration's parser texts that nobody would write
    Fuzz(fuzz::Fuzz),
    /// Open and end ten million connections in every way, while limits change and daemons are killed
    Soak(soak::Soak),
    /// Measure how long mail servers take to hand over their queue to a host with a limit
    Senders(senders::Senders),
    /// Run the kernel tests on Debian's own kernels, in virtual machines
    Vm(vm::Vm),
    /// What the kernel starts in such a machine
    #[command(hide = true)]
    VmInit(vm::Init),
}

fn main() -> ExitCode {
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}

fn run() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Build(verb) => verb.run(),
        Verb::Run(verb) => verb.run(),
        Verb::Demo(verb) => verb.run(),
        Verb::Lint(verb) => verb.run(),
        Verb::Test(verb) => verb.run(),
        Verb::Bench(verb) => verb.run(),
        #[cfg(feature = "bench")]
        Verb::BenchServer(verb) => verb.run(),
        #[cfg(feature = "bench")]
        Verb::BenchHold(verb) => verb.run(),
        Verb::Fuzz(verb) => verb.run(),
        Verb::Soak(verb) => verb.run(),
        Verb::Senders(verb) => verb.run(),
        Verb::Vm(verb) => verb.run(),
        Verb::VmInit(verb) => verb.run(),
    }
}
