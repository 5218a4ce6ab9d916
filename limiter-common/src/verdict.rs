//! The verdict: the one place where it is decided whether a source may have one more connection.

use crate::{Places, Response, ServicePolicy};

/// Why a connection is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The source holds as many connections as it may.
    Concurrency,
}

/// What becomes of a SYN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// On to the mail daemon's listener.
    Admit,
    /// Away with it.
    Refuse(Reason, Response),
}

/// The limit that applies: a host talking to itself is never refused (law 4).
#[inline(always)]
#[must_use]
pub const fn limit(policy: &ServicePolicy, own: bool) -> u32 {
    if own { u32::MAX } else { policy.max_connections }
}

/// Judges a SYN by the connections its source holds.
///
/// Reservations do not count here: they are not connections yet, and may never be (law 1). The gate
/// counts them when the handshake completes.
#[inline(always)]
#[must_use]
pub const fn judge(policy: &ServicePolicy, own: bool, narrow: Places) -> Verdict {
    if narrow.connections() < limit(policy, own) {
        Verdict::Admit
    } else {
        Verdict::Refuse(Reason::Concurrency, Response::from_u8(policy.response))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn refused_exactly_when_the_source_holds_its_limit(
            limit in 1u32..100, held in 0u32..200, reserved in 0u32..200, own: bool, response in 0u8..2,
        ) {
            let policy = ServicePolicy { max_connections: limit, response, ..Default::default() };
            let verdict = judge(&policy, own, Places(u64::from(reserved) << 32 | u64::from(held)));
            let expected = if own || held < limit {
                Verdict::Admit
            } else {
                Verdict::Refuse(Reason::Concurrency, Response::from_u8(response))
            };
            prop_assert_eq!(verdict, expected);
        }
    }
}
