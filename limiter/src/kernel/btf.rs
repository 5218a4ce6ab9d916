// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Offsets in the running kernel's own structures, from its BTF.

mod types;

use std::fs;

use anyhow::{Context as _, Result, bail};
use aya::{Btf, Endianness};
use limiter_common::kernel::Offsets;

use self::types::Types;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
/// What programs are for that the kernel calls by its own types: an iterator, and a tracepoint.
const ITERATOR: &str = "bpf_iter_tcp";
const TRACEPOINT: &str = "btf_trace_tcp_destroy_sock";

/// What all programs but the census need. What is the census's alone is left out.
fn offsets(btf: &Types) -> Result<Offsets> {
    let of = |name: &str, member: &str| offset(btf, name, member);
    Ok(Offsets {
        snt_isn: of("tcp_request_sock", "snt_isn")?,
        rcv_isn: of("tcp_request_sock", "rcv_isn")?,
        ts_off: of("tcp_request_sock", "ts_off")?,
        snt_synack: of("tcp_request_sock", "snt_synack")?,
        mss: of("request_sock", "mss")?,
        ts_recent: of("request_sock", "ts_recent")?,
        skc_rcv_wnd: of("sock_common", "skc_rcv_wnd")?,
        request_options: of("inet_request_sock", "snd_wscale")?,
        sk_max_ack_backlog: of("sock", "sk_max_ack_backlog")?,
        sk_userlocks: bit_offset(btf, "sock", "sk_userlocks")?,
        // A `tcp_sock` begins with an `inet_connection_sock`.
        fast_open_max_qlen: of("inet_connection_sock", "icsk_accept_queue")?
            + of("request_sock_queue", "fastopenq")?
            + of("fastopen_queue", "max_qlen")?,
        sk_shutdown: of("sock", "sk_shutdown")?,
        sk_err: of("sock", "sk_err")?,
        skc_net: of("sock_common", "skc_net")?,
        skc_cookie: of("sock_common", "skc_cookie")?,
        skc_ipv6only: bit_offset(btf, "sock_common", "skc_ipv6only")?,
        net_cookie: of("net", "net_cookie")?,
        ..Offsets::default()
    })
}

/// The same with what the census needs.
fn offsets_of_census(btf: &Types, offsets: Offsets) -> Result<Offsets> {
    let of = |name: &str, member: &str| offset(btf, name, member);
    let skc_daddr = of("sock_common", "skc_daddr")?;
    // Without IPv6 in the kernel (CONFIG_IPV6) no socket has such an address, and what is read in its place by the
    // code for it, four words, never is.
    let skc_v6_daddr = match of("sock_common", "skc_v6_daddr") {
        Err(_) if !has_ipv6(btf) => skc_daddr,
        found => found?,
    };
    Ok(Offsets {
        skc_family: of("sock_common", "skc_family")?,
        skc_state: of("sock_common", "skc_state")?,
        skc_num: of("sock_common", "skc_num")?,
        skc_daddr,
        skc_v6_daddr,
        sk_cgroup: of("sock", "sk_cgrp_data")? + of("sock_cgroup_data", "cgroup")?,
        cgroup_kn: of("cgroup", "kn")?,
        cgroup_parent: of("cgroup", "self")? + of("cgroup_subsys_state", "parent")?,
        css_cgroup: of("cgroup_subsys_state", "cgroup")?,
        kn_id: of("kernfs_node", "id")?,
        ..offsets
    })
}

/// Whether the kernel was built with IPv6: a socket has a pointer to what is IPv6's of it then
/// (`struct inet_sock`, `include/net/inet_sock.h`), and an address in what sockets have in common.
fn has_ipv6(btf: &Types) -> bool {
    offset(btf, "inet_sock", "pinet6").is_ok()
}

/// Where in the 16 bits of [`Offsets::request_options`] the kernel keeps what a handshake has agreed upon
/// (`struct inet_request_sock`, `include/net/inet_sock.h`): the place of the lowest bit of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestBits {
    /// The client's window scale, four bits.
    pub snd_wscale: u32,
    /// Ours, four bits.
    pub rcv_wscale: u32,
    /// Timestamps.
    pub tstamp_ok: u32,
    /// Selective acknowledgements.
    pub sack_ok: u32,
    /// Window scales.
    pub wscale_ok: u32,
}

/// What is read of the running kernel's BTF, which takes a while, once.
#[derive(Clone, Debug)]
pub struct Layout {
    /// What the programs need.
    pub offsets: Offsets,
    /// Why they are not what the census needs.
    pub no_census: Option<String>,
    /// What the daemon needs.
    pub bits: RequestBits,
    /// Whether programs may look up what another CPU has in a map: Linux 5.19.
    pub looks_up_per_cpu: bool,
    /// The number of the iterator's function, if there is one.
    iterator: Option<u32>,
    /// The number of the tracepoint's type, if there is one.
    tracepoint: Option<u32>,
}

/// The running kernel's.
///
/// # Errors
/// When the kernel has no BTF, or does not know one of the members.
pub fn layout() -> Result<Layout> {
    let bytes = fs::read(VMLINUX).with_context(|| {
        format!("cannot read {VMLINUX}: this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF), which is needed")
    })?;
    of(&Types::parse(bytes).with_context(|| format!("cannot read the types in {VMLINUX}"))?)
}

