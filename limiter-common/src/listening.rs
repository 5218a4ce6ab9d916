// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where somebody listens: what admission looks at before it answers in a mail daemon's name.
//!
//! `sk_lookup` programs run before the kernel looks for a listener, and have no look-up of their own. So listeners of
//! mail ports are counted by [`Endpoint`]: most have one, and one at `::` that takes IPv4, too, has two.

use bytemuck::{Pod, Zeroable};

use crate::Addr;

/// The most endpoints that are counted. Who listens at others is not known.
pub const MAX_ENDPOINTS: u32 = 4096;

/// What a listener is bound to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord, Pod, Zeroable)]
pub struct Endpoint {
    /// The address; [`Endpoint::ANY_V4`] or [`Endpoint::ANY_V6`] for all of a family.
    pub address: Addr,
    /// The interface or VRF; 0: any.
    pub ifindex: u32,
    /// The port.
    pub port: u16,
    /// Always 0.
    pub zero: u16,
}

const _: () = assert!(size_of::<Endpoint>() == 24);

impl Endpoint {
    /// `0.0.0.0`, as the limiter writes it.
    pub const ANY_V4: Addr = Addr::from_v4_word(0);
    /// `::`
    pub const ANY_V6: Addr = Addr([0; 4]);

    /// An endpoint.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Addr, port: u16, ifindex: u32) -> Self {
        Self { address, ifindex, port, zero: 0 }
    }

    /// The second one of a listener that is bound to this, if it has one: `takes_both`, as IPv6 sockets do that are
    /// not `IPV6_V6ONLY`.
    #[inline(always)]
    #[must_use]
    pub fn second(&self, takes_both: bool) -> Option<Self> {
        if takes_both && self.address == Self::ANY_V6 {
            Some(Self { address: Self::ANY_V4, ..*self })
        } else {
            None
        }
    }

    /// The same at any address of the family.
    #[inline(always)]
    #[must_use]
    pub const fn at_any_address(&self) -> Self {
        Self { address: if self.address.is_v4() { Self::ANY_V4 } else { Self::ANY_V6 }, ..*self }
    }

    /// The same on any interface.
    #[inline(always)]
    #[must_use]
    pub const fn on_any_interface(&self) -> Self {
        Self { ifindex: 0, ..*self }
    }
}

/// Who listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listener {
    /// Nobody.
    Nobody,
    /// A socket that is bound to the interface by which it is asked: what answers has to take it, too, and a route that
    /// is for it alone.
    OnInterface,
    /// One that is bound to none.
    Anywhere,
}

/// Who listens for what comes to `asked` by its interface, if `counted` says whether anybody does at an endpoint. As `compute_score` has it (`net/ipv4/inet_hashtables.c`), but for VRFs, of which a packet comes by two
/// interfaces and only one is known.
#[inline(always)]
pub fn listener(asked: &Endpoint, counted: impl Fn(&Endpoint) -> bool) -> Listener {
    if asked.ifindex != 0 && (counted(asked) || counted(&asked.at_any_address())) {
        return Listener::OnInterface;
    }
    let anywhere = asked.on_any_interface();
    if counted(&anywhere) || counted(&anywhere.at_any_address()) {
        return Listener::Anywhere;
    }
    Listener::Nobody
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Endpoint {}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    /// A listener as sockets describe it.
    #[derive(Clone, Copy, Debug)]
    struct Socket {
        is_v6: bool,
        /// 0: any.
        host: u8,
        only_v6: bool,
        port: u16,
        ifindex: u32,
    }

    fn address(is_v6: bool, host: u8) -> Addr {
        let word = u32::from(host).to_be();
        match (is_v6, host) {
            (false, _) => Addr::from_v4_word(word),
            (true, 0) => Endpoint::ANY_V6,
            (true, _) => Addr([0x2001_0db8_u32.to_be(), 0, 0, word]),
        }
    }

    impl Socket {
        fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
            let first = Endpoint::new(address(self.is_v6, self.host), self.port, self.ifindex);
            [Some(first), first.second(self.is_v6 && !self.only_v6)].into_iter().flatten()
        }

        /// As the kernel matches it.
        fn takes(&self, is_v6: bool, host: u8, port: u16, ifindex: u32) -> bool {
            let family = self.is_v6 == is_v6 || (self.is_v6 && self.host == 0 && !self.only_v6);
            family
                && (self.host == 0 || self.host == host)
                && self.port == port
                && (self.ifindex == 0 || self.ifindex == ifindex)
        }
    }

    prop_compose! {
        fn socket()(is_v6: bool, host in 0u8..3, only_v6: bool, port in 1u16..3, ifindex in 0u32..3) -> Socket {
            Socket { is_v6, host, only_v6, port, ifindex }
        }
    }

    proptest! {
        #[test]
        fn somebody_listens_exactly_where_the_kernel_would_find_a_listener(
            opened in prop::collection::vec(socket(), 0..6), closed in prop::collection::vec(any::<bool>(), 6),
            is_v6: bool, host in 1u8..3, port in 1u16..3, ifindex in 1u32..3,
        ) {
            let mut counts = HashMap::<Endpoint, u32>::new();
            for endpoint in opened.iter().flat_map(Socket::endpoints) {
                *counts.entry(endpoint).or_default() += 1;
            }
            let (gone, open): (Vec<_>, Vec<_>) = opened.iter().zip(&closed).partition(|(_, closed)| **closed);
            for endpoint in gone.iter().flat_map(|(socket, _)| socket.endpoints()) {
                *counts.entry(endpoint).or_default() -= 1;
            }
            let asked = Endpoint::new(address(is_v6, host), port, ifindex);
            let found = listener(&asked, |endpoint| counts.get(endpoint).is_some_and(|count| *count > 0));
            let mut takes = open.iter().map(|(one, _)| one).filter(|one| one.takes(is_v6, host, port, ifindex));
            let expected = match takes.clone().any(|one| one.ifindex != 0) {
                true => Listener::OnInterface,
                false if takes.next().is_some() => Listener::Anywhere,
                false => Listener::Nobody,
            };
            prop_assert_eq!(found, expected);
        }
    }
}
