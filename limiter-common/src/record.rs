// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The record of a connection: what it is counted in.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, CountKeys, Key, ServiceId, Tier, key::Level};

/// The socket is counted in its count keys.
pub const COUNTED: u8 = 1;
/// The socket is counted in its count keys, and was found by the census on a kernel that will not report
/// how its state changes.
pub const ADOPTED: u8 = 2;
/// The socket is counted in its count keys, and beyond a limit: its service only observed, and the verdict on it was a
/// refusal.
pub const OBSERVED: u8 = 3;
/// The socket has given its place back, and the record is about to go.
pub const RELEASED: u8 = 4;

/// What the limiter knows of a connection, under its socket's cookie, from establishment until the mail
/// daemon lets go of it. Together with the peer's address, which the socket knows, it says what the connection
/// is counted in.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct ConnectionRecord {
    /// [`COUNTED`], [`ADOPTED`], [`OBSERVED`] or [`RELEASED`].
    pub state: u8,
    /// The service, a [`ServiceId`].
    service: u8,
    /// Prefix length of the source, as in [`Key`]; or [`ConnectionRecord::SHARED`] and a [`Level`]'s number.
    source: u8,
    /// Prefix length of its network; 0 where that is not counted.
    network: u8,
}

impl ConnectionRecord {
    /// All of it in a word.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u32 {
        u32::from_le_bytes([self.state, self.service, self.source, self.network])
    }

    /// What such a word says.
    #[inline(always)]
    #[must_use]
    pub const fn of_word(word: u32) -> Self {
        let [state, service, of_source, of_network] = word.to_le_bytes();
        Self { state, service, source: of_source, network: of_network }
    }

    /// The longest prefix; with the number of a [`Level`] added, that.
    const SHARED: u8 = 128;

    /// The record in this state on a connection that is counted in `count_keys`, or would be.
    #[inline(always)]
    #[must_use]
    pub const fn new(state: u8, count_keys: &CountKeys) -> Self {
        let key = &count_keys.source;
        // Calculated: for the verifier every branch is another way through what follows.
        let shared = 0_u8.wrapping_sub((key.level + 3) >> 2);
        let of_source = key.prefix & !shared | (Self::SHARED + key.level) & shared;
        Self { state, service: key.service, source: of_source, network: count_keys.network.prefix }
    }

    /// The service.
    #[inline(always)]
    #[must_use]
    pub const fn service(&self) -> ServiceId {
        ServiceId(self.service)
    }

    /// Whether the connection is counted.
    #[inline(always)]
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        matches!(self.state, COUNTED | ADOPTED | OBSERVED)
    }

    /// Whether it was let through beyond a limit, because its service only observed.
    #[inline(always)]
    #[must_use]
    pub const fn is_beyond(&self) -> bool {
        self.state == OBSERVED
    }

    /// Whether it is counted in an entry that its source shares with others.
    #[inline(always)]
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.source > Self::SHARED
    }

    /// What the connection from `remote` is counted in.
    #[inline(always)]
    #[must_use]
    pub const fn count_keys(&self, remote: &Addr) -> CountKeys {
        let (service, remote) = (ServiceId(self.service), &remote.host());
        if self.is_shared() {
            let level = Level::of(self.source - Self::SHARED);
            let of_source =
                Key { level: level.number, ..Key::at(service, Tier::Source, level.prefix(remote), remote) };
            return CountKeys { source: of_source, network: Key::NONE };
        }
        let of_source = Key::at(service, Tier::Source, self.source, remote);
        let of_network =
            if self.network == 0 { Key::NONE } else { Key::at(service, Tier::Network, self.network, remote) };
        CountKeys { source: of_source, network: of_network }
    }
}

/// What is kept for a socket that will report no change of state: its connection is dead, or older than the
/// limiter on a kernel that does not report such. There may be no socket left to ask for the address.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Kept {
    /// The peer.
    pub remote: Addr,
    /// The record.
    pub record: ConnectionRecord,
    /// Since when, as [`DatedRecord::since_s`].
    pub since_s: u32,
}

/// A record, and since when there is a connection.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct DatedRecord {
    /// The record.
    pub record: ConnectionRecord,
    /// When it was established, in seconds of `CLOCK_MONOTONIC`, a tick behind at most; 0: before it was counted, and
    /// nobody knows.
    pub since_s: u32,
}

impl Kept {
    /// The record of a connection from `remote`, of which nobody needs to know since when it is there.
    #[inline(always)]
    #[must_use]
    pub const fn new(record: ConnectionRecord, remote: Addr) -> Self {
        Self { remote, record, since_s: 0 }
    }

    /// What the connection is counted in.
    #[inline(always)]
    #[must_use]
    pub const fn count_keys(&self) -> CountKeys {
        self.record.count_keys(&self.remote)
    }
}

const _: () =
    assert!(size_of::<ConnectionRecord>() == 4 && size_of::<DatedRecord>() == 8 && size_of::<Kept>() == 24);

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for ConnectionRecord {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for DatedRecord {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Kept {}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        Scope, ServicePolicy,
        ledger::tests::{any_source_prefix, prefix_of},
        service::Prefixes,
    };

    proptest! {
        #[test]
        fn a_record_and_the_peers_address_tell_what_it_is_counted_in(
            ip: IpAddr, v4: u32, service in 1u8..64, of_source in (1u8..=32, 1u8..=128), of_network in (1u8..=32, 1u8..=128),
            network_max_connections in 0u32..2, has_network: bool, own in any_source_prefix(),
        ) {
            let prefixes = |(ipv4, ipv6)| Prefixes { ipv4, ipv6 };
            let policy = ServicePolicy {
                source: prefixes(of_source), network: prefixes(of_network), network_max_connections, ..Default::default()
            };
            let count_keys_of =
                |remote: &Addr| CountKeys::new(ServiceId(service), &policy, Scope { source_prefix: prefix_of(own, remote), network_differs: has_network }, remote);
            let translated = 0x0064_ff9b_u128 << 96 | u128::from(v4);
            let translated = Addr::from(IpAddr::V6(translated.into()));
            prop_assert_eq!(ConnectionRecord::new(COUNTED, &count_keys_of(&translated)).count_keys(&translated), count_keys_of(&translated));
            let remote = Addr::from(ip);
            let count_keys = count_keys_of(&remote);
            let recorded = ConnectionRecord::new(COUNTED, &count_keys);
            prop_assert_eq!(recorded.count_keys(&remote), count_keys);
            prop_assert_eq!(ConnectionRecord::of_word(recorded.word()), recorded);
            for shared in Level::ALL.into_iter().filter_map(|level| count_keys.shared(level)) {
                prop_assert_eq!(ConnectionRecord::new(COUNTED, &shared).count_keys(&remote), shared);
            }
        }
    }
}
