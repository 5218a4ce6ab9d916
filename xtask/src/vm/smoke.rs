// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The smoke list: a few tests for every day. Under emulation all of them take the better part of an hour on
//! each kernel, and most of what they find, any kernel would show. These are where kernels differ: the order in
//! which a kernel calls the programs, what it keeps of a handshake, and what it tells when a connection ends.

use anyhow::{Context as _, Result, bail};

use super::suite::Suite;

/// Parts of the tests' names. What is new in the kernel programs belongs in here with one test.
pub const SMOKE: &[&str] = &[
    // Which segment the gate sees, and when: before there is a connection.
    "burst::of_twenty_handshakes",
    "waiting::",
    // A request removed, a socket that speaks for it, and a client that is asked for its ACK.
    "netem::",
    "wait::who_gets_no_place",
    "order::an_ack_with_a_wrong_number",
    "counts::with_syn_cookies_in_force",
    "fast_open::connections_by_fast_open",
    // When the ledger is called.
    "counts::counts_follow_ss",
    "endings::half_closed_by_the_client",
    "endings::reset_by_the_client_before_it_was_accepted_it_counts_until_the_server_closes",
    "dead::the_dead_in_a_queue_go_with_its_listener",
    // The socket table as the census reads it, and the maintenance program.
    "reconciliation::verify_finds",
    // Pins, links, and programs exchanged in place.
    "takeover::a_killed_daemon",
    // XDP.
    "table::every_frame_gets_its_verdict",
    "shield::it_drops_who_is_denied",
];

/// Makes sure that each entry of the list still has a test: one that was renamed would be left out in silence.
///
/// # Errors
///
/// When one has none, or the tests cannot be asked for their names.
pub fn check(suite: &Suite) -> Result<()> {
    let names = suite.names().context("cannot list the tests")?;
    let gone: Vec<_> = without_test(SMOKE, &names).collect();
    if !gone.is_empty() {
        bail!("the smoke list has entries that match no test: {}", gone.join(", "));
    }
    Ok(())
}

/// Those parts of names that are in no name.
fn without_test<'a>(parts: &[&'a str], names: &[String]) -> impl Iterator<Item = &'a str> {
    parts.iter().copied().filter(|part| !names.iter().any(|name| name.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_test_is_missed() {
        let names = ["burst::nine".to_owned(), "counts::agree".to_owned()];
        let gone: Vec<_> = without_test(&["counts::", "burst::nine", "burst::ten"], &names).collect();
        assert_eq!(gone, ["burst::ten"]);
    }
}
