// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! QEMU, and what comes over the serial line.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{kernel::Kernel, plan};
use crate::paths;

/// How long a processor's own virtualization may take until the kernel runs.
const BOOT_LIMIT: Duration = Duration::from_secs(30);

/// Memory of the machine, in MiB: its file system is in it.
const MEMORY: &str = "2048";

/// Parameters of the kernel. After the dashes comes what is init's.
const PARAMETERS: &str = "console=ttyS0 quiet panic=-1 -- vm-init";

/// What makes the machine's processors.
#[derive(Clone, Copy)]
enum Processor {
    /// The processor's own virtualization.
    Kvm,
    /// Emulation: everywhere, and slower.
    Emulated,
}

/// How far a machine came.
enum End {
    /// It said how the tests went.
    Result(String),
    /// The kernel never ran.
    NotUp,
    /// It stopped in between.
    Lost,
    /// It was stopped when its time was over.
    Hung,
}

/// Runs the tests in an image, with what they print on our stdout.
///
/// # Errors
///
/// When they fail, or take longer than the limit; then the machine is gone all the same.
pub fn run(kernel: &Kernel, image: &Path, limit: Duration) -> Result<()> {
    if kvm_may_work() {
        match boot(Processor::Kvm, kernel, image, limit)? {
            End::NotUp => {
                eprintln!("/dev/kvm exists but cannot boot a machine: emulating machines from now on");
                fs::create_dir_all(paths::notes())?;
                fs::write(no_kvm(), "/dev/kvm booted nothing; delete this file to try it again\n")?;
            }
            end => return judge(end, limit),
        }
    }
    judge(boot(Processor::Emulated, kernel, image, limit)?, limit)
}

/// Whether KVM is worth a try. Where the host is a virtual machine itself it may be there and not work.
fn kvm_may_work() -> bool {
    !no_kvm().exists() && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// The note that it does not.
fn no_kvm() -> std::path::PathBuf {
    paths::notes().join("no-kvm")
}

fn judge(end: End, limit: Duration) -> Result<()> {
    match end {
        End::Result(result) if result == plan::PASSED => Ok(()),
        End::Result(result) => bail!("{result}"),
        End::NotUp => bail!("the kernel did not start init"),
        End::Lost => bail!("the machine ended without a result; its last output is above"),
        End::Hung => bail!("no result within {limit:?}; its last output is above"),
    }
}

/// Boots a machine, and sees it to its end.
fn boot(processor: Processor, kernel: &Kernel, image: &Path, limit: Duration) -> Result<End> {
    let (accelerator, model, how) = match processor {
        Processor::Kvm => ("kvm", "host", "with KVM"),
        Processor::Emulated => ("tcg", "max", "emulated"),
    };
    eprintln!("Linux {}, {how}", kernel.release);
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"])
        .args(["-machine", &format!("accel={accelerator}"), "-cpu", model, "-smp", "2", "-m", MEMORY])
        .arg("-kernel")
        .arg(kernel.image()?)
        .arg("-initrd")
        .arg(image)
        .args(["-append", PARAMETERS])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut qemu = qemu.spawn().context("cannot start qemu-system-x86_64")?;
    let console = console(&mut qemu);
    let boot_limit = if matches!(processor, Processor::Kvm) { BOOT_LIMIT } else { limit };
    let end = console.and_then(|console| follow(&console, boot_limit, limit));
    // It may have ended by itself.
    let _ = qemu.kill();
    qemu.wait().context("waiting for QEMU")?;
    end
}

/// What comes over the serial line, in pieces as they come.
fn console(qemu: &mut Child) -> Result<Receiver<Vec<u8>>> {
    let mut line = qemu.stdout.take().context("QEMU has no stdout")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = line.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// Prints what comes, at once, and looks for what init says in it.
fn follow(console: &Receiver<Vec<u8>>, boot_limit: Duration, limit: Duration) -> Result<End> {
    let start = Instant::now();
    let mut said = String::new();
    let mut up = false;
    loop {
        let deadline = start + if up { limit } else { boot_limit };
        let piece = match console.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(piece) => String::from_utf8_lossy(&piece).replace('\r', ""),
            Err(_) if !up => return Ok(End::NotUp),
            Err(RecvTimeoutError::Disconnected) => return Ok(result(&said).map_or(End::Lost, End::Result)),
            Err(RecvTimeoutError::Timeout) => return Ok(End::Hung),
        };
        print!("{piece}");
        io::stdout().flush()?;
        said.push_str(&piece);
        up = up || said.contains(plan::UP);
    }
}

/// The result, once its line is whole.
fn result(said: &str) -> Option<String> {
    let (_, result) = said.rsplit_once(plan::RESULT)?;
    result.split_once('\n').map(|(result, _)| result.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_counts_when_it_is_whole() {
        assert_eq!(
            result("vm: up\nvm: result: passed\n[  4.2] reboot: Power down\n").as_deref(),
            Some("passed")
        );
        assert_eq!(result("vm: up\nvm: result: pas"), None);
    }
}
