// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The two ends of a link: a TUN device in each host, and the routes over them.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, bail};
use nix::libc;

use crate::lab::{V6_NEIGHBOUR, WIRE};
use crate::{Lab, Namespace, V4, V6};

/// The longest name of a device, and a zero.
const NAME: usize = libc::IFNAMSIZ;

/// Makes a device of this name in each of the two namespaces.
///
/// # Errors
///
/// When the kernel has no TUN.
pub fn between(a: &Namespace, b: &Namespace, device: &str) -> Result<[File; 2]> {
    Ok([a.run(|| open(device))?, b.run(|| open(device))?])
}

/// Leads the routes between the hosts of a lab over `device`.
///
/// The addresses stay on the lab's own wire. A route over TUN asks nobody where a neighbour is, so nothing but
/// what the hosts have to say to each other is ever under way.
///
/// # Errors
///
/// When `ip` cannot.
pub fn lead(lab: &Lab, device: &str) -> Result<()> {
    let sources = [V4, V6].map(|family| family.sources.map(|source| (source, family.host))).concat();
    let at_host: Vec<_> = sources.into_iter().chain([(V6_NEIGHBOUR, V6.host)]).collect();
    let at_client = [V4, V6].map(|family| (family.host, family.source()));
    lead_from(&lab.client, device, &at_client)?;
    lead_from(&lab.host, device, &at_host)
}

/// Leads the routes to the first address of each pair over the device, from the second one.
fn lead_from(namespace: &Namespace, device: &str, routes: &[(IpAddr, IpAddr)]) -> Result<()> {
    // Room for what comes at once: what finds the queue full is lost.
    let mut lines = format!("link set {device} addrgenmode none txqueuelen 20000 up\n");
    for (to, from) in routes {
        let _ = writeln!(lines, "route del {to} dev {WIRE}\nroute add {to} dev {device} src {from}");
    }
    namespace.ip_batch(&lines)
}

/// A device of the calling thread's network namespace, which goes with the file; reading never blocks.
fn open(device: &str) -> Result<File> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    let file = file.context("this kernel has no tun devices")?;
    if device.len() >= NAME {
        bail!("{device} is too long a name for a device");
    }
    // SAFETY: a request of zeros is a valid one: a name of no letters, no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made != 0 {
        return Err(io::Error::last_os_error()).context("cannot make a tun device");
    }
    Ok(file)
}
