// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every way a connection can end: its place is given back, once, when its owner has let go.
//!
//! A connection that the client resets, or that times out, has not ended for the mail daemon: the dead socket is in
//! its accept queue or behind its descriptor, and it has to deal with it. The place used to be given back at the
//! reset; then one source could fill the accept queue of a slow mail daemon (`dead`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use socket2::SockRef;

use limiter_lab::client::{knock, reset};
use limiter_lab::command::run;
use limiter_lab::sink::listener;
use limiter_lab::{Family, Lab, Limiter, SOON, V4, V6, eventually, same, sockets};

/// Where a connection ends.
struct Scene<'lab> {
    lab: &'lab Lab,
    limiter: &'lab Limiter,
    family: Family,
}

impl Scene<'_> {
    /// Waits until the limiter and `ss` agree that the source has `expected` connections.
    #[track_caller]
    fn counts(&self, expected: u64) {
        sockets::agree(&self.lab.host, self.limiter, ("smtp", 25), self.family.source(), expected);
    }

    /// Waits until the limiter counts `dead` connections of the source beside the `alive` ones that `ss` has.
    #[track_caller]
    fn counts_dead(&self, alive: u64, dead: u64) {
        sockets::with_dead(&self.lab.host, self.limiter, ("smtp", 25), self.family.source(), (alive, dead));
    }
}

/// Establishes a connection, ends it by `end`, which gets the client's and the server's side of it, and
/// requires that its place, and no other, was given back: the connection beside it is still counted, and
/// in the end that is not either.
fn ends(end: impl Fn(&Scene, TcpStream, TcpStream)) {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 8, "reset");
    for family in [V4, V6] {
        let listener = listener(&lab, family.port(25), 16);
        let scene = Scene { lab: &lab, limiter: &limiter, family };
        let connect = || {
            let client = lab.dial(family.source(), family.port(25)).expect("there is room");
            (client, listener.accept().expect("it is in the queue").0)
        };
        let beside = connect();
        for _ in 0..3 {
            let (client, server) = connect();
            scene.counts(2);
            end(&scene, client, server);
            scene.counts(1);
        }
        drop(beside);
        scene.counts(0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

/// Disconnects by connecting to nowhere (`AF_UNSPEC`, connect(2)).
fn disconnect(stream: &TcpStream) {
    let nowhere = nix::libc::sockaddr { sa_family: nix::libc::AF_UNSPEC as u16, sa_data: [0; 14] };
    let length = size_of_val(&nowhere) as u32;
    // SAFETY: an open descriptor, and an address as long as said.
    let outcome = unsafe { nix::libc::connect(stream.as_raw_fd(), &raw const nowhere, length) };
    assert_eq!(outcome, 0, "a connection can be dissolved");
}

/// What reading one byte gives, when the other side has done what it does.
fn reads(mut stream: &TcpStream) -> Result<usize, ErrorKind> {
    stream.set_read_timeout(Some(SOON)).expect("a timeout above 0");
    loop {
        match stream.read(&mut [0]).map_err(|error| error.kind()) {
            // A process that was stopped and continued: see signal(7).
            Err(ErrorKind::Interrupted) => {}
            outcome => return outcome,
        }
    }
}

#[test]
fn closed_by_the_client_first() {
    ends(|_, client, server| {
        drop(client);
        assert_eq!(reads(&server), Ok(0));
        drop(server);
    });
}

#[test]
fn closed_by_the_server_first() {
    ends(|_, client, server| {
        drop(server);
        assert_eq!(reads(&client), Ok(0));
        drop(client);
    });
}

#[test]
fn closed_by_both_at_once() {
    ends(|_, client, server| {
        let other = std::thread::spawn(move || drop(client));
        drop(server);
        other.join().unwrap();
    });
}

#[test]
fn half_closed_by_the_client_it_counts_until_the_server_lets_go() {
    ends(|scene, client, server| {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reads(&server), Ok(0));
        scene.counts(2);
        let state = sockets::established(&scene.lab.host, 25);
        assert!(state.iter().any(|connection| connection.state == "CLOSE-WAIT"), "{state:#?}");
        (&server).write_all(b"still here").unwrap();
        scene.counts(2);
        drop(server);
        scene.counts(1);
        drop(client);
    });
}

#[test]
fn half_closed_by_the_server_it_counts_until_the_client_has_closed_too() {
    ends(|scene, client, server| {
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reads(&client), Ok(0));
        // FIN_WAIT2: the client still talks, and the server reads it.
        scene.counts(2);
        (&client).write_all(b"late").unwrap();
        (&server).read_exact(&mut [0; 4]).unwrap();
        scene.counts(2);
        drop(client);
        scene.counts(1);
        drop(server);
    });
}

