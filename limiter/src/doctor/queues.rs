// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What waits in front of the mail daemons: connections that nobody has accepted, and handshakes.

use std::fs;

use super::{Context, Outcome, outcome::or_good, overflows::Overflows};
use crate::evidence::Listening;

/// The accept queues.
pub fn accept(context: &Context) -> Vec<Outcome> {
    if !context.sees_network {
        return vec![Outcome::unknown(context.not_seen())];
    }
    match context.listening() {
        Ok(listening) => judge_accept(listening, context.overflows, Overflows::now()),
        Err(problem) => vec![Outcome::unknown(problem)],
    }
}

fn judge_accept(listening: &[Listening], before: Option<Overflows>, now: Option<Overflows>) -> Vec<Outcome> {
    let mut found = Vec::new();
    for Listening { listener, process } in listening {
        let who = process.as_ref().map_or("the mail daemon", |process| process.name.as_str());
        let (port, queued, backlog) = (listener.port, listener.queued, listener.backlog);
        let sentence = |what: &str| {
            format!(
                "port {port}: {queued} connections wait to be accepted by {who}, and {backlog} may: {what}; find out \
                 why it is slow (its log, its process limit, the load), or give it a longer queue"
            )
        };
        if queued > backlog {
            let full = sentence("the queue is full, so the kernel drops who completes a handshake");
            found.push(Outcome::bad(full).mended_by(format!("ss -ltnp sport = :{port}")));
        } else if backlog > 0 && queued * 4 > backlog * 3 {
            let nearly = sentence("the queue is nearly full");
            found.push(Outcome::warning(nearly).mended_by(format!("ss -ltnp sport = :{port}")));
        }
    }
    let Some(now) = now else {
        found.push(Outcome::unknown("the kernel does not tell how often accept queues overflowed"));
        return found;
    };
    let new = now.overflows - before.map_or(now.overflows, |before| before.overflows.min(now.overflows));
    let show = "nstat -az TcpExtListenOverflows";
    if new > 0 {
        found.push(
            Outcome::warning(format!(
                "accept queues overflow: {new} handshakes were dropped while this command ran, at whatever port"
            ))
            .mended_by(show),
        );
    } else if now.overflows > 0 {
        found.push(
            Outcome::note(format!(
                "accept queues overflowed {} times since the network namespace exists, at whatever port, and not just \
                 now",
                now.overflows
            ))
            .mended_by(show),
        );
    }
    or_good(found, "no accept queue of a mail port is nearly full, and none overflowed")
}

/// SYN cookies, with which a limit is exact up to the number of CPUs.
pub fn cookies(context: &Context) -> Vec<Outcome> {
    if !context.sees_network {
        return vec![Outcome::unknown(context.not_seen())];
    }
    let sysctl = fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies").ok();
    vec![judge_cookies(sysctl.as_deref(), Overflows::now())]
}

fn judge_cookies(sysctl: Option<&str>, seen: Option<Overflows>) -> Outcome {
    let sent = seen.map(|seen| seen.cookies);
    match (sysctl.map(str::trim), sent) {
        (Some("2"), _) => Outcome::warning(
            "each handshake gets a SYN cookie (tcp_syncookies = 2), so a burst may exceed a limit by the number of \
             CPUs less one",
        )
        .mended_by("sysctl -w net.ipv4.tcp_syncookies=1"),
        (Some(_), Some(0)) => Outcome::good("no SYN cookie was sent: the SYN queues were long enough"),
        (Some(_), Some(sent)) => Outcome::note(format!(
            "{sent} SYN cookies were sent since the network namespace exists, because SYN queues were full: meanwhile \
             limits are exact up to the number of CPUs less one; a longer queue needs fewer; the mail daemon has to \
             ask for it, too, and to start again"
        ))
        .mended_by("sysctl -w net.core.somaxconn=4096"),
        _ => Outcome::unknown("the kernel does not tell of SYN cookies"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{doctor::Grade, listeners::Listener};

    fn waiting(queued: u32, backlog: u32) -> Listening {
        let listener = Listener {
            address: "::".parse().unwrap(),
            port: 25,
            ifindex: 0,
            takes_both: true,
            is_mptcp: false,
            cgroup: None,
            inode: 1,
            queued,
            backlog,
        };
        Listening { listener, process: None }
    }

    const fn seen(overflows: u64, cookies: u64) -> Overflows {
        Overflows { overflows, cookies }
    }

    #[test]
    fn a_queue_is_full_with_one_more_than_its_backlog() {
        let grade = |queued, backlog| {
            judge_accept(&[waiting(queued, backlog)], Some(seen(0, 0)), Some(seen(0, 0)))[0].grade
        };
        assert_eq!(grade(0, 100), Grade::Good);
        assert_eq!(grade(75, 100), Grade::Good);
        assert_eq!(grade(76, 100), Grade::Warning);
        assert_eq!(grade(100, 100), Grade::Warning);
        assert_eq!(grade(101, 100), Grade::Bad);
        assert_eq!(grade(1, 0), Grade::Bad);
        assert_eq!(grade(0, 0), Grade::Good);
    }

    #[test]
    fn overflows_of_now_are_a_warning_and_older_ones_a_note() {
        let grade = |before, now| judge_accept(&[], before, now)[0].grade;
        assert_eq!(grade(Some(seen(5, 0)), Some(seen(5, 0))), Grade::Note);
        assert_eq!(grade(Some(seen(5, 0)), Some(seen(6, 0))), Grade::Warning);
        assert_eq!(
            grade(Some(seen(6, 0)), Some(seen(5, 0))),
            Grade::Note,
            "the counter of another namespace"
        );
        assert_eq!(grade(None, Some(seen(5, 0))), Grade::Note);
        assert_eq!(grade(None, None), Grade::Unknown);
    }

    #[test]
    fn cookies_are_a_warning_where_all_get_one() {
        assert_eq!(judge_cookies(Some("1\n"), Some(seen(0, 0))).grade, Grade::Good);
        assert_eq!(judge_cookies(Some("1\n"), Some(seen(0, 9))).grade, Grade::Note);
        assert_eq!(judge_cookies(Some("2\n"), Some(seen(0, 0))).grade, Grade::Warning);
        assert_eq!(judge_cookies(None, Some(seen(0, 0))).grade, Grade::Unknown);
        assert_eq!(judge_cookies(Some("1\n"), None).grade, Grade::Unknown);
    }
}
