// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What nobody proved moves nobody on the ladder.

use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use limiter_common::{Key, Penalty};

use crate::forgery::attack;
use crate::lab::AttackLab;
use crate::raw::Wire;
use limiter_lab::{Answer, Limiter, SOON, Sink, V4, V6, client, eventually, proc_net, say};

/// A hundred thousand forged packets of all kinds in the name of one who holds its limit: each SYN is
/// refused, and steered to the greeter. It stands where it stood, with all its replies, and is not banned.
#[test]
fn forged_packets_move_nobody_on_the_ladder() {
    for syncookies in ["1", "2"] {
        let Some(lab) = AttackLab::new() else { return };
        lab.host.sysctl("ipv4/tcp_syncookies", syncookies).unwrap();
        lab.lose_resets_of_the_client();
        let _server = Sink::with_backlog(&lab, 25, 16);
        let limiter = Limiter::start_with(
            &lab,
            "[defaults]\nmax_connections = 1\n[ladder]\nreplies = \"2/min\"\nban_after = \"1 in 10min\"\n",
        );
        for family in [V4, V6] {
            let (source, smtp) = (family.source(), family.port(25));
            let answer = || lab.client.run(|| client::answer(source, smtp, Duration::from_secs(3)).1);
            let held = lab.served(source, smtp);
            let frames = &attack(family)[..100_000];
            let arrived = proc_net::counter(&lab.host, "InSegs").unwrap();
            Wire::to_send(&lab).send_frames(frames);
            let arrived = proc_net::counter(&lab.host, "InSegs").unwrap() - arrived;
            let refused = limiter.counter("smtp", "refused_concurrency");
            say(&format!(
                "ladder, tcp_syncookies={syncookies}, {source}: {arrived} forged packets arrived, {refused} SYNs \
                 refused so far, {} sources on the ladder",
                on_the_ladder(&limiter)
            ));
            assert!(refused > 10_000, "the flood reached the greeter's door");
            assert_eq!(on_the_ladder(&limiter), 0, "nobody is known to the ladder");
            // The greeter's queue is full of forgeries; when it has given them up the words come.
            let words = Answer::Line(Limiter::smtp_reply(1, source));
            eventually("it is told why", 9 * SOON, || match answer() {
                answer if answer == words => Ok(()),
                answer => Err(format!("{answer:?}")),
            });
            assert_eq!(limiter.ok(&["bans"]), "no source is banned\n");
            // What it does itself counts.
            eventually("it is banned", SOON, || {
                answer();
                let bans = limiter.ok(&["bans"]);
                if bans.contains(" ladder") { Ok(()) } else { Err(bans) }
            });
            limiter.ok(&["unban", &source.to_string()]);
            drop(held);
        }
    }
}

/// How many sources the ladder knows.
fn on_the_ladder(limiter: &Limiter) -> usize {
    let map = MapData::from_pin(limiter.pins().join("PENALTIES")).expect("the ladder is pinned");
    let penalties: HashMap<_, Key, Penalty> = Map::HashMap(map).try_into().expect("it is a hash map");
    penalties.keys().count()
}
