// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the kernel tracks of connections whose port a firewall has changed: `REDIRECT` and `DNAT` do that before any
//! socket, or the limiter, sees a packet.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::IpAddr,
};

/// Tracked connections, one a line, of the network namespace this thread is in. Not there without conntrack.
const TABLE: &str = "/proc/thread-self/net/nf_conntrack";
/// How much of it is read, in bytes: some 20,000 connections.
const MOST: u64 = 4 << 20;

/// What became of the destination of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Translation {
    /// The port that clients have asked for.
    pub asked: u16,
    /// The one that their packets come to.
    pub port: u16,
    /// The address that they come to, where it is another one than clients have asked for.
    pub address: Option<IpAddr>,
}

/// Those there are. Of more connections than are read, not all are known.
pub fn translations() -> BTreeSet<Translation> {
    let Ok(table) = File::open(TABLE) else { return BTreeSet::new() };
    BufReader::new(table.take(MOST))
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| translation(&line))
        .collect()
}

/// That of a line, if address or port are others. First comes what the client has sent, then what answers it.
fn translation(line: &str) -> Option<Translation> {
    let mut words = line.split_ascii_whitespace();
    words.by_ref().find(|word| *word == "tcp")?;
    let mut next = |name: &str| words.by_ref().find_map(|word| word.strip_prefix(name));
    let wanted: IpAddr = next("dst=")?.parse().ok()?;
    let asked = next("dport=")?.parse().ok()?;
    let answers: IpAddr = next("src=")?.parse().ok()?;
    let port = next("sport=")?.parse().ok()?;
    // The last line that is read may be cut in the number.
    let _whole: u16 = next("dport=")?.parse().ok()?;
    let address = (answers != wanted).then_some(answers);
    (asked != port || address.is_some()).then_some(Translation { asked, port, address })
}

#[cfg(test)]
mod tests {
    use super::{Translation, translation};

    fn line(protocol: &str, answers: &str, port: u16) -> String {
        format!(
            "ipv4     2 {protocol}      6 431999 ESTABLISHED src=198.51.100.7 dst=192.0.2.1 sport=4711 dport=143 \
             src={answers} dst=198.51.100.7 sport={port} dport=4711 [ASSURED] mark=0 zone=0 use=2"
        )
    }

    #[test]
    fn a_line_tells_what_was_asked_for_and_what_answers() {
        let found = |address: Option<&str>, port| {
            Some(Translation { asked: 143, port, address: address.map(|address| address.parse().unwrap()) })
        };
        assert_eq!(translation(&line("tcp", "192.0.2.1", 1143)), found(None, 1143));
        assert_eq!(translation(&line("tcp", "172.17.0.2", 143)), found(Some("172.17.0.2"), 143));
        assert_eq!(translation(&line("tcp", "192.0.2.1", 143)), None);
        assert_eq!(translation(&line("udp", "192.0.2.1", 1143)), None);
        for (whole, meant) in [
            (line("tcp", "192.0.2.1", 1143), found(None, 1143)),
            (line("tcp", "172.17.0.2", 143), found(Some("172.17.0.2"), 143)),
        ] {
            for len in 0..whole.len() {
                let found = translation(&whole[..len]);
                assert!(found.is_none() || found == meant, "{found:?} of {}", &whole[..len]);
            }
        }
    }
}
