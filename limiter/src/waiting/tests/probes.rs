// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A client that is asked repeats its ACK.

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use super::scene::{Scene, each};

/// The kernel repeats a SYN-ACK after a second: what happens before was the probe.
const BEFORE_THE_TIMER: Duration = Duration::from_millis(900);

#[test]
fn a_probe_makes_the_client_repeat_its_ack_within_20_ms_each_time() {
    each(|lab, way| {
        let Scene { held, wire, prober, .. } = &Scene::new(lab, way);
        for _ in 0..3 {
            let sent = Instant::now();
            prober.probe(held).unwrap();
            let ack = wire.next("the ACK", |s| !s.is_of_the_host() && s.tcp.ack);
            let took = ack.at - sent;
            assert!(took < Duration::from_millis(20) * limiter_lab::poll::patience(), "{took:?}");
            let numbers = (ack.tcp.sequence_number, ack.tcp.acknowledgment_number);
            assert_eq!(numbers, (held.rcv_isn.wrapping_add(1), held.snt_isn.wrapping_add(1)));
            let echo = ack.timestamps().map(|(_, echo)| echo);
            assert_eq!(echo, held.tstamp_ok.then_some(held.snt_tsval), "as in the first one");
        }
    });
}

#[test]
fn a_client_that_is_asked_gets_in_as_soon_as_its_ack_is_let_through() {
    each(|lab, way| {
        let mut scene = Scene::new(lab, way);
        // Once for nothing.
        scene.prober.probe(&scene.held).unwrap();
        scene.wire.next("the ACK", |s| !s.is_of_the_host() && s.tcp.ack);
        scene.open_the_gate();
        let asked = Instant::now();
        scene.prober.probe(&scene.held).unwrap();
        let (mut connection, peer) = scene.listener.accept().unwrap();
        let took = asked.elapsed();
        assert!(took < BEFORE_THE_TIMER, "{took:?}");
        assert_eq!(peer.ip().to_canonical(), scene.held.remote.ip());
        connection.write_all(b"220 welcome\r\n").unwrap();
        let mut words = [0; 13];
        scene.client.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"220 welcome\r\n");
        scene.client.write_all(b"QUIT\r\n").unwrap();
        let mut words = [0; 6];
        connection.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"QUIT\r\n", "the byte of the probe is no part of it");
    });
}

#[test]
fn a_client_that_has_begun_to_speak_gets_in_too() {
    each(|lab, way| {
        let mut scene = Scene::new(lab, way);
        scene.client.write_all(b"EHLO early\r\n").unwrap();
        scene.wire.next("early data", |s| s.payload == b"EHLO early\r\n");
        scene.open_the_gate();
        scene.prober.probe(&scene.held).unwrap();
        let (mut connection, _) = scene.listener.accept().unwrap();
        let mut words = [0; 12];
        connection.read_exact(&mut words).unwrap();
        assert_eq!(&words, b"EHLO early\r\n");
    });
}
