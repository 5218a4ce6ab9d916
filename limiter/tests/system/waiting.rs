//! What the gate holds back is to be seen.

use crate::support::dial::knock;
use crate::support::{Lab, Limiter, SOON, Sink, V4, V6, eventually, same, truth};

/// The WAITING figure of a source at smtp.
fn waiting(limiter: &Limiter, source: &str) -> Option<u64> {
    let list = limiter.json(&["list"]);
    let listed = list["sources"].as_array().unwrap();
    listed.iter().find(|entry| entry["source"] == source)?["waiting"].as_u64()
}

#[test]
fn handshakes_without_a_place_wait_are_listed_and_get_in_when_one_is_free() {
    let Some(lab) = Lab::new() else { return };
    let sink = Sink::start(&lab, 25);
    let limiter = Limiter::start(&lab, 4, "reset");
    for (family, name) in [(V4, "198.51.100.7/32"), (V6, "2001:db8:7::/64")] {
        let (source, smtp) = (family.source(), family.port(25));
        // All SYNs are judged while none is established: the gate sorts them out.
        lab.deafen(source);
        let knocking: Vec<_> = (0..10).map(|_| lab.client.run(|| knock(source, smtp))).collect();
        eventually("the SYNs are there", SOON, || {
            let from_here = truth::half_open(&lab.host, 25);
            same("half open", &from_here.iter().filter(|c| c.remote.ip() == source).count(), &10)
        });
        lab.undeafen(source);
        truth::agree(&lab.host, &limiter, ("smtp", 25), source, 4);
        eventually("six wait", SOON, || same("waiting", &waiting(&limiter, name), &Some(6)));
        assert!(limiter.source("smtp", source).held >= 6);
        // They get in, two by two; the kernel asks again after 1, 3, 7 seconds.
        let served: Vec<_> = knocking
            .iter()
            .filter(|socket| {
                truth::established(&lab.host, 25)
                    .iter()
                    .any(|c| Ok(c.remote) == socket.local_addr().map_err(|_| ()))
            })
            .take(2)
            .collect();
        assert_eq!(served.len(), 2);
        for socket in served {
            socket.shutdown(std::net::Shutdown::Both).unwrap();
        }
        eventually("two more came in", SOON * 2, || {
            same("waiting", &waiting(&limiter, name), &Some(4))?;
            same("served in all", &sink.tally(source).ever, &6)
        });
        drop(knocking);
        eventually("nobody waits", SOON * 2, || {
            same("half open", &truth::half_open(&lab.host, 25).len(), &0)
        });
    }
    truth::settled(&lab.host, &limiter, 25);
}
