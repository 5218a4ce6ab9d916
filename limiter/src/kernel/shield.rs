// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The shield's program on network devices: one pinned link a device.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::programs::ProgramFd;
use nix::errno::Errno;

use super::link::PinnedLink;

/// Pins of links are named for their device's number: its name may change, and may have a dot, which pins
/// may not.
const PREFIX: &str = "link-shield-";

/// The links, and the program that belongs on them.
pub struct Shield {
    dir: PathBuf,
    /// None if this kernel refuses it.
    program: Option<Program>,
    links: BTreeMap<u32, PinnedLink>,
}

/// A program of this build.
struct Program {
    fd: ProgramFd,
    id: u32,
}

/// Where a program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hook {
    /// In the driver.
    Native,
    /// In the kernel, behind the driver.
    Generic,
}

impl Shield {
    /// The links pinned in `dir`, whoever made them.
    pub(super) fn open(dir: PathBuf, program: Option<(ProgramFd, u32)>) -> Result<Self> {
        let mut links = BTreeMap::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(Ok(device)) = name.strip_prefix(PREFIX).map(str::parse) {
                links.insert(device, PinnedLink::open(&path)?);
            }
        }
        let program = program.map(|(fd, id)| Program { fd, id });
        Ok(Self { dir, program, links })
    }

    /// Whether this kernel has accepted the program.
    pub fn is_loaded(&self) -> bool {
        self.program.is_some()
    }

    /// The devices that have a link, and for each the id of the program it holds there; none if the device
    /// is gone or has another number, and so is another, or someone has detached it.
    pub fn devices(&self) -> Result<Vec<(u32, Option<u32>)>> {
        let held = |(&device, link): (&u32, &PinnedLink)| Ok((device, link.program_on(device)?));
        self.links.iter().map(held).collect()
    }

    /// Attaches the program to a device.
    ///
    /// # Errors
    /// The kernel's; `EBUSY` or `EEXIST` when another program is there.
    pub fn attach(&mut self, device: u32, hook: Hook) -> nix::Result<()> {
        let program = self.program.as_ref().ok_or(Errno::ENOENT)?;
        let link = PinnedLink::attach_to_device(
            program.fd.as_fd(),
            device,
            hook == Hook::Native,
            &pin(&self.dir, device),
        )?;
        self.links.insert(device, link);
        Ok(())
    }

    /// Lets this build's program take the place of another's on a device, in one step.
    pub fn renew(&self, device: u32, present: u32) -> Result<()> {
        match (&self.program, self.links.get(&device)) {
            (Some(program), Some(link)) if program.id != present => link.replace_program(program.fd.as_fd()),
            _ => Ok(()),
        }
    }

    /// Detaches it from a device, which may be gone.
    pub fn detach(&mut self, device: u32) -> Result<()> {
        if let Some(link) = self.links.remove(&device) {
            link.detach()?;
            let pin = pin(&self.dir, device);
            fs::remove_file(&pin).with_context(|| format!("cannot remove {}", pin.display()))?;
        }
        Ok(())
    }
}

/// Whether the shield pinned in `dir` is on a device.
pub fn is_on(dir: &Path, device: u32) -> Result<bool> {
    let pin = pin(dir, device);
    Ok(pin.try_exists()? && PinnedLink::open(&pin)?.program_on(device)?.is_some())
}

fn pin(dir: &Path, device: u32) -> PathBuf {
    dir.join(format!("{PREFIX}{device}"))
}
