//! What the kernel tracks of connections whose port a firewall has changed: `REDIRECT` and `DNAT` do that before any
//! socket, or the limiter, sees a packet.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
};

/// Tracked connections, one a line, of the network namespace this thread is in. Not there without conntrack.
const TABLE: &str = "/proc/thread-self/net/nf_conntrack";
/// How much of it is read, in bytes: some 20,000 connections.
const MOST: u64 = 4 << 20;

/// The port that clients have asked for, and the one that their packets come to. Of more connections than are read, not
/// all are known.
pub fn translations() -> BTreeSet<(u16, u16)> {
    let Ok(table) = File::open(TABLE) else { return BTreeSet::new() };
    BufReader::new(table.take(MOST))
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| translation(&line))
        .collect()
}

/// That of a line, if the port is another one. First comes what the client has sent, then what answers it.
fn translation(line: &str) -> Option<(u16, u16)> {
    let mut words = line.split_ascii_whitespace();
    words.by_ref().find(|word| *word == "tcp")?;
    let mut next = |name: &str| words.by_ref().find_map(|word| word.strip_prefix(name)?.parse().ok());
    let (asked, comes_to) = (next("dport=")?, next("sport=")?);
    // The last line that is read may be cut in the number.
    let _whole: u16 = next("dport=")?;
    (asked != comes_to).then_some((asked, comes_to))
}

#[cfg(test)]
mod tests {
    use super::translation;

    #[test]
    fn a_line_tells_the_port_that_was_asked_for_and_the_one_that_answers() {
        let line = |protocol: &str, answers: u16| {
            format!(
                "ipv4     2 {protocol}      6 431999 ESTABLISHED src=198.51.100.7 dst=192.0.2.1 sport=4711 dport=143 \
                 src=192.0.2.1 dst=198.51.100.7 sport={answers} dport=4711 [ASSURED] mark=0 zone=0 use=2"
            )
        };
        assert_eq!(translation(&line("tcp", 1143)), Some((143, 1143)));
        assert_eq!(translation(&line("tcp", 143)), None);
        assert_eq!(translation(&line("udp", 1143)), None);
        let whole = line("tcp", 1143);
        for len in 0..whole.len() {
            let found = translation(&whole[..len]);
            assert!(found.is_none_or(|found| found == (143, 1143)), "{found:?} of {}", &whole[..len]);
        }
    }
}
