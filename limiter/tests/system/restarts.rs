// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail daemon comes and goes; the limiter is not in its way.

use std::net::SocketAddr;

use limiter_lab::sink::listener;
use limiter_lab::{Answer, Lab, Limiter, V4, V6, sockets};

/// What the greeter accepts has the mail port as its own, also in `TIME_WAIT`, where it is for a minute.
#[test]
fn a_mail_daemon_starts_again_right_after_someone_was_told_why() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 1, "reply");
    for family in [V4, V6] {
        let (source, smtp) = (family.source(), family.port(25));
        let everywhere = SocketAddr::from(([0_u16; 8], 25));
        let before = listener(&lab, everywhere, 16);
        let held = lab.dial(source, smtp).expect("there is room");
        sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 1);
        assert_eq!(lab.answer(source, smtp), Answer::Line(Limiter::smtp_reply(1, source)));
        drop((held, before));
        drop(listener(&lab, everywhere, 16));
    }
    sockets::settled(&lab.host, &limiter, 25);
}
