//! SYN cookies.

use super::{LIMIT, play, served};
use crate::ground::{cpus, say};
use crate::support::SOON;
use crate::watch::Watch;

#[test]
fn a_burst_with_syn_cookies_exceeds_the_limit_by_no_more_than_the_other_cpus() {
    const ROUNDS: usize = 40;
    play(served, |stage, _| {
        stage.ground.receive_on_all_cpus();
        stage.ground.host.sysctl("ipv4/tcp_syncookies", "2");
        let watch = Watch::start(stage.ground, 25);
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
        assert!(most < LIMIT + cpus().len(), "{found:?}");
    });
}
