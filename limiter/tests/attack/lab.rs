// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A lab with networks behind the client that nobody lives in, and what else an attack takes.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use limiter_lab::command::{feed, run};
use limiter_lab::sock_diag::{COUNTED, Sockets};
use limiter_lab::{Family, Lab, Limiter, cpu, eventually, same};

/// Within this time a place that was reserved for nothing is free again.
const TIDY: Duration = Duration::from_secs(3);

/// Hardware address of the client host.
pub const CLIENT_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Hardware address of the mail host, as the lab gives it.
pub const HOST_HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Nobody's networks, from the ranges for benchmarks (RFC 2544, RFC 5180), each with the address through
/// which the mail host reaches it. What it sends there comes to the client's end of the wire.
const NOBODYS: [(&str, &str); 2] =
    [("198.18.0.0/15", "198.19.255.254"), ("2001:2::/48", "2001:2:0:ffff::ffff")];

/// The `n`th address nobody owns, of the family of `family`; each a source of its own.
pub fn nobody(family: Family, n: u16) -> IpAddr {
    match family.host {
        IpAddr::V4(_) => Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + u32::from(n)).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 2, 0, n, 0, 0, 0, 7).into(),
    }
}

/// The lab, prepared.
pub struct AttackLab {
    lab: Lab,
    // Goes last.
    _alone: MutexGuard<'static, ()>,
}

/// One attack at a time: all labs share the CPUs' queues of received packets (`net.core.netdev_max_backlog`).
/// What finds them full is lost, and with a SYN-ACK that is repeated the kernel gives up its handshake.
static ALONE: Mutex<()> = Mutex::new(());

impl Deref for AttackLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl AttackLab {
    /// `None` without the privileges it takes.
    pub fn new() -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Self { lab: Lab::new(crate::BINARY)?, _alone: alone };
        let hardware = CLIENT_HARDWARE.map(|byte| format!("{byte:02x}")).join(":");
        lab.client(&["link", "set", "wire", "address", &hardware]);
        let (mut ways, mut nowhere) = (String::new(), String::new());
        for (network, gateway) in NOBODYS {
            let _ = writeln!(ways, "neigh replace {gateway} lladdr {hardware} dev wire nud permanent");
            let _ = writeln!(ways, "route add {gateway} dev wire");
            let _ = writeln!(ways, "route add {network} via {gateway} dev wire onlink");
            // Without a word: an IPv6 host says of what it has no route for that it is unreachable.
            let _ = writeln!(nowhere, "route add blackhole {network}");
        }
        for (netns, lines) in [(&lab.host, ways), (&lab.client, nowhere)] {
            let mut command = netns.command("ip");
            command.args(["-batch", "-"]);
            feed(command, &lines).unwrap();
        }
        // Room for every handshake an attack begins: what is tested is the limiter, not the kernel's queue.
        lab.host.sysctl("core/somaxconn", "300000").unwrap();
        lab.host.sysctl("ipv4/tcp_max_syn_backlog", "1000000").unwrap();
        lab.host.sysctl("ipv4/tcp_syncookies", "0").unwrap();
        Some(lab)
    }

    fn client(&self, arguments: &[&str]) {
        let mut command = self.client.command("ip");
        command.args(arguments);
        run(command).unwrap();
    }

    /// Has the mail host receive on all CPUs (RPS): the packets of a burst are handled in parallel.
    pub fn receive_on_all_cpus(&self) {
        let mask = mask(&cpu::allowed().unwrap());
        // `ip netns exec` mounts the /sys of the namespace; its queue is not seen otherwise.
        let mut command = Command::new("ip");
        command.args(["netns", "exec"]).arg(self.host.path().file_name().expect("it has a name"));
        command.args(["sh", "-c", &format!("echo {mask} > /sys/class/net/wire/queues/rx-0/rps_cpus")]);
        run(command).unwrap();
    }

    /// The clients' resets are lost from now on, as behind a firewall that drops what it did not ask for:
    /// a SYN-ACK for a forged SYN is answered by nobody. Forged packets are not the kernel's, and go out.
    pub fn lose_resets_of_the_client(&self) {
        let mut command = self.client.command("nft");
        command.args(["-f", "-"]);
        let chain = "chain out {\n type filter hook output priority 0\n tcp flags & rst == rst drop\n}";
        feed(command, &format!("table inet firewall {{\n{chain}\n}}\n")).unwrap();
    }
}

/// CPUs as sysfs takes them: hexadecimal, 32 bits a word, the highest first.
fn mask(cpus: &[usize]) -> String {
    let mut words = vec![0_u32; cpus.iter().max().map_or(1, |last| last / 32 + 1)];
    for cpu in cpus {
        words[cpu / 32] |= 1 << (cpu % 32);
    }
    words.iter().rev().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(",")
}

#[test]
fn cpus_are_written_as_sysfs_takes_them() {
    assert_eq!(mask(&[0, 1]), "00000003");
    assert_eq!(mask(&[1, 33]), "00000002,00000002");
}

/// Waits until the kernel and the limiter agree that `source` holds `expected` connections to port 25, and
/// nothing stays reserved; requires that nothing was corrected or let through uncounted.
#[track_caller]
pub fn agree(lab: &Lab, limiter: &Limiter, source: IpAddr, expected: usize) {
    holds(lab, limiter, source, expected, 0);
}

/// The same where `source` has `alive` connections by the kernel's table, and `dead` ones beside them that the mail
/// daemon has not let go of yet: these are in no table.
#[track_caller]
pub fn holds(lab: &Lab, limiter: &Limiter, source: IpAddr, alive: usize, dead: usize) {
    let mut sockets = Sockets::of(&lab.host);
    let what = format!("{source} holds {alive} by the kernel, and {dead} more by limiter list");
    eventually(&what, TIDY, || {
        let table = sockets.connections(25, &COUNTED);
        let kernel = table.iter().filter(|connection| connection.remote.ip() == source).count();
        let ours = limiter.source("smtp", source);
        let found = (kernel, ours.connections, ours.reserved);
        same("kernel, limiter, reserved", &found, &(alive, (alive + dead) as u64, 0))
    });
    for counter in ["drift", "uncounted"] {
        assert_eq!(limiter.counter("smtp", counter), 0, "{counter}: {:#}", limiter.json(&["status"]));
    }
}
