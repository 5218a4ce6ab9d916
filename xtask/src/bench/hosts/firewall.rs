// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's own firewalls, with the rules of their manuals.

use std::fs;

use anyhow::Result;

use super::Host;
use crate::{
    bench::{
        flood::FLOODER,
        lab::{LIMIT, PLENTY, port},
    },
    command,
};

/// `ct count` in a dynamic set, an element for each source (nft(8), "CONNECTION TRACKING STATEMENTS"; the
/// wiki's "Meters", "Doing connlimit with nft").
pub fn nftables(host: &Host) -> Result<()> {
    let families = [("ip", "ipv4_addr", ""), ("ip6", "ipv6_addr", " and ffff:ffff:ffff:ffff::")];
    let all = || limits().into_iter().flat_map(|limit| families.map(|family| (limit, family)));
    let sets = all().map(|((port, _), (family, kind, _))| {
        format!("  set {family}_{port} {{ type {kind}; size 65535; flags dynamic; }}\n")
    });
    let rules = all().map(|((port, limit), (family, _, prefix))| {
        format!(
            "    tcp dport {port} ct state new add @{family}_{port} {{ {family} saddr{prefix} ct count over {limit} }} \
             counter reject with tcp reset\n"
        )
    });
    let banned = format!("    ip saddr {FLOODER} tcp dport {} drop\n", port::ADMITS);
    let (sets, rules) = (sets.collect::<Vec<_>>().concat(), rules.collect::<Vec<_>>().concat());
    let rules = format!(
        "table inet limits {{\n{sets}  chain input {{\n    type filter hook input priority filter; policy accept;\n\
         {banned}         {rules}  }}\n}}\n"
    );
    let file = host.path("rules.nft");
    fs::write(&file, rules)?;
    command::run(host.cgroup.command(&host.netns, "nft").arg("-f").arg(file))
}

/// `connlimit` (iptables-extensions(8)).
pub fn iptables(host: &Host) -> Result<()> {
    let mut banned = host.cgroup.command(&host.netns, "iptables");
    banned.args(["--wait", "-A", "INPUT", "-s", &FLOODER.to_string(), "-p", "tcp"]);
    command::run(banned.args(["--dport", &port::ADMITS.to_string(), "-j", "DROP"]))?;
    for (port, limit) in limits() {
        for (program, mask) in [("iptables", "32"), ("ip6tables", "64")] {
            let mut iptables = host.cgroup.command(&host.netns, program);
            iptables.args(["--wait", "-A", "INPUT", "-p", "tcp", "--syn", "--dport", &port.to_string()]);
            iptables.args(["-m", "connlimit", "--connlimit-above", &limit.to_string()]);
            iptables.args(["--connlimit-mask", mask, "-j", "REJECT", "--reject-with", "tcp-reset"]);
            command::run(&mut iptables)?;
        }
    }
    Ok(())
}

const fn limits() -> [(u16, usize); 2] {
    [(port::ADMITS, PLENTY), (port::RESETS, LIMIT)]
}
