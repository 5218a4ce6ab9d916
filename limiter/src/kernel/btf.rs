//! Offsets in the running kernel's own structures, from its BTF.

use anyhow::{Context as _, Result, bail};
use btf_rs::{Btf, Type};
use limiter_common::kernel::Offsets;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

fn offsets(btf: &Btf) -> Result<Offsets> {
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
        sk_shutdown: of("sock", "sk_shutdown")?,
        sk_err: of("sock", "sk_err")?,
        skc_net: of("sock_common", "skc_net")?,
        skc_family: of("sock_common", "skc_family")?,
        skc_state: of("sock_common", "skc_state")?,
        skc_num: of("sock_common", "skc_num")?,
        skc_daddr: of("sock_common", "skc_daddr")?,
        skc_v6_daddr: of("sock_common", "skc_v6_daddr")?,
        skc_ipv6only: bit_offset(btf, "sock_common", "skc_ipv6only")?,
        net_cookie: of("net", "net_cookie")?,
        sk_cgroup: of("sock", "sk_cgrp_data")? + of("sock_cgroup_data", "cgroup")?,
        cgroup_kn: of("cgroup", "kn")?,
        cgroup_parent: of("cgroup", "self")? + of("cgroup_subsys_state", "parent")?,
        css_cgroup: of("cgroup_subsys_state", "cgroup")?,
        kn_id: of("kernfs_node", "id")?,
    })
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
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// What the programs need.
    pub offsets: Offsets,
    /// What the daemon needs.
    pub bits: RequestBits,
    /// Whether programs may look up what another CPU has in a map: Linux 5.19.
    pub looks_up_per_cpu: bool,
}

/// The running kernel's.
///
/// # Errors
/// When the kernel has no BTF, or does not know one of the members.
pub fn layout() -> Result<Layout> {
    let btf = Btf::from_file(VMLINUX).with_context(|| {
        format!("cannot read {VMLINUX}: this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF), which is needed")
    })?;
    // The helper's own function.
    let looks_up_per_cpu = btf.resolve_types_by_name("bpf_map_lookup_percpu_elem").is_ok();
    Ok(Layout { offsets: offsets(&btf)?, bits: request_bits(&btf)?, looks_up_per_cpu })
}

fn request_bits(btf: &Btf) -> Result<RequestBits> {
    let at = |member: &str| bit_offset(btf, "inet_request_sock", member);
    let first = at("snd_wscale")? / 8 * 8;
    let bit = |member: &str| -> Result<u32> {
        let bit = at(member)?.wrapping_sub(first);
        if bit < 16 {
            Ok(bit)
        } else {
            bail!("this kernel's struct inet_request_sock has {member} elsewhere")
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
fn offset(btf: &Btf, name: &str, member: &str) -> Result<u32> {
    Ok(bit_offset(btf, name, member)? / 8)
}

/// The same in bits.
fn bit_offset(btf: &Btf, name: &str, member: &str) -> Result<u32> {
    for kind in
        btf.resolve_types_by_name(name).with_context(|| format!("this kernel has no struct {name}"))?
    {
        if let Type::Struct(structure) = kind
            && let Some(bits) = find(btf, &structure, member, 0)?
        {
            return Ok(bits);
        }
    }
    bail!("this kernel's struct {name} has no member {member}")
}

fn find(btf: &Btf, structure: &btf_rs::Struct, wanted: &str, depth: u8) -> Result<Option<u32>> {
    for member in &structure.members {
        if btf.resolve_name(member).is_ok_and(|name| name == wanted) {
            return Ok(Some(member.bit_offset()));
        }
        let anonymous = btf.resolve_name(member).is_ok_and(|name| name.is_empty());
        if anonymous
            && depth < 4
            && let Type::Struct(inner) | Type::Union(inner) = btf.resolve_chained_type(member)?
            && let Some(bits) = find(btf, &inner, wanted, depth + 1)?
        {
            return Ok(Some(member.bit_offset() + bits));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_its_offsets() {
        if !std::path::Path::new(VMLINUX).exists() {
            eprintln!("skipped: this kernel has no BTF");
            return;
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