fn of(btf: &Types) -> Result<Layout> {
    // The helper's own function.
    let looks_up_per_cpu = btf.function("bpf_map_lookup_percpu_elem").is_some();
    let (iterator, tracepoint) = (btf.function(ITERATOR), btf.named_type(TRACEPOINT));
    let (offsets, bits) = offsets(btf)
        .and_then(|offsets| Ok((offsets, request_bits(btf)?)))
        .context("limiter does not support this kernel, and needs another one")?;
    let (offsets, no_census) = match offsets_of_census(btf, offsets) {
        Ok(offsets) => (offsets, None),
        Err(problem) => (offsets, Some(format!("{problem:#}"))),
    };
    Ok(Layout { offsets, no_census, bits, looks_up_per_cpu, iterator, tracepoint })
}

impl Layout {
    /// What aya has to know of the kernel's types to load the iterator over the sockets of TCP.
    ///
    /// # Errors
    /// When this kernel has none.
    pub fn iterator(&self) -> Result<Btf> {
        let id = self.iterator.with_context(|| format!("this kernel has no iterator {ITERATOR}"))?;
        Ok(Btf::parse(&types::with_function(id, ITERATOR), Endianness::default())?)
    }

    /// The same for the tracepoint that is called when the kernel destroys a socket of TCP.
    ///
    /// # Errors
    /// When this kernel has none.
    pub fn tracepoint(&self) -> Result<Btf> {
        let id = self.tracepoint.with_context(|| format!("this kernel has no tracepoint {TRACEPOINT}"))?;
        Ok(Btf::parse(&types::with_named_type(id, TRACEPOINT), Endianness::default())?)
    }
}

fn request_bits(btf: &Types) -> Result<RequestBits> {
    let at = |member: &str| bit_offset(btf, "inet_request_sock", member);
    let first = at("snd_wscale")? / 8 * 8;
    let bit = |member: &str| -> Result<u32> {
        let bit = at(member)?.wrapping_sub(first);
        if bit < 16 {
            Ok(bit)
        } else {
            bail!("this kernel's struct inet_request_sock has {member} at another offset")
        }
    };
    Ok(RequestBits {
        snd_wscale: bit("snd_wscale")?,
        rcv_wscale: bit("rcv_wscale")?,
        tstamp_ok: bit("tstamp_ok")?,
        sack_ok: bit("sack_ok")?,
        wscale_ok: bit("wscale_ok")?,
    })
}

/// Offset of a member in bytes, also of one inside an anonymous struct or union.
fn offset(btf: &Types, name: &str, member: &str) -> Result<u32> {
    Ok(bit_offset(btf, name, member)? / 8)
}

/// The same in bits.
fn bit_offset(btf: &Types, name: &str, member: &str) -> Result<u32> {
    match btf.bit_offset(name, member) {
        Some(bits) => Ok(bits),
        None if btf.has_structure(name) => bail!("this kernel's struct {name} has no member {member}"),
        None => bail!("this kernel has no struct {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The running kernel's, with other names for some members; none if it has no BTF.
    fn renamed(members: &[&str]) -> Option<Result<Layout>> {
        let Ok(mut bytes) = std::fs::read(VMLINUX) else {
            limiter_lab::skip_without("CONFIG_DEBUG_INFO_BTF");
            return None;
        };
        for member in members {
            let name = format!("\0{member}\0");
            let found = bytes.windows(name.len()).position(|window| window == name.as_bytes());
            bytes[found.unwrap() + 1] = b'X';
        }
        Some(of(&Types::parse(bytes).unwrap()))
    }

    #[test]
    fn a_kernel_without_ipv6_has_all_that_is_needed() {
        let Some(with) = renamed(&[]) else { return };
        let without = renamed(&["pinet6", "skc_v6_daddr", "skc_v6_rcv_saddr"]).unwrap().unwrap();
        let with = with.unwrap();
        assert_eq!((&with.no_census, &without.no_census), (&None, &None));
        let skc_v6_daddr = with.offsets.skc_v6_daddr;
        assert_eq!(Offsets { skc_v6_daddr, ..without.offsets }, with.offsets);
    }

    #[test]
    fn what_only_the_census_needs_may_be_missing() {
        let census = ["skc_num", "skc_daddr", "skc_v6_daddr", "sk_cgrp_data"];
        for member in census {
            let Some(layout) = renamed(&[member]) else { return };
            let said = layout.unwrap().no_census.unwrap();
            assert!(said.contains(&format!("has no member {member}")), "{said}");
        }
    }

    #[test]
    fn what_all_need_may_not() {
        for member in ["snt_isn", "net_cookie", "sk_err", "snd_wscale"] {
            let Some(layout) = renamed(&[member]) else { return };
            let said = format!("{:#}", layout.unwrap_err());
            let member = format!("has no member {member}");
            assert!(said.contains("needs another one") && said.contains(&member), "{said}");
        }
    }

    #[test]
    fn the_running_kernel_tells_its_offsets() {
        if !std::path::Path::new(VMLINUX).exists() {
            return limiter_lab::skip_without("CONFIG_DEBUG_INFO_BTF");
        }
        let Layout { offsets, bits, .. } = layout().unwrap();
        // A sock_common starts with addresses, ports, hash and state, then comes the namespace; a
        // request is an inet_request_sock first.
        assert!((16..128).contains(&offsets.skc_net), "{offsets:?}");
        assert!(offsets.snt_isn > 128 && offsets.snt_isn.is_multiple_of(4), "{offsets:?}");
        assert!(offsets.net_cookie.is_multiple_of(8), "{offsets:?}");
        assert!(bits.snd_wscale < 8 && bits.wscale_ok < 16 && bits.sack_ok != bits.tstamp_ok, "{bits:?}");
    }
}
