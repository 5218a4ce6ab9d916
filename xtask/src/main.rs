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
mod clients;
mod command;
mod compiler;
mod demo;
#[cfg(test)]
mod disassembly;
mod fuzz;
mod linker;
mod lint;
mod optimised;
mod package;
mod packages;
mod paths;
mod privilege;
mod replies;
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
    /// Build the kernel programs and limiter
    Build(build::Build),
    /// Build limiter and run it as root; arguments after `--` go to `limiter run`
    Run(run::Run),
    /// Demonstrate a client that exceeds its limit, in separate namespaces
    Demo(demo::Demo),
    /// Check formatting, spelling, links, import circles, shell scripts, licences and lints of all crates
    Lint(lint::Lint),
    /// Install the mail software that the tests need, and run all tests
    Test(test::Test),
    /// Benchmark limiter against other ways to limit connections, in separate namespaces
    Bench(bench::Bench),
    /// Run the mail server of the benchmark
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchServer(bench::Server),
    /// Run the client that holds connections during the benchmark
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    BenchHold(bench::Hold),
    /// Fuzz the configuration parser
    Fuzz(fuzz::Fuzz),
    /// Open and end ten million connections, while limits change and daemons are killed
    Soak(soak::Soak),
    /// Refuse 100,000 clients in plain text and 10,000 inside TLS, each of which has to read why
    Replies(replies::Replies),
    /// Measure how long mail servers take to deliver a queue to a host with limits
    Senders(senders::Senders),
    /// Show what users of mail programs see when they are over a limit
    Clients(clients::Clients),
    /// Make a Debian package
    Package(package::Package),
    /// Run the kernel tests on Debian kernels, in virtual machines
    Vm(vm::Vm),
    /// Run as init of such a virtual machine
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
        Verb::Replies(verb) => verb.run(),
        Verb::Senders(verb) => verb.run(),
        Verb::Clients(verb) => verb.run(),
        Verb::Package(verb) => verb.run(),
        Verb::Vm(verb) => verb.run(),
        Verb::VmInit(verb) => verb.run(),
    }
}