#[test]
fn half_closed_by_the_server_it_counts_until_the_server_closes() {
    ends(|scene, client, server| {
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reads(&client), Ok(0));
        scene.counts(2);
        drop(server);
        scene.counts(1);
        drop(client);
    });
}

#[test]
fn half_closed_by_the_server_while_the_client_does_not_answer_it_counts_until_the_server_closes() {
    ends(|scene, client, server| {
        scene.lab.deafen(scene.family.source());
        server.shutdown(Shutdown::Write).unwrap();
        // FIN_WAIT1, for as long as the kernel repeats its FIN.
        scene.counts(2);
        drop(server);
        scene.counts(1);
        scene.lab.undeafen(scene.family.source());
        drop(client);
    });
}

#[test]
fn half_closed_by_the_server_and_reset_by_the_client_it_counts_until_the_server_closes() {
    ends(|scene, client, server| {
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reads(&client), Ok(0));
        reset(client);
        scene.counts_dead(1, 1);
        drop(server);
        scene.counts(1);
    });
}

#[test]
fn closed_in_both_directions_by_the_server_it_is_given_back_though_it_is_held() {
    ends(|scene, client, server| {
        server.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reads(&client), Ok(0));
        eventually("it is given back", SOON, || {
            same("connections", &scene.limiter.source("smtp", scene.family.source()).connections, &1)
        });
        drop((server, client));
    });
}

#[test]
fn held_by_two_processes_it_counts_until_the_last_one_closes_it() {
    ends(|scene, client, server| {
        // A second descriptor of the same socket, as fork(2) gives.
        let other = server.try_clone().unwrap();
        drop(server);
        scene.counts(2);
        reset(client);
        scene.counts_dead(1, 1);
        drop(other);
    });
}

#[test]
fn disconnected_by_the_server_it_is_given_back_though_it_is_held() {
    ends(|scene, client, server| {
        disconnect(&server);
        assert_eq!(reads(&client), Err(ErrorKind::ConnectionReset));
        scene.counts(1);
        drop(server);
    });
}

#[test]
fn reset_by_the_client_it_counts_until_the_server_closes() {
    ends(|scene, client, server| {
        reset(client);
        assert_eq!(reads(&server), Err(ErrorKind::ConnectionReset));
        // The daemon has noticed, and still has its descriptor, and a process behind it.
        scene.counts_dead(1, 1);
        drop(server);
    });
}

#[test]
fn destroyed_by_the_admin_it_counts_until_the_server_closes() {
    ends(|scene, client, server| {
        let mut kill = scene.lab.host.command("ss");
        let peer = client.local_addr().unwrap();
        kill.args(["-K", "dst", &peer.to_string()]);
        run(kill).unwrap();
        assert_eq!(reads(&server), Err(ErrorKind::ConnectionAborted));
        scene.counts_dead(1, 1);
        drop(server);
    });
}

