// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Seats: how many clients the greeter has at once, in all and of each source.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The seats there are. Clones share them.
#[derive(Clone, Debug)]
pub struct Seats(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connections: usize,
    per_source: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Those that have any; so no more than there are seats.
    by_source: HashMap<IpAddr, usize>,
}

/// The seat of one client; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    source: IpAddr,
}

impl Seats {
    /// So many, and so many of them for one source where nobody else has any ([`may_take`]).
    pub fn new(connections: usize, per_source: usize) -> Self {
        Self(Arc::new(Shared { connections, per_source, taken: Mutex::default() }))
    }

    /// A seat for a client at `remote`; none if all are taken, or as many as its source may have now.
    pub fn take(&self, remote: IpAddr) -> Option<Seat> {
        let source = source(remote);
        let mut taken = self.taken();
        let mine = taken.by_source.get(&source).copied().unwrap_or_default();
        if !may_take(self.0.connections, self.0.per_source, taken.all, mine) {
            return None;
        }
        taken.all += 1;
        taken.by_source.insert(source, mine + 1);
        drop(taken);
        Some(Seat { seats: self.clone(), source })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here panics half-way.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(mine) = taken.by_source.get_mut(&self.source) {
            *mine = mine.saturating_sub(1);
            if *mine == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

/// Whether a source that has `mine` of the `all` seats that are taken may have another one, of `connections` in all.
///
/// A source may have a share of those that are free, so a few sources never have all of them, however many clients each
/// sends: with `per_source` an eighth, one source gets an eighth, ten get a seventeenth each, and leave seven. Who has
/// none gets one as long as there is one.
const fn may_take(connections: usize, per_source: usize, all: usize, mine: usize) -> bool {
    let free = connections.saturating_sub(all);
    // `mine` is less than a share of `free`: per_source / (connections - per_source), which alone ends at `per_source`.
    free > 0
        && mine < per_source
        && mine.saturating_mul(connections.saturating_sub(per_source)) < free.saturating_mul(per_source)
}

/// Who shares one bound: an IPv4 address, or an IPv6 /64, which is one customer's (RFC 6177, 2). A service may count
/// by other prefixes; this is only for those who are refused already.
fn source(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_source_never_has_all() {
        let seats = Seats::new(6, 2);
        let one: Vec<Seat> =
            ["2001:db8::1", "2001:db8::2:1"].map(|text| seats.take(address(text)).unwrap()).into();
        assert!(seats.take(address("2001:db8::3")).is_none(), "of the same /64");
        let other = seats.take(address("192.0.2.1")).unwrap();
        let mapped = seats.take(address("::ffff:192.0.2.1")).unwrap();
        assert!(seats.take(address("192.0.2.1")).is_none(), "the same in either form");
        let third = seats.take(address("192.0.2.2")).unwrap();
        assert!(seats.take(address("192.0.2.2")).is_none(), "the last one is for who has none");
        let last = seats.take(address("192.0.2.3")).unwrap();
        assert!(seats.take(address("192.0.2.4")).is_none(), "all are taken");
        drop((one, other, third));
        drop((mapped, last));
        assert!(seats.taken().by_source.is_empty(), "who has none is not remembered");
        assert!(seats.take(address("192.0.2.2")).is_some());
    }

    #[test]
    fn ten_sources_never_have_all_and_neither_have_a_hundred() {
        for (sources, most) in [(1, 128), (8, 69), (10, 61), (100, 10)] {
            let seats = Seats::new(1024, 128);
            let mut held = Vec::new();
            // Each takes as many as it gets, by turns.
            loop {
                let before = held.len();
                held.extend((0..sources).filter_map(|n| seats.take(IpAddr::from([192, 0, 2, n]))));
                if held.len() == before {
                    break;
                }
            }
            let each = held.len() / usize::from(sources);
            assert!((most - 1..=most).contains(&each), "{sources} sources have {each} each");
            assert!(seats.take(address("198.51.100.1")).is_some(), "{} are taken", held.len());
        }
    }

    #[test]
    fn without_seats_nobody_has_one() {
        assert!(Seats::new(0, 1).take(address("192.0.2.1")).is_none());
    }

    proptest! {
        #[test]
        fn neither_bound_is_ever_exceeded(
            connections in 0usize..6,
            per_source in 0usize..4,
            steps in prop::collection::vec((0u8..4, any::<bool>()), 0..60),
        ) {
            let seats = Seats::new(connections, per_source);
            let mut held: Vec<(u8, Seat)> = Vec::new();
            for (source, takes) in steps {
                let mine = held.iter().filter(|(other, _)| *other == source).count();
                if takes {
                    let seat = seats.take(IpAddr::from([192, 0, 2, source]));
                    let has_room = held.len() < connections && mine < per_source;
                    prop_assert!(has_room || seat.is_none());
                    prop_assert!(mine > 0 || seat.is_some() == has_room, "who has none gets one");
                    held.extend(seat.map(|seat| (source, seat)));
                } else if let Some(at) = held.iter().position(|(other, _)| *other == source) {
                    held.remove(at);
                }
            }
            prop_assert_eq!(seats.taken().all, held.len());
        }
    }
}
