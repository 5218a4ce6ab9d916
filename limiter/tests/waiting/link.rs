// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the link promises, without a limiter.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::setup::{SMTP, gently, slack};
use limiter_lab::client::dial;
use limiter_lab::link::{Link, Loss};
use limiter_lab::sink::listener;
use limiter_lab::{Family, Lab, SOON, V4, V6};

const RTT: Duration = Duration::from_millis(100);

/// Both ends of a connection, and how long the client took for it.
fn connection(lab: &Lab, family: Family) -> (TcpStream, TcpStream, Duration) {
    let server = listener(lab, family.port(SMTP), 8);
    let called = Instant::now();
    let client = lab.client.run(|| dial(family.source(), family.port(SMTP), SOON)).unwrap();
    let took = called.elapsed();
    let (host, _) = server.accept().unwrap();
    (client, host, took)
}

#[test]
fn a_handshake_takes_a_round_trip_and_what_is_said_half_of_one() {
    let _machine = gently();
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let link = Link::lay(&lab, RTT, Loss::NONE).unwrap();
    for family in [V4, V6] {
        let (mut client, mut host, took) = connection(&lab, family);
        assert!((RTT..RTT + slack() + link.late()).contains(&took), "{took:?}");
        let said = Instant::now();
        client.write_all(b"x").unwrap();
        host.read_exact(&mut [0]).unwrap();
        let took = said.elapsed();
        assert!((RTT / 2..RTT / 2 + slack() + link.late()).contains(&took), "{took:?}");
    }
    assert_eq!(link.lost(), []);
}

#[test]
fn of_a_client_that_is_muted_or_silenced_nothing_arrives() {
    let _machine = gently();
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let link = Link::lay(&lab, Duration::from_millis(2), Loss::NONE).unwrap();
    for (family, mutes) in [(V4, true), (V6, false)] {
        let (mut client, mut host, _) = connection(&lab, family);
        let address = client.local_addr().unwrap();
        if mutes {
            link.mute(address);
            // The one segment that a handshake takes.
            client.write_all(b"x").unwrap();
            host.read_exact(&mut [0]).unwrap();
        } else {
            link.silence(address);
        }
        client.write_all(b"y").unwrap();
        host.write_all(b"z").unwrap();
        let briefly = Some(Duration::from_millis(200));
        host.set_read_timeout(briefly).unwrap();
        client.set_read_timeout(briefly).unwrap();
        assert!(host.read(&mut [0]).is_err(), "the host hears nothing");
        assert_eq!(client.read(&mut [0]).is_ok(), mutes, "who is mute is not deaf");
    }
}

#[test]
fn what_a_link_loses_it_knows() {
    let _machine = gently();
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let link = Link::lay(&lab, Duration::from_millis(2), Loss { percent: 100, seed: 1 }).unwrap();
    let lonely = lab.client.run(|| dial(V4.source(), V4.port(SMTP), Duration::from_millis(300)));
    assert!(lonely.is_err());
    let lost = link.lost();
    assert!(lost.iter().all(|segment| segment.syn && segment.client.ip() == V4.source()), "{lost:?}");
    assert!(!lost.is_empty());
}
