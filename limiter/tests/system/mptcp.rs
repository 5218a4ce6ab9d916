// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Mail daemons that listen for Multipath TCP.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use limiter_lab::sink::listener;
use limiter_lab::{Lab, Limiter, V4, V6, skip_without};

/// `IPPROTO_MPTCP`, `include/uapi/linux/in.h`.
const MPTCP: i32 = 262;

/// A listener of Multipath TCP in the mail host; `None` where the kernel has none.
pub fn multipath(lab: &Lab, at: SocketAddr) -> Option<Socket> {
    lab.host.run(|| {
        let made = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::from(MPTCP)));
        match made {
            Err(error) if error.raw_os_error() == Some(nix::libc::EPROTONOSUPPORT) => return None,
            made => Some(made.unwrap()),
        }
        .inspect(|socket| {
            socket.set_reuse_address(true).unwrap();
            socket.bind(&at.into()).unwrap();
            socket.listen(16).unwrap();
        })
    })
}

fn warnings(limiter: &Limiter) -> Vec<String> {
    let status = limiter.json(&["status"]);
    let warnings = status["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap());
    warnings.filter(|warning| warning.contains("Multipath TCP")).map(str::to_owned).collect()
}

#[test]
fn status_warns_of_mail_ports_that_listen_for_multipath_tcp_and_of_no_others() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 8, "reset");
    for family in [V4, V6] {
        let _plain = listener(&lab, family.port(25), 16);
        let Some(_elsewhere) = multipath(&lab, family.port(8080)) else {
            return skip_without("CONFIG_MPTCP");
        };
        assert_eq!(warnings(&limiter), Vec::<String>::new());
        let both = [143, 993].map(|port| multipath(&lab, family.port(port)));
        let found = warnings(&limiter);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("imap: "), "{found:#?}");
        assert!(found[0].contains("ports 143 and 993"), "{found:#?}");
        assert!(found[0].contains("net.mptcp.enabled"), "{found:#?}");
        drop(both);
        assert_eq!(warnings(&limiter), Vec::<String>::new());
    }
}
