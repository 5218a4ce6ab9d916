// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The two ends of a link: a TUN device in each host, and the routes over them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use nix::libc;

use crate::support::lab::{Netns, V6_NEIGHBOUR};
use crate::support::{Lab, V4, V6};

/// The name of both devices.
const DEVICE: &str = "far";

/// Makes the devices of the client host and of the mail host, in this order, and leads the routes over them.
///
/// The addresses stay on the lab's own wire. A route over TUN asks nobody where a neighbour is, so nothing but
/// what the hosts have to say to each other is ever under way.
pub fn between(lab: &Lab) -> [File; 2] {
    let ends = [&lab.client, &lab.host].map(|netns| netns.run(open).expect("root may make a TUN device"));
    let sources = [V4, V6].map(|family| family.sources.map(|source| (source, family.host))).concat();
    let at_host: Vec<_> = sources.into_iter().chain([(V6_NEIGHBOUR, V6.host)]).collect();
    let at_client = [V4, V6].map(|family| (family.host, family.source()));
    lead(&lab.client, &at_client);
    lead(&lab.host, &at_host);
    ends
}

/// Leads the routes to the first address of each pair over the device, from the second one.
fn lead(netns: &Netns, routes: &[(IpAddr, IpAddr)]) {
    // Room for what comes at once: what finds the queue full is lost.
    let mut lines = format!("link set {DEVICE} addrgenmode none txqueuelen 20000 up\n");
    for (to, from) in routes {
        let _ = writeln!(lines, "route del {to} dev wire\nroute add {to} dev {DEVICE} src {from}");
    }
    let mut command = netns.command("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().expect("iproute2 is installed");
    child.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("ip reads it");
    assert!(child.wait().expect("waiting for a child of ours").success(), "ip -batch:\n{lines}");
}

/// A device of the calling thread's network namespace; reading never blocks.
fn open() -> io::Result<File> {
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: a request of zeros is a valid one: a name of no letters, no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(DEVICE.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes a `struct ifreq`, which outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made == 0 { Ok(file) } else { Err(io::Error::last_os_error()) }
}
