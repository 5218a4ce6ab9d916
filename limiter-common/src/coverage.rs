// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which parts of the address space rules are about.
//!
//! To find no rule for a source takes the kernel's trie some ten steps, and most sources have none. So the
//! space is divided into regions, the first 16 bits of IPv4 and a sum of the first 32 of IPv6, and a bit for each
//! says whether to look.

use crate::{Addr, rule::Network};

/// Regions of each family.
const OF_A_FAMILY: u32 = 1 << 16;
/// Words of a set: a bit for each region, IPv4 first. 16 KiB.
pub const WORDS: u32 = 2 * OF_A_FAMILY / 64;

/// The region of an address.
#[inline(always)]
#[must_use]
pub const fn region(addr: &Addr) -> u32 {
    if addr.is_v4() { u32::from_be(addr.0[3]) >> 16 } else { region_v6(u32::from_be(addr.0[0])) }
}

/// The region of IPv6 addresses with these first 32 bits.
#[inline(always)]
const fn region_v6(first: u32) -> u32 {
    OF_A_FAMILY + ((first >> 16 ^ first) & (OF_A_FAMILY - 1))
}

/// The region's bit in the words of a set.
#[inline(always)]
#[must_use]
pub const fn bit(region: u32) -> (u32, u64) {
    (region >> 6, 1 << (region & 63))
}

/// The regions that have something of a network; some perhaps more than once.
pub fn regions(network: &Network) -> impl Iterator<Item = u32> + use<> {
    // IPv4 is a part of IPv6 here: a network that ends before it has all of it.
    const ALL_OF_IPV4: Network = Network { prefix: 96, addr: Addr::from_v4_word(0) };
    let [first, .., last] = network.addr.0.map(u32::from_be);
    let (v4, v6) = if ALL_OF_IPV4.covers(network) {
        (Some(span(last, network.prefix - 96, 16)), None)
    } else {
        let v4 = network.covers(&ALL_OF_IPV4).then_some((0, OF_A_FAMILY - 1));
        // More than that many in a row are in all regions.
        let (first, last) = span(first, network.prefix, 32);
        (v4, Some((first, last.min(first.saturating_add(OF_A_FAMILY - 1)))))
    };
    let each = |span: Option<(u32, u32)>| span.into_iter().flat_map(|(first, last)| first..=last);
    each(v4).chain(each(v6).map(region_v6))
}

/// The first and the last of what the first `bits` bits of an address can be that begins like `word`, up to `prefix`.
fn span(word: u32, prefix: u32, bits: u32) -> (u32, u32) {
    let first = word >> (32 - bits);
    let free = ((1_u64 << bits.saturating_sub(prefix)) - 1) as u32;
    (first & !free, first | free)
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;
    use std::{collections::HashSet, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn network(ip: IpAddr, prefix: u8) -> Network {
        let prefix = if ip.is_ipv4() { 96 + prefix.min(32) } else { prefix };
        Network { prefix: u32::from(prefix), addr: Addr::from(ip).cut(prefix) }
    }

    proptest! {
        /// Whoever is in a network is in one of its regions: nobody's rule is overlooked.
        #[test]
        fn the_regions_of_a_network_have_everyone_in_it(ip: IpAddr, prefix in 0u8..=128, bits: u128) {
            let network = network(ip, prefix);
            // Any address with the network's prefix.
            let other = Addr::from(IpAddr::V6(bits.into()));
            let theirs = other.cut(network.prefix as u8);
            let addr = Addr(core::array::from_fn(|word| {
                network.addr.0[word] | (other.0[word] & !theirs.0[word])
            }));
            prop_assert!(network.covers(&Network::of(addr)));
            let region = region(&addr);
            prop_assert!(bit(region).0 < WORDS);
            prop_assert!(regions(&network).any(|one| one == region));
        }

        /// A small network is in one region, so that one rule does not send everyone to the trie.
        #[test]
        fn a_small_network_is_in_one_region(ip: IpAddr, more in 0u8..=96) {
            let prefix = if ip.is_ipv4() { 16 + more.min(16) } else { 32 + more };
            prop_assume!(ip.is_ipv4() || !Addr::from(ip).is_v4());
            prop_assert_eq!(regions(&network(ip, prefix)).collect::<Vec<_>>(), [region(&Addr::from(ip))]);
        }
    }

    #[test]
    fn everything_is_everywhere_and_all_of_ipv4_in_half_of_it() {
        let all = |ip: &str, prefix| regions(&network(ip.parse().unwrap(), prefix)).collect::<HashSet<_>>();
        assert_eq!(all("::", 0).len(), 2 * OF_A_FAMILY as usize);
        assert_eq!(all("0.0.0.0", 0), (0..OF_A_FAMILY).collect());
        assert_eq!(all("2000::", 3).len(), OF_A_FAMILY as usize);
        assert_eq!(all("10.0.0.0", 8), (0x0a00..0x0b00).collect());
    }
}
