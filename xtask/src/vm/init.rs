// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Init of the virtual machine: process 1, started by the kernel with nothing set up.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        resource::{Resource, setrlimit},
        termios::tcdrain,
        wait::{WaitStatus, wait},
    },
    unistd::{Pid, sethostname},
};

use super::plan::{self, Plan};

/// File systems, and where they go. The last two are what the limiter looks for. What is elsewhere is in memory
/// as it is: `/tmp` and `/run` need nothing on them, and the workspace may be below one of them.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Bits of `/proc/sys/kernel/tainted`: the kernel died halfway, or warned of a bug.
const COMPLAINTS: u64 = 1 << 7 | 1 << 9;

/// How many times longer the tests wait for what has to come than on a real machine.
const PATIENCE: &str = "6";

/// How many files a process may raise its limit to: the kernel's own default is less than a host gives.
const FILES: u64 = 1 << 20;

/// Arguments of the verb.
#[derive(Args)]
pub struct Init {}

impl Init {
    /// Runs the tests, says how they went, and powers off.
    ///
    /// # Errors
    ///
    /// When this is not a virtual machine of ours, or it cannot be powered off.
    #[expect(clippy::unused_self, reason = "every verb runs the same way")]
    pub fn run(&self) -> Result<()> {
        // Anywhere else this would mount over what is there, and power off.
        if std::process::id() != 1 || !Path::new(plan::PLACE).exists() {
            bail!("only the kernel of a virtual machine can start vm-init");
        }
        println!("{}", plan::UP);
        let result = match work() {
            Ok(()) => plan::PASSED.to_owned(),
            Err(error) => format!("{error:#}"),
        };
        println!("{}{result}", plan::RESULT);
        io::stdout().flush()?;
        tcdrain(io::stdout())?;
        match reboot(RebootMode::RB_POWER_OFF).context("cannot power off")? {}
    }
}

/// All that is between boot and the result.
fn work() -> Result<()> {
    let plan = fs::read(plan::PLACE).context("cannot read the plan")?;
    let plan: Plan = serde_json::from_slice(&plan).context("cannot read the plan")?;
    set_up(&plan)?;
    let mut failed = Vec::new();
    for program in &plan.work.programs {
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("vm: {name}");
        let start = Instant::now();
        let status = run(Command::new(program).args(&plan.work.arguments))?;
        println!("vm: {name}: {:.0?}", start.elapsed());
        if !matches!(status, WaitStatus::Exited(_, 0)) {
            failed.push(format!("{name} ({status:?})"));
        }
    }
    let tainted = fs::read_to_string("/proc/sys/kernel/tainted")?;
    if tainted.trim().parse::<u64>()? & COMPLAINTS != 0 {
        run(&mut Command::new("dmesg"))?;
        failed.push("the kernel complains".into());
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// What a host's own init would have done.
fn set_up(plan: &Plan) -> Result<()> {
    for (kind, place) in MOUNTS {
        mount(Some(*kind), *place, Some(*kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    for path in &plan.modules {
        let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
        finit_module(file, c"", ModuleInitFlags::empty()).with_context(|| format!("cannot load {path}"))?;
    }
    sethostname("vm").context("cannot set the hostname")?;
    setrlimit(Resource::RLIMIT_NOFILE, 1024, FILES).context("cannot raise the limit of files")?;
    let status = run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    if !matches!(status, WaitStatus::Exited(_, 0)) {
        bail!("lo does not come up");
    }
    Ok(())
}

/// Runs it to its end. Meanwhile every orphan that ends is reaped, as is init's duty.
fn run(command: &mut Command) -> Result<WaitStatus> {
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin").env("RUST_BACKTRACE", "1");
    command.env("LIMITER_TEST_PATIENCE", PATIENCE);
    let child = command.spawn().with_context(|| format!("cannot start {}", crate::command::line(command)))?;
    let child = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        let status = wait()?;
        if status.pid() == Some(child) {
            return Ok(status);
        }
    }
}
