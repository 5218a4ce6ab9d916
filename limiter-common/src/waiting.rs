// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Waiters: handshakes that are complete but for a place.
//!
//! The gate records such a handshake ([`Waiter`]) under its addresses and ports ([`Flow`]). From then on
//! gate and daemon decide together what becomes of it, and each change is one atomic step on the word in which
//! the record's number and its state stand side by side:
//!
//! | from | to | who, when |
//! |---|---|---|
//! | – | [`Waiting`](State::Waiting) | gate: an ACK for which there is no place |
//! | – | [`Crowded`](State::Crowded) | gate: as many wait as may; the daemon decides who goes |
//! | – | [`Refused`](State::Refused) | gate: its source has too many there, or it is not to wait |
//! | Waiting | [`Granted`](State::Granted) | daemon: a place is free, and it is the first in line |
//! | Granted | `InHand`, then Waiting | daemon: it did not answer, and loses its turn and what was kept for it |
//! | Granted | [`InHand`](State::InHand) | gate: its ACK is there. It gets in, or is Waiting again |
//! | any but `InHand` and Told | `InHand`, then gone | gate: the peer gave up, or began anew |
//! | Waiting | `InHand`, then Waiting | daemon: it waits for something else by now |
//! | Crowded | `InHand`, then Waiting | daemon: somebody else waits no longer |
//! | Waiting, Crowded, Refused | `InHand`, then [`Told`](State::Told) | daemon: it has waited long enough, and is told |
//! | Told | gone | daemon: it was told |
//! | `InHand` | gone | daemon: it got in or gave up, and the kernel could not remove it then |
//!
//! Whoever brings a record to `InHand` is alone with it, and with what it is marked in ([`crate::reservation::wait`]).
//! No program stays there: it runs to its end, whatever becomes of the daemon. So a daemon that is
//! killed at any step leaves records that the next one can go on with: one that is `Told` is told again, with
//! the same words at the same sequence numbers, which its peer takes for a repetition.
//!
//! Without a daemon nobody is granted anything: then whoever waits takes a place when its ACK comes again,
//! as the kernel's timer for the SYN-ACK brings it, and what others wait for is not kept free.

use bytemuck::{Pod, Zeroable};

use crate::{Addr, ConnectionRecord, Reason, count::Word, reservation::WaitMarks};

/// How many records there can be: of those that wait, and of those about to be told.
pub const MAX_WAITERS: u32 = 16_384;

/// The addresses and ports of a handshake, by which it is known.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Pod, Zeroable)]
pub struct Flow {
    /// The client's address.
    pub remote: Addr,
    /// The address it connects to.
    pub local: Addr,
    /// The client's port, in host byte order.
    pub remote_port: u16,
    /// The port it connects to, likewise.
    pub local_port: u16,
    /// Always 0.
    pub zero: u32,
}

/// Where a record stands.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It waits for a place, and is marked in the counts it waits for.
    Waiting = 1,
    /// The same, and its next ACK may take a place.
    Granted = 2,
    /// A program has it in hand.
    InHand = 3,
    /// As many wait as may; it is marked nowhere.
    Crowded = 4,
    /// It is to be told why it is refused, and marked nowhere.
    Refused = 5,
    /// It is being told.
    Told = 6,
}

impl State {
    /// From its number.
    #[inline(always)]
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Waiting),
            2 => Some(Self::Granted),
            3 => Some(Self::InHand),
            4 => Some(Self::Crowded),
            5 => Some(Self::Refused),
            6 => Some(Self::Told),
            _ => None,
        }
    }

    /// Whether the record is marked in the counts that it waits for.
    #[inline(always)]
    #[must_use]
    pub const fn is_marked(self) -> bool {
        matches!(self, Self::Waiting | Self::Granted)
    }
}