#[test]
fn reset_by_the_server() {
    ends(|_, client, server| {
        reset(server);
        assert_eq!(reads(&client), Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn reset_by_the_server_because_it_left_something_unread() {
    ends(|_, client, server| {
        (&client).write_all(b"unread").unwrap();
        eventually("it is there", SOON, || same("bytes", &server.peek(&mut [0]).ok(), &Some(1)));
        drop(server);
        assert_eq!(reads(&client), Err(ErrorKind::ConnectionReset));
    });
}

#[test]
fn reset_by_the_client_in_close_wait_it_counts_until_the_server_closes() {
    ends(|scene, client, server| {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reads(&server), Ok(0));
        scene.counts(2);
        reset(client);
        eventually("the reset arrives", SOON, || {
            same("error", &server.take_error().unwrap().is_some(), &true)
        });
        scene.counts_dead(1, 1);
        drop(server);
    });
}

#[test]
fn timed_out_because_the_client_is_gone_it_counts_until_the_server_closes() {
    ends(|scene, client, server| {
        SockRef::from(&server).set_tcp_user_timeout(Some(Duration::from_millis(300))).unwrap();
        scene.lab.deafen(scene.family.source());
        (&server).write_all(b"is anyone there?").unwrap();
        assert_eq!(reads(&server), Err(ErrorKind::TimedOut));
        scene.counts_dead(1, 1);
        drop(server);
        scene.lab.undeafen(scene.family.source());
        reset(client);
    });
}

#[test]
fn let_go_while_the_client_is_gone_it_does_not_wait_for_the_goodbye() {
    ends(|scene, client, server| {
        scene.lab.deafen(scene.family.source());
        drop(server);
        // FIN_WAIT1, for as long as the kernel repeats its FIN.
        scene.counts(1);
        scene.lab.undeafen(scene.family.source());
        drop(client);
    });
}

/// The same for four connections that no daemon has accepted yet.
fn ends_in_the_accept_queue(end: impl Fn(&Scene, TcpListener, Vec<TcpStream>)) {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 8, "reset");
    for family in [V4, V6] {
        let listener = listener(&lab, family.port(25), 16);
        let scene = Scene { lab: &lab, limiter: &limiter, family };
        let clients =
            (0..4).map(|_| lab.dial(family.source(), family.port(25)).expect("there is room")).collect();
        scene.counts(4);
        end(&scene, listener, clients);
        scene.counts(0);
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn reset_by_the_client_before_it_was_accepted_it_counts_until_the_server_closes() {
    ends_in_the_accept_queue(|scene, listener, clients| {
        clients.into_iter().for_each(reset);
        scene.counts_dead(0, 4);
        let accepted: Vec<_> = (0..4).map(|_| listener.accept().expect("the queue keeps it").0).collect();
        // Nothing is in the queue any more, but nobody has let go.
        scene.counts_dead(0, 4);
        for (left, server) in (0..4).rev().zip(accepted) {
            drop(server);
            scene.counts_dead(0, left);
        }
    });
}

#[test]
fn reset_by_the_client_before_it_was_accepted_it_counts_until_the_listener_is_closed() {
    ends_in_the_accept_queue(|scene, listener, mut clients| {
        let alive = clients.split_off(2);
        clients.into_iter().for_each(reset);
        scene.counts_dead(2, 2);
        drop(listener);
        for client in alive {
            assert_eq!(reads(&client), Err(ErrorKind::ConnectionReset));
        }
    });
}

#[test]
fn closed_by_the_client_before_it_was_accepted() {
    ends_in_the_accept_queue(|scene, listener, clients| {
        drop(clients);
        eventually("it is in CLOSE_WAIT in the queue", SOON, || {
            let waiting = sockets::established(&scene.lab.host, 25);
            let all = waiting.len() == 4 && waiting.iter().all(|connection| connection.state == "CLOSE-WAIT");
            if all { Ok(()) } else { Err(format!("{waiting:#?}")) }
        });
        scene.counts(4);
        for left in (0..4).rev() {
            drop(listener.accept().expect("the queue keeps it").0);
            scene.counts(left);
        }
    });
}

#[test]
fn reset_because_the_listener_was_closed_with_connections_in_its_queue() {
    ends_in_the_accept_queue(|_, listener, clients| {
        drop(listener);
        for client in clients {
            assert_eq!(reads(&client), Err(ErrorKind::ConnectionReset));
        }
    });
}

#[test]
fn reset_because_the_listener_was_closed_with_its_queue_full_and_more_at_the_door() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 8, "reset");
    for family in [V4, V6] {
        // A backlog of 1 holds 2: see sk_acceptq_is_full in include/net/sock.h.
        let listener = listener(&lab, family.port(25), 1);
        let scene = Scene { lab: &lab, limiter: &limiter, family };
        let clients: Vec<TcpStream> =
            lab.client.run(|| (0..5).map(|_| knock(family.source(), family.port(25))).collect());
        scene.counts(2);
        drop(listener);
        scene.counts(0);
        drop(clients);
        sockets::settled(&lab.host, &limiter, 25);
    }
}
