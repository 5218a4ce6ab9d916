// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The ladder: a refusal is answered in words, then by a reset, then not at all.
//!
//! A source spends a budget on replies. When that is spent it gets resets until the budget has filled up
//! again; when it keeps on spending, for too long, it is banned, each further ban twice as long. All of it
//! is driven by handshakes that were completed with the greeter (law 1), and all of it forgets.

use bytemuck::{Pod, Zeroable};

use crate::{
    Rate,
    count::{TRIES, Word},
    names::names,
    rate,
};

/// What every source may make of refusals.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Ladder {
    /// Replies a source gets in a time; after that it gets resets. No rate: replies without end.
    pub replies: Rate,
    /// Refused handshakes of its own making after which a source is banned. No rate: nobody is.
    pub ban_after: Rate,
    /// Seconds of a first ban, 1 to [`Self::MAX_BAN_S`]; 0 where nobody is banned.
    pub ban_s: u32,
    /// Seconds of the longest ban, `ban_s` to [`Self::MAX_BAN_S`].
    pub ban_max_s: u32,
}

impl Ladder {
    /// The longest ban there can be: 30 days.
    pub const MAX_BAN_S: u32 = 30 * 24 * 60 * 60;
    /// Bans that are remembered of one source: the last one is 2¹⁶⁻¹ times the first, or `ban_max_s`.
    pub const MAX_BANS: u32 = 16;

    /// Nanoseconds of the `bans`-th ban in a row; 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn ban_ns(&self, bans: u32) -> u64 {
        if bans == 0 {
            return 0;
        }
        // Masked, so that the verifier knows the shift's range.
        let doubled = (self.ban_s as u64) << ((bans - 1) & (Self::MAX_BANS - 1));
        let seconds = if doubled < self.ban_max_s as u64 { doubled } else { self.ban_max_s as u64 };
        seconds * 1_000_000_000
    }

    /// How many of a source's `bans` are remembered when it has been quiet for `quiet_ns` since the last
    /// one ended: each is forgotten after as long a time as it had lasted.
    #[inline(always)]
    #[must_use]
    pub const fn remembered(&self, bans: u32, quiet_ns: u64) -> u32 {
        let mut bans = if bans < Self::MAX_BANS { bans } else { Self::MAX_BANS };
        let mut quiet_ns = quiet_ns;
        let mut round = 0;
        while round < Self::MAX_BANS {
            let lasted_ns = self.ban_ns(bans);
            if bans == 0 || quiet_ns < lasted_ns {
                break;
            }
            quiet_ns -= lasted_ns;
            bans -= 1;
            round += 1;
        }
        bans
    }
}

/// Where one source stands on the ladder of one service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Penalty {
    /// When it is due for its replies, in nanoseconds of `CLOCK_BOOTTIME` ([`crate::rate`]).
    pub replies_due_ns: u64,
    /// When it is due for its refused handshakes, likewise.
    pub ban_due_ns: u64,
    /// When its ban ends, or ended, likewise; 0: it was never banned.
    pub banned_until_ns: u64,
    /// When its ban began, likewise.
    pub banned_at_ns: u64,
    /// Packets dropped since it was banned first.
    pub dropped: u64,
    /// Bans in a row that the ladder made, remembered when the last one began.
    pub bans: u32,
    /// A [`Cause`]; 0: it is not banned.
    pub cause: u32,
    /// When it was refused the last time, in nanoseconds of `CLOCK_BOOTTIME`; 0: not since it is remembered.
    pub refused_ns: u64,
    /// How often it was refused, by [`crate::Reason`]: each handshake that was told why, and each SYN that got a reset or
    /// nothing once the source had been told. A statistic that may lose one between two CPUs; wraps.
    pub refused: [u32; Penalty::REASONS as usize],
    /// The last [`crate::Reason`].
    pub refused_for: u32,
}

/// Whether a ban that ends at `until_ns` is in force at `now_ns`.
#[inline(always)]
#[must_use]
pub const fn is_banned(until_ns: u64, now_ns: u64) -> bool {
    now_ns < until_ns
}

/// Why a source is banned.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The ladder: it went on for too long.
    Ladder = 1,
    /// The admin.
    Admin = 2,
}

names!(Cause { Ladder => "ladder", Admin => "admin" });

