// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How large the maps are made whose size the configuration says, and what memory that takes.

use limiter_common::{
    Key,
    room::{self, rooms},
};

use super::release::Release;

/// Connections that can have a record beside the slots at least, however few sources the ledger holds: 4 MiB of kernel
/// memory for none, 64 bytes for each.
pub const MIN_OVERFLOW: u32 = 262_144;

/// Since when the kernel can be asked to report the changes of state of a connection that is there already (`bpf_setsockopt`
/// with `TCP_BPF_SOCK_OPS_CB_FLAGS`).
const ALL_REPORT: (u32, u32) = (6, 12);

/// How many entries each of them has.
#[derive(Debug, PartialEq, Eq)]
pub struct Sizes {
    pub ledger: u32,
    pub rings: u32,
    pub overflow: u32,
    pub kept: u32,
    pub penalties: u32,
}

impl Sizes {
    /// For a file that says `max_sources` and `max_bans`.
    pub fn of(max_sources: u32, max_bans: u32, release: &Release) -> Self {
        const PENALTIES: usize = rooms::PENALTIES as usize;
        let entries = room::rooms(max_sources, max_bans).map(|room| room.most);
        let (ledger, penalties) = (entries[..PENALTIES].iter().sum(), entries[PENALTIES]);
        let overflow = max_sources.max(MIN_OVERFLOW);
        // Of connections that are alive, only those are kept that cannot be asked to report their changes of state. A dead
        // one is behind a descriptor of a mail daemon, or in the accept queue of a listener.
        let kept = if release.is_at_least(ALL_REPORT) { overflow / 4 } else { overflow };
        Self { ledger, rings: ledger + penalties, overflow, kept, penalties }
    }

    /// What the kernel takes for these maps while nothing is in them, in bytes: for a hash a head of 16 bytes for as many
    /// entries as there may be, rounded up to a power of two (`htab_map_alloc`, kernel/bpf/hashtab.c); an array whole.
    pub fn bytes(&self) -> u64 {
        let hashes = [self.ledger, self.overflow, self.kept, self.penalties];
        let heads: u64 = hashes.iter().map(|&entries| 16 * u64::from(entries).next_power_of_two()).sum();
        heads + u64::from(self.rings) * size_of::<Key>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_to_keep_what_is_alive_only_where_it_cannot_report() {
        for (max_sources, overflow) in [(1024, 262_144), (262_144, 262_144), (1 << 20, 1 << 20)] {
            let old = Sizes::of(max_sources, 65_536, &"6.1.0-56-amd64".into());
            let new = Sizes::of(max_sources, 65_536, &"6.12.117+deb13-amd64".into());
            assert_eq!((old.overflow, old.kept), (overflow, overflow));
            assert_eq!(new, Sizes { kept: overflow / 4, ..old });
        }
    }

    #[test]
    fn what_maps_take_while_nothing_is_in_them_is_known() {
        let mib = |max_sources, max_bans| Sizes::of(max_sources, max_bans, &"6.18".into()).bytes() >> 20;
        assert_eq!((mib(262_144, 65_536), mib(65_536, 65_536), mib(1 << 20, 65_536)), (25, 13, 87));
    }
}
