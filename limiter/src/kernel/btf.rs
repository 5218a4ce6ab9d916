//! Offsets in the running kernel's own structures, from its BTF.

use anyhow::{Context as _, Result, bail};
use btf_rs::{Btf, Type};

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The offsets `limiter-ebpf/src/kernel.rs` needs, in bytes.
#[derive(Debug)]
pub struct Offsets {
    /// `snt_isn` in `struct tcp_request_sock`.
    pub snt_isn: u32,
    /// `skc_net` in `struct sock_common`.
    pub skc_net: u32,
    /// `net_cookie` in `struct net`.
    pub net_cookie: u32,
}

impl Offsets {
    /// Of the running kernel.
    ///
    /// # Errors
    /// When the kernel has no BTF, or does not know one of the members.
    pub fn of_this_kernel() -> Result<Self> {
        let btf = Btf::from_file(VMLINUX).with_context(|| {
            format!("cannot read {VMLINUX}: this kernel was built without BTF (CONFIG_DEBUG_INFO_BTF), which is needed")
        })?;
        Ok(Self {
            snt_isn: offset(&btf, "tcp_request_sock", "snt_isn")?,
            skc_net: offset(&btf, "sock_common", "skc_net")?,
            net_cookie: offset(&btf, "net", "net_cookie")?,
        })
    }
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
        let offsets = Offsets::of_this_kernel().unwrap();
        // A sock_common starts with addresses, ports, hash and state, then comes the namespace; a
        // request is an inet_request_sock first.
        assert!((16..128).contains(&offsets.skc_net), "{offsets:?}");
        assert!(offsets.snt_isn > 128 && offsets.snt_isn.is_multiple_of(4), "{offsets:?}");
        assert!(offsets.net_cookie.is_multiple_of(8), "{offsets:?}");
    }
}