impl Cause {
    /// From its number in [`Penalty::cause`]; who is not banned has none.
    #[inline(always)]
    #[must_use]
    pub const fn from_u32(value: u32) -> Self {
        if value == Self::Admin as u32 { Self::Admin } else { Self::Ladder }
    }
}

impl Penalty {
    /// How many reasons there is room for.
    pub const REASONS: u32 = 7;

    /// Whether the source is banned at `now_ns`.
    #[inline(always)]
    #[must_use]
    pub const fn is_banned(&self, now_ns: u64) -> bool {
        is_banned(self.banned_until_ns, now_ns)
    }

    /// Whether nothing of it matters any more at `now_ns`.
    #[must_use]
    pub const fn is_forgotten(&self, ladder: &Ladder, now_ns: u64) -> bool {
        !self.is_banned(now_ns)
            && self.replies_due_ns <= now_ns
            && self.ban_due_ns <= now_ns
            && ladder.remembered(self.bans, now_ns - self.banned_until_ns) == 0
    }

    /// Whether it was refused less than `within_ns` before `now_ns`.
    #[must_use]
    pub const fn was_refused(&self, within_ns: u64, now_ns: u64) -> bool {
        self.refused_ns != 0 && now_ns.saturating_sub(self.refused_ns) < within_ns
    }

    /// When something was last known of it: when its ban began, or the last refused handshake that still
    /// matters. Who is given up first when there are too many.
    #[must_use]
    pub fn since_ns(&self, ladder: &Ladder) -> u64 {
        self.banned_at_ns.max(self.replies_due_ns.saturating_sub(ladder.replies.tolerance_ns))
    }
}

/// The words of a penalty that several CPUs may change at once.
#[derive(Clone, Copy)]
pub struct PenaltyWords<'a, W> {
    /// [`Penalty::replies_due_ns`].
    pub replies_due: &'a W,
    /// [`Penalty::ban_due_ns`].
    pub ban_due: &'a W,
    /// [`Penalty::banned_until_ns`].
    pub banned_until: &'a W,
}

/// A refused source has completed a handshake at `now_ns`; `is_of_source`: because of a limit of its own that it
/// has reached. Pays for the reply; returns the number of the ban in a row that this earned, if it earned
/// one: then the ban is in force, and the caller notes the number.
///
/// A source that is refused because the service or its network is full did nothing that a ban could
/// better, so it is not banned for it.
#[inline(always)]
#[must_use]
pub fn climb<W: Word>(
    words: &PenaltyWords<'_, W>,
    ladder: &Ladder,
    bans: u32,
    is_of_source: bool,
    now_ns: u64,
) -> Option<u32> {
    if ladder.replies.is_limited() {
        rate::charge(words.replies_due, &ladder.replies, now_ns);
    }
    if !is_of_source || !ladder.ban_after.is_limited() || rate::pay(words.ban_due, &ladder.ban_after, now_ns)?
    {
        return None;
    }
    let until = words.banned_until.load();
    if now_ns < until {
        return None;
    }
    let bans = ladder.remembered(bans, now_ns - until);
    let bans = if bans < Ladder::MAX_BANS { bans + 1 } else { bans };
    // Who loses this race finds the ban made.
    if words.banned_until.compare_exchange(until, now_ns + ladder.ban_ns(bans)) != until {
        return None;
    }
    // After the ban it starts anew, politely.
    reset(words.ban_due);
    reset(words.replies_due);
    Some(bans)
}

#[inline(always)]
fn reset<W: Word>(due: &W) {
    let mut before = due.load();
    for _ in 0..TRIES {
        let found = due.compare_exchange(before, 0);
        if found == before {
            return;
        }
        before = found;
    }
}

const _: () = assert!(size_of::<Ladder>() == 40 && size_of::<Penalty>() == 88);

#[cfg(feature = "user")]
mod user {
    use super::{Ladder, Penalty};

    // SAFETY: the types are `bytemuck::Pod`: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Ladder {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Penalty {}
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ladder(replies: u32, ban_after: u32, ban_s: u32, ban_max_s: u32) -> Ladder {
        Ladder {
            replies: Rate::new(replies, 60, replies),
            ban_after: Rate::new(ban_after, 60, ban_after),
            ban_s,
            ban_max_s,
        }
    }

    #[derive(Default)]
    struct Source {
        replies_due: AtomicU64,
        ban_due: AtomicU64,
        banned_until: AtomicU64,
        bans: u32,
    }

