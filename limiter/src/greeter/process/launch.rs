// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Starts the process: this program again, with nothing but three descriptors.

use std::{
    fmt,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result};
use nix::unistd::User;
use rustix::net::sockopt::{socket_acceptconn, socket_type};

use crate::{
    greeter::child,
    sandbox::{Confinement, again},
};

/// The name of this part of the program, which nobody types.
pub const PART: &str = "greeter";
/// The user that the process runs as where it exists.
const USER: &str = "limiter-greeter";
/// Otherwise this one, which owns no files; the group has the same number.
const NOBODY: u32 = 65_534;

/// What a process is started with.
pub type Ends = child::Ends;

/// What the arguments of the part say: its descriptors, and how it is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct Part {
    listener: RawFd,
    orders: RawFd,
    questions: RawFd,
    uid: u32,
    gid: u32,
    files: u64,
    parent: i32,
}

impl Part {
    /// What was left open for it.
    ///
    /// # Errors
    /// If somebody has started the part by hand.
    pub fn ends(self) -> Result<Ends> {
        let Self { listener, orders, questions, .. } = self;
        let own = |fd: RawFd| {
            // SAFETY: whoever starts this process says that nobody else owns it; looked at below.
            (fd > 2).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let by_hand = "`greeter` is a part of the daemon and no command: use `limiter run`";
        for fd in [listener, orders, questions] {
            // SAFETY: a plain number.
            let is_open = fd > 2 && unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
            anyhow::ensure!(is_open, by_hand);
        }
        let (listener, orders, questions) = (
            own(listener).context(by_hand)?,
            own(orders).context(by_hand)?,
            own(questions).context(by_hand)?,
        );
        anyhow::ensure!(socket_acceptconn(&listener).unwrap_or(false), by_hand);
        for socket in [&orders, &questions] {
            anyhow::ensure!(socket_type(socket).is_ok(), by_hand);
        }
        Ok(Ends { listener: listener.into(), orders, questions })
    }

    /// How it is confined.
    pub const fn confinement(self) -> Confinement {
        let Self { uid, gid, files, parent, .. } = self;
        Confinement { uid, gid, files, parent }
    }
}

/// Starts processes.
pub trait Launch: fmt::Debug + Send {
    /// One with these.
    ///
    /// # Errors
    /// Why there is none.
    fn launch(&self, ends: Ends) -> Result<Box<dyn Launched>>;
}

/// A process that was started.
pub trait Launched: fmt::Debug + Send {
    /// Its number.
    fn pid(&self) -> Option<u32>;
    /// Ends it, if it has not ended; how it did.
    fn end(self: Box<Self>) -> String;
}

/// Starts this program again.
#[derive(Debug)]
pub struct Program {
    user: (u32, u32),
    files: u64,
}

impl Program {
    /// With so many descriptors, as the user that is there for it.
    #[must_use]
    pub fn new(files: u64) -> Self {
        // Asked once: it may ask a server.
        let user = User::from_name(USER).ok().flatten().map(|user| (user.uid.as_raw(), user.gid.as_raw()));
        Self { user: user.unwrap_or((NOBODY, NOBODY)), files }
    }
}

impl Launch for Program {
    fn launch(&self, ends: Ends) -> Result<Box<dyn Launched>> {
        let Ends { listener, orders, questions } = ends;
        let kept = [listener.as_raw_fd(), orders.as_raw_fd(), questions.as_raw_fd()];
        let (uid, gid) = self.user;
        let mut command = again::part(PART, kept);
        command.args(kept.map(|fd| fd.to_string()));
        command.args([
            uid.to_string(),
            gid.to_string(),
            self.files.to_string(),
            std::process::id().to_string(),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Box::new(command.spawn().context("cannot start /proc/self/exe")?))
    }
}

impl Launched for Child {
    fn pid(&self) -> Option<u32> {
        Some(self.id())
    }

    fn end(mut self: Box<Self>) -> String {
        // One that has ended already cannot be killed.
        let _has_ended = self.kill();
        match self.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}
