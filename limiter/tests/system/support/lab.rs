// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Two hosts on one wire.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use super::cgroup;
use super::limiter::BINARY;
use super::process::{run, tethered};

/// Addresses of one family, from the ranges for documentation (RFC 5737, RFC 3849).
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The mail host.
    pub host: IpAddr,
    /// Addresses of the client host, each a source of its own.
    pub sources: [IpAddr; 3],
}

impl Family {
    /// The source most tests connect from.
    pub fn source(&self) -> IpAddr {
        self.sources[0]
    }

    /// Where a service of the mail host is.
    pub fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.host, port)
    }
}

const fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host))
}

pub const V4: Family = Family {
    host: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    sources: [
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 8)),
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
    ],
};
pub const V6: Family = Family { host: v6(0, 1), sources: [v6(7, 7), v6(8, 7), v6(9, 7)] };

/// In the same /64 as the first of [`V6`]'s sources.
pub const V6_NEIGHBOUR: IpAddr = v6(7, 8);

/// A network namespace.
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    fn new(name: String) -> Self {
        ip(&["netns", "add", &name]);
        let file = File::open(format!("/run/netns/{name}")).expect("ip netns add has made it");
        Self { name, file }
    }

    /// As `ip` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}", self.name))
    }

    /// A command that runs in it, and ends with the thread that started it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = tethered("nsenter");
        command.arg(format!("--net={}", self.path().display())).args(["--", program]);
        command
    }

    /// Moves the calling thread into it, for good.
    pub fn enter(&self) {
        setns(&self.file, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
    }

    /// Runs `work` on a thread in it. Sockets made there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Sets a `net.*` sysctl of it, by its path below `/proc/sys/net`.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value)).expect("the sysctl exists");
    }
}

/// How many labs this process has made.
static LABS: AtomicU32 = AtomicU32::new(0);

/// Whether it has looked for what others left, and may open files enough.
static PREPARED: Once = Once::new();

/// Both ends of every connection of every test that runs are this process's.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    let most = hard.max(65_536);
    // Root of a container may not raise the hard limit; up to there it always may.
    setrlimit(Resource::RLIMIT_NOFILE, most, most)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
        .expect("up to the hard limit");
}

/// Removes what runs of these tests left that were killed, by Ctrl-C for one: they are named for their
/// process.
fn sweep() {
    let dead = |name: &str| {
        let process = name.strip_prefix("lt-").and_then(|rest| rest.split('-').next());
        process.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    let left = |place: &Path| {
        let names = std::fs::read_dir(place).into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| dead(name))
            .collect::<Vec<_>>()
    };
    for pins in left(Path::new("/sys/fs/bpf")) {
        // What was being loaded is pinned as NAME+new.
        let instance = pins.trim_end_matches("+new");
        let _ = Command::new(BINARY).args(["--instance", instance, "unload"]).stdout(Stdio::null()).status();
    }
    for netns in left(Path::new("/run/netns")) {
        let _ = Command::new("ip").args(["netns", "del", &netns]).status();
    }
    let cgroups = cgroup::root();
    for cgroup in left(&cgroups) {
        let _ = std::fs::remove_dir(cgroups.join(cgroup));
    }
}

/// A client host and a mail host, connected.
pub struct Lab {
    pub client: Netns,
    pub host: Netns,
    /// Unlike any other's, for names in places that all labs share.
    pub name: String,
}