    impl Source {
        fn climb(&mut self, ladder: &Ladder, is_of_source: bool, now_ns: u64) -> Option<u32> {
            let words = PenaltyWords {
                replies_due: &self.replies_due,
                ban_due: &self.ban_due,
                banned_until: &self.banned_until,
            };
            let banned = climb(&words, ladder, self.bans, is_of_source, now_ns);
            self.bans = banned.unwrap_or(self.bans);
            banned
        }

        fn until(&mut self) -> u64 {
            *self.banned_until.get_mut()
        }

        fn has_replies(&mut self, ladder: &Ladder, now_ns: u64) -> bool {
            ladder.replies.allows(*self.replies_due.get_mut(), now_ns)
        }
    }

    proptest! {
        #[test]
        fn it_is_banned_by_the_handshake_after_the_last_one_it_may_have(
            replies in 1u32..50, ban_after in 1u32..50, ban_s in 1u32..1000, now_s in 1u32..1_000_000,
        ) {
            let ladder = ladder(replies, ban_after, ban_s, 10 * ban_s);
            let mut source = Source::default();
            let now = u64::from(now_s) * SECOND;
            for handshake in 0..ban_after {
                prop_assert_eq!(source.has_replies(&ladder, now), handshake < replies);
                prop_assert_eq!(source.climb(&ladder, true, now), None);
            }
            prop_assert_eq!(source.climb(&ladder, true, now), Some(1));
            prop_assert_eq!(source.until(), now + u64::from(ban_s) * SECOND);
            prop_assert!(source.has_replies(&ladder, now), "after the ban it starts politely");
        }

        #[test]
        fn who_cannot_help_it_is_never_banned(n in 1u32..500, ban_after in 1u32..20) {
            let ladder = ladder(5, ban_after, 60, 600);
            let mut source = Source::default();
            for _ in 0..n {
                prop_assert_eq!(source.climb(&ladder, false, SECOND), None);
            }
            prop_assert_eq!(source.until(), 0);
        }

        #[test]
        fn each_further_ban_is_twice_as_long_until_the_longest(ban_s in 1u32..100_000, times in 1u32..20) {
            let ban_max_s = Ladder::MAX_BAN_S.min(ban_s * times);
            let ladder = ladder(1, 1, ban_s, ban_max_s);
            let mut source = Source::default();
            let mut now = SECOND;
            let mut length = u64::from(ban_s);
            for nth in 1..20 {
                let _first = source.climb(&ladder, true, now);
                prop_assert_eq!(source.climb(&ladder, true, now), Some(nth.min(Ladder::MAX_BANS)));
                prop_assert_eq!(source.until() - now, length.min(u64::from(ban_max_s)) * SECOND);
                now = source.until();
                length *= 2;
            }
        }

        #[test]
        fn a_quiet_time_as_long_as_all_its_bans_forgets_them(bans in 0u32..30, ban_s in 1u32..1000) {
            let ladder = ladder(1, 1, ban_s, ban_s * 20);
            let all: u64 = (1..=bans.min(Ladder::MAX_BANS)).map(|nth| ladder.ban_ns(nth)).sum();
            prop_assert_eq!(ladder.remembered(bans, all), 0);
            prop_assert_eq!(ladder.remembered(bans, 0), bans.min(Ladder::MAX_BANS));
            if bans > 0 {
                prop_assert_eq!(ladder.remembered(bans, all - 1), 1);
            }
            let penalty = Penalty { bans, banned_until_ns: 5 * SECOND, ..Penalty::default() };
            prop_assert!(penalty.is_forgotten(&ladder, 5 * SECOND + all));
        }

        #[test]
        fn memory_never_grows_with_quiet(bans in 0u32..=16, a: u32, b: u32) {
            let ladder = ladder(1, 1, 1, 3600);
            let (less, more) = (u64::from(a.min(b)) * 1000, u64::from(a.max(b)) * 1000);
            prop_assert!(ladder.remembered(bans, more) <= ladder.remembered(bans, less));
        }
    }

    #[test]
    fn without_rates_replies_have_no_end_and_nobody_is_banned() {
        let ladder = Ladder::default();
        let mut source = Source::default();
        for _ in 0..1000 {
            assert_eq!(source.climb(&ladder, true, SECOND), None);
        }
        assert!(source.has_replies(&ladder, SECOND));
    }
}
