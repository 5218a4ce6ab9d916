// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! SYN cookies.

use super::{FIRST_PORT, LIMIT, play, served};
use crate::lab::nobody;
use crate::raw::Crowd;
use limiter_lab::sock_diag::SYN_RECV;
use limiter_lab::watch::Watch;
use limiter_lab::{SOON, Sink, cpu, eventually, proc_net, same, say};

#[test]
fn a_burst_with_syn_cookies_exceeds_the_limit_by_no_more_than_the_other_cpus() {
    const ROUNDS: usize = 40;
    play(served, |stage, _| {
        stage.lab.receive_on_all_cpus();
        stage.lab.host.sysctl("ipv4/tcp_syncookies", "2").unwrap();
        let watch = Watch::start(&stage.lab.host, 25, 1);
        let mut found = Vec::new();
        for _ in 0..ROUNDS {
            let crowd = stage.half_open(500);
            crowd.complete();
            // No request is there to be repeated: an ACK that is dropped here is gone.
            let n = watch.until(stage.source, "they are in", SOON, |ports| {
                if ports.len() >= LIMIT { Ok(ports.len()) } else { Err(format!("{ports:?}")) }
            });
            stage.agree(n);
            found.push(n);
            crowd.hang_up();
            stage.agree(0);
        }
        let most = found.iter().max().copied().unwrap_or(0);
        let over = found.iter().filter(|n| **n > LIMIT).count();
        say(&format!(
            "SYN cookies, 500 at once, limit {LIMIT}, {}: at most {most}, over the limit in {over} of {ROUNDS} rounds",
            stage.source
        ));
        assert!(most < LIMIT + cpu::allowed().unwrap().len(), "{found:?}");
    });
}

/// A host that fell back to SYN cookies and has room again keeps a request of the next SYN of the same client, who
/// holds a cookie from before: its ACK has a wrong number for the request, and a right one for the kernel, which
/// looks for a cookie next (`tcp_check_req`, then `tcp_v4_cookie_check`). As long as the request is there the kernel
/// makes no second socket of it (`found_dup_sk` in `inet_ehash_insert`), but a reset may end it in between: so a
/// source at its limit does not get as far as to have its cookie looked at.
#[test]
fn a_cookie_beside_a_request_is_not_looked_at_once_the_source_is_at_its_limit() {
    const BACKLOG: u16 = 64;
    const CLIENTS: u16 = 40;
    play(
        |lab| Sink::with_backlog(lab, 25, BACKLOG.into()),
        |stage, _| {
            stage.lab.host.sysctl("ipv4/tcp_syncookies", "1").unwrap();
            let others = nobody(stage.family, 2);
            let ports = FIRST_PORT..=FIRST_PORT + BACKLOG;
            let mut others = Crowd::new(stage.lab, others, ports, stage.family.port(25));
            others.call();
            let mut cookies = stage.half_open(CLIENTS);
            stage.becomes(SYN_RECV, 0);
            others.hang_up();
            let mut requests = stage.half_open(CLIENTS);
            stage.becomes(SYN_RECV, CLIENTS.into());

            let rest = requests.callers.split_off(&(FIRST_PORT + LIMIT as u16));
            requests.complete();
            stage.agree(LIMIT);
            requests.callers.extend(rest);
            cookies.callers.retain(|port, _| usize::from(*port - FIRST_PORT) >= LIMIT);
            let different = |port: &u16| cookies.callers[port].expected != requests.callers[port].expected;
            assert!(cookies.callers.keys().all(different), "a cookie and a request have the same number");

            let looked_at = || proc_net::counter(&stage.lab.host, "SyncookiesRecv").unwrap();
            let (before, held) = (looked_at(), stage.counted().held);
            cookies.complete();
            eventually("every one of them is held back", SOON, || {
                same("held", &(stage.counted().held - held), &(cookies.callers.len() as u64))
            });
            assert_eq!(looked_at(), before, "cookies of a source at its limit that the kernel looked at");
            stage.agree(LIMIT);
            requests.hang_up();
        },
    );
}
