// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Segments in orders no client sends them in, and handshakes the kernel completes in other ways.
//!
//! After each the limiter's count is the kernel's, nothing stays reserved, and nothing had to be corrected.

mod cookies;
mod extensions;
mod fast_open;
mod order;
mod queues;
mod simultaneous;
mod time_wait;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;

use nix::libc;

use crate::lab::{AttackLab, agree, holds, nobody};
use crate::raw::{Caller, Crowd};
use limiter_lab::limiter::Source;
use limiter_lab::sink::listener;
use limiter_lab::sock_diag::Sockets;
use limiter_lab::{Family, Limiter, SOON, Sink, V4, V6, eventually, same};

const LIMIT: usize = 8;
const BACKLOG: i32 = 4_096;
const FIRST_PORT: u16 = 20_001;

/// A mail host with a limit of eight, and one raw client of one family.
struct Stage<'a> {
    lab: &'a AttackLab,
    limiter: &'a Limiter,
    family: Family,
    source: IpAddr,
}

impl Stage<'_> {
    /// `n` callers at the source, who have done nothing yet.
    fn crowd(&self, n: u16) -> Crowd {
        Crowd::new(self.lab, self.source, FIRST_PORT..=FIRST_PORT + n - 1, self.family.port(25))
    }

    /// As [`Self::crowd`], and each has its SYN-ACK.
    fn half_open(&self, n: u16) -> Crowd {
        let mut crowd = self.crowd(n);
        crowd.call();
        crowd
    }

    #[track_caller]
    fn agree(&self, expected: usize) {
        agree(self.lab, self.limiter, self.source, expected);
    }

    #[track_caller]
    fn holds(&self, alive: usize, dead: usize) {
        holds(self.lab, self.limiter, self.source, alive, dead);
    }

    fn counted(&self) -> Source {
        self.limiter.source("smtp", self.source)
    }

    /// How many connections of the source are in `state`, by the kernel.
    fn in_state(&self, state: u8) -> usize {
        let table = Sockets::of(&self.lab.host).connections(25, &[state]);
        table.iter().filter(|connection| connection.remote.ip() == self.source).count()
    }

    #[track_caller]
    fn becomes(&self, state: u8, expected: usize) {
        eventually(&format!("{expected} are in state {state}"), SOON, || {
            same("sockets", &self.in_state(state), &expected)
        });
    }
}

/// Plays `scene` on one mail host, first with IPv4 and then with IPv6. `listen` makes what listens there.
fn play<S>(listen: impl Fn(&AttackLab) -> S, scene: impl Fn(&Stage, &S)) {
    let Some(lab) = AttackLab::new() else { return };
    let server = listen(&lab);
    let limiter = Limiter::start(&lab, LIMIT as u32, "reset");
    for family in [V4, V6] {
        let source = nobody(family, 1);
        let stage = Stage { lab: &lab, limiter: &limiter, family, source };
        scene(&stage, &server);
        stage.agree(0);
    }
}

fn served(lab: &AttackLab) -> Sink {
    Sink::with_backlog(lab, 25, BACKLOG)
}

/// A listener of which the test accepts, or does not.
fn queued(lab: &AttackLab) -> TcpListener {
    let listener = listener(lab, SocketAddr::from(([0_u16; 8], 25)), BACKLOG);
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    listener
}

/// The only caller of a crowd.
fn only(crowd: &mut Crowd) -> &mut Caller {
    crowd.callers.first_entry().expect("there is one").into_mut()
}

/// Sets an option of TCP whose value is an int.
fn set_tcp(listener: &TcpListener, option: i32, value: i32) {
    // SAFETY: the value is an int, as these options take it.
    let result = unsafe {
        libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), 4)
    };
    assert_eq!(result, 0, "TCP option {option}: {}", std::io::Error::last_os_error());
}
