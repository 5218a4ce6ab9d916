// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A client is told why, by a socket with the numbers of its handshake.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpStream},
};

use socket2::{SockFilter, SockRef};

use super::{
    super::repair::{Takeover, take_over},
    net::Lab,
    scene::{Scene, V4, V6, Way, each},
};

const WORDS: &str =
    "421 4.7.0 mx.example Too many connections (8 of 8) from this IP [192.0.2.7], close one or wait\r\n";

/// As the greeter does.
fn say_why(connection: &mut TcpStream) {
    connection.write_all(WORDS.as_bytes()).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
}

/// The client reads the words and a clean end, and closes; then the host's side ends, too. What the client
/// has said.
#[track_caller]
fn told(mut client: TcpStream, mut connection: TcpStream) -> String {
    let mut heard = String::new();
    client.read_to_string(&mut heard).expect("no reset");
    assert_eq!(heard, WORDS);
    assert!(client.take_error().unwrap().is_none());
    drop(client);
    let mut said = String::new();
    connection.set_read_timeout(Some(limiter_lab::SOON)).unwrap();
    connection.read_to_string(&mut said).expect("no reset");
    said
}

#[test]
fn a_client_is_told_why_and_reads_a_clean_end() {
    each(|lab, way| {
        let scene = Scene::new(lab, way);
        let held = scene.held;
        scene.remove_the_request();
        let mut connection = lab.host.run(|| take_over(&held)).unwrap();
        assert_eq!(connection.local_addr().unwrap().ip(), held.local.ip());
        assert_eq!(connection.peer_addr().unwrap(), held.remote);
        say_why(&mut connection);
        let first = scene.wire.next("the words", |s| s.payload == WORDS.as_bytes());
        assert_eq!(first.tcp.sequence_number, held.snt_isn.wrapping_add(1));
        assert_eq!(first.tcp.acknowledgment_number, held.rcv_isn.wrapping_add(1));
        // The window it was told with the SYN-ACK, but for what is lost by rounding.
        let window = u32::from(first.tcp.window_size) << held.scales().1;
        assert!(window.abs_diff(held.rcv_wnd) < 1 << held.scales().1, "{window}, not {}", held.rcv_wnd);
        let later = first.timestamps().map(|(value, _)| value.wrapping_sub(held.snt_tsval));
        assert_eq!(later.is_some(), held.tstamp_ok);
        assert!(later.unwrap_or(0) < 10_000, "{later:?} ms after the SYN-ACK");
        assert_eq!(told(scene.client, connection), "");
    });
}

#[test]
fn words_that_are_lost_are_repeated() {
    // `BPF_RET | BPF_K`: nothing.
    let deaf = [SockFilter::new(0x06, 0, 0, 0)];
    let Some(lab) = Lab::new() else { return };
    for way in [V4, V6] {
        let scene = Scene::new(&lab, way);
        SockRef::from(&scene.client).attach_filter(&deaf).unwrap();
        scene.remove_the_request();
        let mut connection = lab.host.run(|| take_over(&scene.held)).unwrap();
        say_why(&mut connection);
        let of_the_host = |what: &str| scene.wire.next(what, |s| s.payload == WORDS.as_bytes());
        let lost = of_the_host("the words");
        // The kernel has handed them to the client when they are on the wire.
        SockRef::from(&scene.client).detach_filter().unwrap();
        let again = of_the_host("the words again");
        println!("{way:?}: repeated after {:?}", again.at - lost.at);
        assert_eq!(told(scene.client, connection), "");
    }
}

#[test]
fn what_a_client_has_said_meanwhile_is_read_and_it_is_told_why() {
    each(|lab, way| {
        let mut scene = Scene::new(lab, way);
        scene.client.write_all(b"EHLO early\r\n").unwrap();
        scene.wire.next("early data", |s| s.payload == b"EHLO early\r\n");
        scene.remove_the_request();
        let mut connection = lab.host.run(|| take_over(&scene.held)).unwrap();
        say_why(&mut connection);
        assert_eq!(told(scene.client, connection), "EHLO early\r\n");
    });
}

