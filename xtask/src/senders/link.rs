// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A link with a delay, for hosts far from each other: a tun device in each, and every packet waits in between.
//!
//! In user space, since not every kernel has netem. IPv4, without loss, in order.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::{Netns, WIRE};

/// The largest packet of IPv4.
const PACKET: usize = 65_535;

/// How often a side without packets looks whether it is over, in milliseconds.
const LOOK: u8 = 100;

/// A link, as long as this lives.
pub struct Link {
    is_over: Arc<AtomicBool>,
    sides: Vec<JoinHandle<()>>,
}

impl Link {
    /// Lays it. Each packet takes `delay` to the other side.
    ///
    /// # Errors
    ///
    /// When a device cannot be made.
    pub fn lay(a: &Netns, b: &Netns, delay: Duration) -> Result<Self> {
        let (a, b) = (a.run(tun)?, b.run(tun)?);
        let mut link = Self { is_over: Arc::default(), sides: Vec::new() };
        link.carry(a.try_clone()?, b.try_clone()?, delay);
        link.carry(b, a, delay);
        Ok(link)
    }

    /// Carries packets in one direction.
    fn carry(&mut self, from: File, to: File, delay: Duration) {
        let (waiting, due) = mpsc::channel::<(Instant, Vec<u8>)>();
        let is_over = Arc::clone(&self.is_over);
        self.sides.push(thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                match receive(&from) {
                    Ok(Some(packet)) => {
                        if waiting.send((Instant::now() + delay, packet)).is_err() {
                            return;
                        }
                    }
                    Ok(None) => {}
                    Err(error) => return eprintln!("the link is broken: {error:#}"),
                }
            }
        }));
        // Ends when nobody can put in anything any more.
        self.sides.push(thread::spawn(move || {
            for (at, packet) in due {
                thread::sleep(at.saturating_duration_since(Instant::now()));
                // A device that is not up takes no packet: lost, as on a wire.
                let _lost = (&to).write(&packet);
            }
        }));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for side in self.sides.drain(..) {
            if side.join().is_err() {
                eprintln!("a side of the link died");
            }
        }
    }
}

/// The next packet; none within [`LOOK`].
fn receive(mut from: &File) -> Result<Option<Vec<u8>>> {
    let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::from(LOOK))? == 0 {
        return Ok(None);
    }
    let mut packet = vec![0; PACKET];
    match from.read(&mut packet) {
        Ok(length) => {
            packet.truncate(length);
            Ok(Some(packet))
        }
        // Another look.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        // The device is not up, or not yet.
        Err(error) if error.raw_os_error() == Some(nix::libc::EIO) => {
            thread::sleep(Duration::from_millis(LOOK.into()));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// `struct ifreq` of include/uapi/linux/if.h, as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// The ioctl, in a module of its own since the macro writes a public function.
mod ioctl {
    nix::ioctl_write_ptr_bad!(
        /// `TUNSETIFF` of include/uapi/linux/if_tun.h: makes a device of this network namespace.
        tunsetiff,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        super::Request
    );
}

/// Makes a tun device in the network namespace of this thread, which goes with the file.
fn tun() -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let file = file.context("this kernel has no tun devices")?;
    if WIRE.len() >= 16 {
        bail!("{WIRE} is too long a name for a device");
    }
    // Packets without a header before them.
    let flags = (nix::libc::IFF_TUN | nix::libc::IFF_NO_PI) as i16;
    let mut request = Request { name: [0; 16], flags, rest: [0; 22] };
    request.name[..WIRE.len()].copy_from_slice(WIRE.as_bytes());
    // SAFETY: the file is open, and the request is as long as a `struct ifreq` (40 bytes), which is all the kernel
    // reads and writes.
    unsafe { ioctl::tunsetiff(file.as_raw_fd(), &raw const request) }.context("cannot make a tun device")?;
    Ok(file)
}

const _: () = assert!(size_of::<Request>() == size_of::<nix::libc::ifreq>());
