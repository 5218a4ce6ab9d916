//! Offsets in the running kernel's own structures, from its BTF.

use anyhow::{Context as _, Result, bail};
use btf_rs::{Btf, Type};
use limiter_common::kernel::Offsets;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The offsets of the running kernel.
///
/// # Errors
/// When the kernel has no BTF, or does not know one of the members.
pub fn offsets() -> Result<Offsets> {
    let btf = Btf::from_file(VMLINUX).with_context(|| {
        format!("cannot read {VMLINUX}: this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF), which is needed")
    })?;
    let of = |name: &str, member: &str| offset(&btf, name, member);
    Ok(Offsets {
        snt_isn: of("tcp_request_sock", "snt_isn")?,
        skc_net: of("sock_common", "skc_net")?,
        skc_family: of("sock_common", "skc_family")?,
        skc_state: of("sock_common", "skc_state")?,
        skc_num: of("sock_common", "skc_num")?,
        skc_daddr: of("sock_common", "skc_daddr")?,
        skc_v6_daddr: of("sock_common", "skc_v6_daddr")?,
        net_cookie: of("net", "net_cookie")?,
        sk_cgroup: of("sock", "sk_cgrp_data")? + of("sock_cgroup_data", "cgroup")?,
        cgroup_kn: of("cgroup", "kn")?,
        cgroup_parent: of("cgroup", "self")? + of("cgroup_subsys_state", "parent")?,
        css_cgroup: of("cgroup_subsys_state", "cgroup")?,
        kn_id: of("kernfs_node", "id")?,
    })
}

/// Offset of a member in bytes, also of one inside an anonymous struct or union.
fn offset(btf: &Btf, name: &str, member: &str) -> Result<u32> {
    for kind in
        btf.resolve_types_by_name(name).with_context(|| format!("this kernel has no struct {name}"))?
    {
        if let Type::Struct(structure) = kind
            && let Some(bits) = find(btf, &structure, member, 0)?
        {
            return Ok(bits / 8);
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
        let offsets = offsets().unwrap();
        // A sock_common starts with addresses, ports, hash and state, then comes the namespace; a
        // request is an inet_request_sock first.
        assert!((16..128).contains(&offsets.skc_net), "{offsets:?}");
        assert!(offsets.snt_isn > 128 && offsets.snt_isn.is_multiple_of(4), "{offsets:?}");
        assert!(offsets.net_cookie.is_multiple_of(8), "{offsets:?}");
    }
}