#[test]
fn what_a_client_says_between_request_and_connection_is_read_while_the_gate_drops_it() {
    each(|lab, way| {
        let mut scene = Scene::new(lab, way);
        scene.remove_the_request();
        // It finds the listener.
        scene.client.write_all(b"EHLO early\r\n").unwrap();
        scene.wire.next("early data", |s| s.payload == b"EHLO early\r\n");
        let mut connection = lab.host.run(|| take_over(&scene.held)).unwrap();
        say_why(&mut connection);
        assert_eq!(told(scene.client, connection), "EHLO early\r\n");
    });
}

#[test]
fn a_client_that_speaks_between_request_and_connection_is_reset_unless_the_gate_drops_it() {
    let Some(lab) = Lab::new() else { return };
    for way in [V4, V6] {
        let mut scene = Scene::new(&lab, way);
        scene.remove_the_request();
        scene.open_the_gate();
        scene.client.write_all(b"EHLO early\r\n").unwrap();
        let error = scene.client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn no_segment_is_longer_than_the_client_takes() {
    let Some(lab) = Lab::new() else { return };
    for mss in [100, 536, 1000] {
        let scene = Scene::with_mss(&lab, V4, Some(mss));
        scene.remove_the_request();
        let mut connection = lab.host.run(|| take_over(&scene.held)).unwrap();
        let room = u32::from(scene.held.mss) - if scene.held.tstamp_ok { 12 } else { 0 };
        assert_eq!(SockRef::from(&connection).tcp_mss().unwrap(), room, "client: {mss}");
        say_why(&mut connection);
        assert_eq!(told(scene.client, connection), "");
    }
}

#[test]
fn a_take_over_that_fails_says_what_has_failed_and_the_client_hears_nothing() {
    let Some(lab) = Lab::new() else { return };
    for way in [V4, V6] {
        let scene = Scene::new(&lab, way);
        let error = lab.host.run(|| take_over(&scene.held)).expect_err("the request is there");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(error.to_string(), "cannot connect");
        drop(lab.host.run(|| Takeover::prepare(&scene.held)).unwrap());
        // Of two things to be sent the second comes later; a SYN-ACK may be repeated in between.
        scene.prober.probe(&scene.held).unwrap();
        let first = scene.wire.next("the probe", |s| s.is_of_the_host() && !s.tcp.syn);
        assert_eq!(first.payload, [0]);
        assert!(scene.diag.find(&scene.held.tuple()).unwrap().is_some());
        scene.open_the_gate();
        scene.prober.probe(&scene.held).unwrap();
        let _connection = scene.listener.accept().unwrap();
    }
}

/// A listener like that of a mail daemon that is started again.
fn listen_again(lab: &Lab, way: Way) -> io::Result<std::net::TcpListener> {
    lab.host.run(|| std::net::TcpListener::bind(way.address()))
}

#[test]
fn a_mail_daemon_can_be_started_again_while_clients_are_being_told() {
    let Some(lab) = Lab::new() else { return };
    for way in [V4, V6] {
        let Scene { listener, client, held, diag, .. } = {
            let scene = Scene::new(&lab, way);
            scene.remove_the_request();
            scene
        };
        let mut connection = lab.host.run(|| take_over(&held)).unwrap();
        drop(listener);
        drop(listen_again(&lab, way).expect("beside a connection"));
        say_why(&mut connection);
        assert_eq!(told(client, connection), "");
        // We have closed first: TIME_WAIT (6).
        assert_eq!(diag.find(&held.tuple()).unwrap().map(|found| found.state), Some(6));
        listen_again(&lab, way).expect("beside TIME_WAIT");
    }
}

#[test]
fn an_address_that_is_not_the_hosts_any_more_is_spoken_for() {
    let Some(lab) = Lab::new() else { return };
    for (way, address, back) in [
        (V4, "192.0.2.1/24", "route add 192.0.2.7/32 dev wire"),
        (V6, "2001:db8::1/64", "route add 2001:db8::7/128 dev wire"),
    ] {
        let mut scene = Scene::new(&lab, way);
        scene.remove_the_request();
        lab.host.ip_batch(&format!("addr del {address} dev wire\n{back}\n")).unwrap();
        scene.prober.probe(&scene.held).unwrap();
        let mut connection = lab.host.run(|| take_over(&scene.held)).unwrap();
        say_why(&mut connection);
        let mut heard = String::new();
        scene.client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, WORDS);
    }
}