impl Lab {
    /// `None`, with a word to whoever ran the tests, without the privileges it takes.
    pub fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            super::skip::skip("it needs root, for network namespaces and BPF");
            return None;
        }
        PREPARED.call_once(|| {
            allow_many_files();
            sweep();
        });
        let name = format!("lt-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab =
            Self { client: Netns::new(format!("{name}-c")), host: Netns::new(format!("{name}-h")), name };
        let (client, host) = (&lab.client.name, &lab.host.name);
        ip(&["-n", client, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", host]);
        let routes_to = |family: Family| family.sources.map(|source| route(source, family.host)).concat();
        let at_host = [
            format!("link set wire address {HOST_HARDWARE}\n"),
            WIRE_UP.to_owned(),
            addresses(&[V4.host, V6.host]),
            [V4, V6].map(routes_to).concat(),
            route(V6_NEIGHBOUR, V6.host),
        ];
        let at_client = [
            WIRE_UP.to_owned(),
            addresses(&[V4.sources, V6.sources].concat()),
            addresses(&[V6_NEIGHBOUR]),
            [V4, V6].map(|family| route(family.host, family.source())).concat(),
            // Known for good: an IPv6 host that was deafened could not tell.
            [V4, V6].map(|family| neighbour(family.host, HOST_HARDWARE)).concat(),
        ];
        batch(host, &at_host.concat());
        batch(client, &at_client.concat());
        Some(lab)
    }

    /// The client host vanishes from the wire, for good: nothing it says or is told arrives any more.
    pub fn cut(&self) {
        ip(&["-n", &self.client.name, "link", "set", "wire", "down"]);
    }

    /// Runs `ip` for the mail host.
    pub fn host_ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.host.name], arguments].concat());
    }

    /// Every address of `network` is one of the client host from now on.
    pub fn take_network(&self, network: &str) {
        let (version, nonlocal, router) = if network.contains(':') {
            ("-6", "ipv6/ip_nonlocal_bind", V6.source())
        } else {
            ("-4", "ipv4/ip_nonlocal_bind", V4.source())
        };
        self.client.sysctl(nonlocal, "1");
        ip(&["-n", &self.client.name, version, "route", "add", "local", network, "dev", "lo"]);
        self.host_ip(&[
            version,
            "route",
            "add",
            network,
            "via",
            &router.to_string(),
            "dev",
            "wire",
            "onlink",
        ]);
    }

    /// From now on, what the mail host sends to `source` is lost on the wire.
    pub fn deafen(&self, source: IpAddr) {
        batch(&self.host.name, &neighbour(source, NO_HARDWARE));
    }

    /// Ends what [`Self::deafen`] began.
    pub fn undeafen(&self, source: IpAddr) {
        batch(&self.host.name, &format!("neigh del {source} dev wire\n"));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for netns in [&self.client.name, &self.host.name] {
            // A process that outlived its guard would keep the namespace; only what the test started
            // can be in there.
            let pids = Command::new("ip").args(["netns", "pids", netns]).output();
            for pid in pids.iter().flat_map(|found| std::str::from_utf8(&found.stdout)).flat_map(str::lines) {
                if let Ok(pid) = pid.trim().parse() {
                    let _ =
                        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
                }
            }
            let _ = Command::new("ip").args(["netns", "del", netns]).status();
        }
    }
}

/// `ip -batch` lines. Without link-local addresses and DAD nothing has to be waited for.
const WIRE_UP: &str = "link set lo up\nlink set wire addrgenmode none\nlink set wire up\n";

/// The hardware address of the mail host.
const HOST_HARDWARE: &str = "02:00:00:00:00:01";

/// A hardware address that no one has.
const NO_HARDWARE: &str = "02:00:00:00:00:99";

/// An `ip -batch` line that says where on the wire `address` is, whatever it says itself.
fn neighbour(address: IpAddr, hardware: &str) -> String {
    format!("neigh replace {address} lladdr {hardware} dev wire nud permanent\n")
}

/// `ip -batch` lines that put these addresses on the wire.
fn addresses(addresses: &[IpAddr]) -> String {
    let line = |address: &IpAddr| match address {
        IpAddr::V4(_) => format!("addr add {address}/32 dev wire\n"),
        IpAddr::V6(_) => format!("addr add {address}/128 dev wire nodad\n"),
    };
    addresses.iter().map(line).collect()
}

/// An `ip -batch` line for the way to `destination`, on the wire, from `source` unless a socket says else.
fn route(destination: IpAddr, source: IpAddr) -> String {
    format!("route add {destination} dev wire src {source}\n")
}

fn ip(arguments: &[&str]) {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command).unwrap();
}

fn batch(netns: &str, lines: &str) {
    use std::io::Write as _;
    let mut command = Command::new("ip");
    command.args(["-n", netns, "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().expect("iproute2 is installed");
    child.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("ip reads it");
    assert!(child.wait().expect("waiting for a child of ours").success(), "ip -n {netns} -batch:\n{lines}");
}
