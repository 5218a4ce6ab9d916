// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Two hosts, joined by a veth link.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "the test fails, and says where")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Namespace, limits, skip::skip, sweep};

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

/// IPv4.
pub const V4: Family = Family {
    host: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    sources: [
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
        IpAddr::V4(Ipv4Addr::new(198, 51, 100, 8)),
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
    ],
};
/// IPv6, each source in a /64 of its own.
pub const V6: Family = Family { host: v6(0, 1), sources: [v6(7, 7), v6(8, 7), v6(9, 7)] };

/// In the same /64 as the first of [`V6`]'s sources.
pub const V6_NEIGHBOUR: IpAddr = v6(7, 8);

/// The interface at either end of the link between the two hosts.
pub const WIRE: &str = "wire";

/// How many labs this process has made.
static LABS: AtomicU32 = AtomicU32::new(0);

/// Whether it has looked for what others left, and may open files enough.
static PREPARED: Once = Once::new();

/// A client host and a mail host, connected.
pub struct Lab {
    /// The client host.
    pub client: Namespace,
    /// The mail host.
    pub host: Namespace,
    /// Unlike any other's, for names in places that all labs share.
    pub name: String,
    /// The program that is tested.
    pub(crate) limiter: PathBuf,
}

impl Lab {
    /// For tests of the program at `limiter`. `None`, with a word to whoever ran the tests, without the privileges it
    /// takes.
    pub fn new(limiter: impl AsRef<Path>) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("it needs root, for network namespaces and BPF");
            return None;
        }
        PREPARED.call_once(|| {
            limits::allow_many_files().expect("a process may open as many files as it may");
            sweep::TESTS.sweep().expect("root may remove what is left of other runs");
        });
        let name = format!("{}-{}", sweep::TESTS.ours(), LABS.fetch_add(1, Ordering::Relaxed));
        let [client, host] = ["c", "h"]
            .map(|side| Namespace::new(format!("{name}-{side}")).expect("root may make a namespace"));
        let lab = Self { client, host, name, limiter: limiter.as_ref().to_owned() };
        lab.client.veth_to(&lab.host, WIRE).unwrap();
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
        lab.host.ip_batch(&at_host.concat()).unwrap();
        lab.client.ip_batch(&at_client.concat()).unwrap();
        Some(lab)
    }

    /// The client host vanishes from the wire, for good: nothing it says or is told arrives any more.
    pub fn cut(&self) {
        self.client.ip(&["link", "set", "wire", "down"]).unwrap();
    }

    /// Runs `ip` for the mail host.
    pub fn host_ip(&self, arguments: &[&str]) {
        self.host.ip(arguments).unwrap();
    }

    /// Every address of `network` is one of the client host from now on.
    pub fn take_network(&self, network: &str) {
        let (version, nonlocal, router) = if network.contains(':') {
            ("-6", "ipv6/ip_nonlocal_bind", V6.source())
        } else {
            ("-4", "ipv4/ip_nonlocal_bind", V4.source())
        };
        self.client.sysctl(nonlocal, "1").unwrap();
        self.client.ip(&[version, "route", "add", "local", network, "dev", "lo"]).unwrap();
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
        self.host.ip_batch(&neighbour(source, NO_HARDWARE)).unwrap();
    }

    /// Ends what [`Self::deafen`] began.
    pub fn undeafen(&self, source: IpAddr) {
        self.host.ip_batch(&format!("neigh del {source} dev wire\n")).unwrap();
    }
}

/// `ip -batch` lines. Without link-local addresses and DAD nothing has to be waited for.
const WIRE_UP: &str = "link set wire addrgenmode none\nlink set wire up\n";

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