/// What is known of a handshake that was held back: enough to speak for it (`struct tcp_request_sock`,
/// `include/linux/tcp.h`; `struct inet_request_sock`, `include/net/inet_sock.h`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Waiter {
    /// Number and [`State`]: see [`word`]. Before all else, as in [`crate::Entry`].
    pub word: u64,
    /// Since when, in nanoseconds of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// Our initial sequence number.
    pub snt_isn: u32,
    /// The client's.
    pub rcv_isn: u32,
    /// What is added to the kernel's clock for our timestamps (RFC 7323, 3).
    pub ts_off: u32,
    /// The client's last timestamp.
    pub ts_recent: u32,
    /// The window that we have announced, in bytes.
    pub rcv_wnd: u32,
    /// Between our SYN-ACK and this ACK, in microseconds.
    pub rtt_us: u32,
    /// The interface by which its ACK came.
    pub ifindex: u32,
    /// The interface that the listener is bound to; 0: none.
    pub bound_ifindex: u32,
    /// The options agreed upon: the kernel's bits, as [`crate::kernel::Offsets`] says where they are.
    pub options: u16,
    /// The largest segment the client takes, in bytes.
    pub mss: u16,
    /// The window in the client's ACK, not scaled.
    pub window: u16,
    /// The [`Reason`] for which it had no place when that was last looked for.
    pub waits_for: u8,
    /// The [`WaitMarks`] of one that waits; none of one that does not.
    pub marks: u8,
    /// What it would be counted in.
    pub record: ConnectionRecord,
    /// How many may wait in front of its listener: half of the backlog.
    pub capacity: u16,
    /// 1: the client has closed its side, and waits no longer.
    pub has_gone: u8,
    /// 1: its listener is at another port than the client has asked for (TPROXY).
    pub elsewhere: u8,
    /// The packed [`crate::Grounds`] on which it had no place when it was recorded.
    pub grounds: u64,
}

/// The states are the low byte of a record's word, and its number the rest: memory that has come to serve
/// another record has another word, whatever its state.
const STATE_BITS: u32 = 8;

/// A record's word, of its number and its state.
#[inline(always)]
#[must_use]
pub const fn word(number: u64, state: State) -> u64 {
    number << STATE_BITS | state as u64
}

/// The number in a record's word.
#[inline(always)]
#[must_use]
pub const fn number(word: u64) -> u64 {
    word >> STATE_BITS
}

/// The state in a record's word.
#[inline(always)]
#[must_use]
pub const fn state(word: u64) -> Option<State> {
    State::from_u8(word as u8)
}

/// Brings the record of this `number` from one state to another, in one step; `false` if it was in another
/// state, or is another record.
#[inline(always)]
pub fn step<W: Word>(record: &W, number: u64, from: State, to: State) -> bool {
    let from = word(number, from);
    record.compare_exchange(from, word(number, to)) == from
}

/// Whether a record with this word is marked in the counts that it waits for.
#[inline(always)]
#[must_use]
pub const fn is_marked(word: u64) -> bool {
    matches!(state(word), Some(State::Waiting | State::Granted))
}

/// Takes a record in hand that was seen with this word; `false` if it has changed since, or somebody else has it.
#[inline(always)]
pub fn take_in_hand<W: Word>(record: &W, seen: u64) -> bool {
    seen as u8 != State::InHand as u8
        && record.compare_exchange(seen, word(number(seen), State::InHand)) == seen
}

/// Puts back a record in hand that was seen with this word, in the state of this number.
#[inline(always)]
pub fn put_back<W: Word>(record: &W, seen: u64, state: u8) {
    let held = word(number(seen), State::InHand);
    let _in_hand = record.compare_exchange(held, number(seen) << STATE_BITS | u64::from(state));
}

/// Whether the ACK of a record in this state may try for a place: in its turn, or where nobody serves those that
/// wait. `attended`: whether a daemon does.
#[inline(always)]
#[must_use]
pub const fn may_try(state: u8, attended: bool) -> bool {
    const WAITING: u8 = State::Waiting as u8;
    const GRANTED: u8 = State::Granted as u8;
    const CROWDED: u8 = State::Crowded as u8;
    const REFUSED: u8 = State::Refused as u8;
    const TOLD: u8 = State::Told as u8;
    match state {
        GRANTED => true,
        WAITING | CROWDED | REFUSED | TOLD => !attended,
        _ => false,
    }
}

/// How many handshakes of one source may wait that may hold `limit` connections, in front of a listener where
/// `capacity` may in all.
#[inline(always)]
#[must_use]
pub const fn most_of_source(limit: u32, capacity: u32) -> u32 {
    if limit < capacity { limit } else { capacity }
}

/// How many may wait in front of a listener in all: half of its backlog, so that the kernel, which keeps
/// handshakes that are not complete in the same queue, gives none up early (`reqsk_timer_handler`,
/// `net/ipv4/inet_connection_sock.c`) and sends no SYN cookies because of them.
#[inline(always)]
#[must_use]
pub const fn capacity(backlog: u32) -> u16 {
    let half = backlog / 2;
    (if half < crate::count::MAX_WAITING { half } else { crate::count::MAX_WAITING }) as u16
}

/// What a segment says, as far as a handshake may end with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// Its sequence number.
    pub seq: u32,
    /// The number behind all that it says: SYN and FIN are one each, like a byte.
    pub end: u32,
    /// Its acknowledgement number, if it has one.
    pub ack: Option<u32>,
    /// Whether it has the flag SYN.
    pub syn: bool,
    /// Whether it has the flag RST.
    pub rst: bool,
}

/// Whether the kernel gives up a handshake with these numbers because of a segment: a reset within the window, or a SYN that
/// is not the first one again, which begins anew. It is told by numbers that only the client and who can listen to it knows.
/// As `tcp_check_req` has it (`net/ipv4/tcp_minisocks.c`), but for timestamps; for a reset that acknowledges another
/// number, which older kernels do not take; and for one by another number than the next, which newer ones do not (RFC 5961,
/// 3.2). Where the kernel does not, it ends the record and not the handshake, which waits anew when its ACK comes again.
#[inline(always)]
#[must_use]
pub const fn is_given_up(said: &Said, rcv_isn: u32, snt_isn: u32, rcv_wnd: u32) -> bool {
    let ends = said.rst || said.syn && said.seq != rcv_isn;
    let is_acceptable = match said.ack {
        Some(ack) => said.rst || ack == snt_isn.wrapping_add(1),
        None => true,
    };
    ends && is_acceptable && overlaps_window(said.seq, said.end, rcv_isn, rcv_wnd)
}

/// Whether what a segment says, from `seq` to before `end`, is in part within the window (`tcp_in_window`, in the same file).
#[inline(always)]
const fn overlaps_window(seq: u32, end: u32, rcv_isn: u32, rcv_wnd: u32) -> bool {
    let first = rcv_isn.wrapping_add(1);
    let behind = first.wrapping_add(rcv_wnd);
    seq == first || is_after(end, first) && is_after(behind, seq) || seq == behind && seq == end
}

/// Whether a number is after another (`after`, `include/net/tcp.h`).
#[inline(always)]
const fn is_after(number: u32, other: u32) -> bool {
    (other.wrapping_sub(number) as i32) < 0
}

/// Whether an ACK that begins with this number is within the window.
#[inline(always)]
#[must_use]
pub const fn is_in_window(seq: u32, rcv_isn: u32, rcv_wnd: u32) -> bool {
    seq.wrapping_sub(rcv_isn.wrapping_add(1)) <= rcv_wnd
}

/// What the programs tell the daemon of those that wait.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Event {
    /// One of [`event`].
    pub kind: u32,
    /// A [`crate::ServiceId`].
    pub service: u32,
    /// The handshake, or in `flow.remote` the source of the count ([`event::FREED`]).
    pub flow: Flow,
}

/// Kinds of an [`Event`].
pub mod event {
    /// A handshake has a new record, or its record another state.
    pub const CHANGED: u32 = 1;
    /// A place came free in a count for which somebody waits; `flow.remote` is of one that has let it go.
    pub const FREED: u32 = 2;
    /// A handshake that waited got in.
    pub const ENTERED: u32 = 3;
    /// A client that waited gave up.
    pub const GONE: u32 = 4;
}

/// What the daemon asks of the program `usher`, which changes records on its behalf.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct UsherRequest {
    /// One of [`usher_request`].
    pub kind: u32,
    /// 1: it was done. 0: things were not as it expects, and nothing was changed.
    pub done: u32,
    /// The record's number.
    pub number: u64,
    /// The handshake.
    pub flow: Flow,
    /// To [`usher_request::WAIT_ON`]: the [`Reason`] that it waits for.
    pub reason: u16,
    /// To the same: the [`WaitMarks`] that it is to have.
    pub marks: u16,
    /// Of [`usher_request::TELL`]: the [`crate::Response`].
    pub response: u32,
    /// Of [`usher_request::TELL`]: the packed [`crate::Grounds`] on which it is refused.
    pub grounds: u64,
}

/// Kinds of a [`UsherRequest`].
pub mod usher_request {
    /// Its next ACK may take a place.
    pub const GRANT: u32 = 1;
    /// It did not answer.
    pub const REVOKE: u32 = 2;
    /// It may wait after all.
    pub const ADMIT: u32 = 3;
    /// It is refused; what it is told is in the answer.
    pub const TELL: u32 = 4;
    /// Its record is to go: it was told, or is a connection by now.
    pub const FORGET: u32 = 5;
    /// It waits for what is in `reason` from now on, with `marks` where they fit ([`crate::reservation::wait_on`]).
    pub const WAIT_ON: u32 = 6;
    /// It has been in a program's hand for longer than any program runs: the record of one that got in or gave up,
    /// which the kernel did not remove when it was asked to.
    pub const CLEAR: u32 = 7;
}

impl Waiter {
    /// Why it has no place.
    #[inline(always)]
    #[must_use]
    pub const fn reason(&self) -> Reason {
        Reason::from_u8(self.waits_for)
    }

    /// Where it is marked as one that waits.
    #[inline(always)]
    #[must_use]
    pub const fn marks(&self) -> WaitMarks {
        WaitMarks(self.marks)
    }
}

const _: () = assert!(size_of::<Flow>() == 40 && size_of::<Waiter>() == 72 && size_of::<Event>() == 48);

#[cfg(feature = "user")]
mod user {
    use super::{Event, Flow, UsherRequest, Waiter};

    // SAFETY: the types are `bytemuck::Pod`: any bytes are a value, and there is no padding.
    unsafe impl aya::Pod for Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Waiter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Event {}
    // SAFETY: as above.
    unsafe impl aya::Pod for UsherRequest {}
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use proptest::prelude::*;

    use super::*;

    const STATES: [State; 6] =
        [State::Waiting, State::Granted, State::InHand, State::Crowded, State::Refused, State::Told];

    proptest! {
        #[test]
        fn a_record_changes_only_for_who_knows_its_number_and_state(
            number in 0u64..1 << 56, other in 0u64..1 << 56,
            from in prop::sample::select(&STATES), state in prop::sample::select(&STATES),
            to in prop::sample::select(&STATES),
        ) {
            let record = AtomicU64::new(word(number, state));
            prop_assert_eq!(super::state(word(number, state)), Some(state));
            prop_assert_eq!(super::number(word(number, state)), number);
            let expected = number == other && from == state;
            prop_assert_eq!(step(&record, other, from, to), expected);
            prop_assert_eq!(record.load(SeqCst), word(number, if expected { to } else { state }));
        }

        #[test]
        fn one_that_is_in_hand_is_nobody_elses_until_it_is_put_back(
            number in 0u64..1 << 56, state in prop::sample::select(&STATES), to in prop::sample::select(&STATES),
        ) {
            let seen = word(number, state);
            let record = AtomicU64::new(seen);
            prop_assert_eq!(take_in_hand(&record, seen), state != State::InHand);
            prop_assert!(!take_in_hand(&record, seen));
            prop_assert!(!take_in_hand(&record, record.load(SeqCst)));
            put_back(&record, seen, to as u8);
            prop_assert_eq!(record.load(SeqCst), word(number, to));
        }

        /// The window has the numbers 1 to `rcv_wnd`, from the client's own on. What a segment says is on a line with them that
        /// has no end, so it can be compared number by number.
        #[test]
        fn a_handshake_is_given_up_by_what_touches_the_window_and_ends_it(
            rcv_isn: u32, snt_isn: u32, rcv_wnd in 1i64..40, seq in -30i64..60, data in 0i64..30,
            syn: bool, rst: bool, fin: bool, ack in prop::sample::select(&[None, Some(0), Some(1), Some(7)]),
        ) {
            let len = data + i64::from(syn) + i64::from(fin);
            let at = |number: i64| rcv_isn.wrapping_add(number as u32);
            let said = Said {
                seq: at(seq), end: at(seq + len), ack: ack.map(|ack| snt_isn.wrapping_add(ack)), syn, rst,
            };
            let window = 1..=rcv_wnd;
            let touches = if len == 0 {
                // A reset without data counts behind the last number as well.
                (1..=rcv_wnd + 1).contains(&seq)
            } else {
                seq == 1 || (seq..seq + len).any(|number| window.contains(&number))
            };
            let is_repeated = syn && !rst && seq == 0;
            let expected = (rst || syn) && !is_repeated && touches && (rst || ack.is_none_or(|ack| ack == 1));
            prop_assert_eq!(is_given_up(&said, rcv_isn, snt_isn, rcv_wnd as u32), expected);
        }

        #[test]
        fn half_of_the_backlog_may_wait_and_of_a_source_no_more_than_may_connect(backlog: u32, limit: u32) {
            let capacity = u32::from(capacity(backlog));
            prop_assert_eq!(capacity, (backlog / 2).min(crate::count::MAX_WAITING));
            prop_assert_eq!(most_of_source(limit, capacity), limit.min(capacity));
        }
    }

    #[test]
    fn with_a_daemon_only_the_one_whose_turn_it_is_may_try_and_without_one_everybody() {
        for state in STATES {
            assert_eq!(may_try(state as u8, true), state == State::Granted, "{state:?}");
            assert_eq!(may_try(state as u8, false), state != State::InHand, "{state:?}");
        }
    }
}
