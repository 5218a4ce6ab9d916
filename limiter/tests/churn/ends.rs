// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ending a connection, with both its ends at hand.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use crate::ending::Ending;
use crate::lab::Pair;
use limiter_lab::client::reset;
use limiter_lab::{SOON, deadline};

/// What reading gives once the other side has done what it does: over a wire in memory that is now, but for a
/// CPU that is behind with its packets.
pub fn reads(mut socket: &Socket) -> Result<usize, ErrorKind> {
    loop {
        match socket.read(&mut [0; 64]).map_err(|error| error.kind()) {
            Err(ErrorKind::WouldBlock) => wait(socket),
            Err(ErrorKind::Interrupted) => {}
            outcome => return outcome,
        }
    }
}

fn wait(socket: &Socket) {
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let left = deadline(SOON).saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left).expect("a short time");
    let found = poll(&mut ready, timeout).expect("an open socket");
    assert!(found > 0, "nothing comes: {socket:?}");
}

/// Ends the connection in a way of a worker's.
pub fn end(Pair { client, server }: Pair, ending: Ending) {
    match converse(client, server, ending) {
        Ok(()) => {}
        Err(error) => panic!("a connection that should be {ending:?}: {error}"),
    }
}

fn converse(client: Socket, server: Socket, ending: Ending) -> io::Result<()> {
    let over = |outcome: Result<usize, ErrorKind>| match outcome {
        Ok(0) => Ok(()),
        outcome => Err(io::Error::other(format!("reading gave {outcome:?} instead of the end"))),
    };
    match ending {
        Ending::FinByServer => {
            drop(server);
            over(reads(&client))?;
        }
        Ending::HalfClosedByClient => {
            client.shutdown(Shutdown::Write)?;
            over(reads(&server))?;
            (&server).write_all(b"221 2.0.0 Bye\r\n")?;
            drop(server);
        }
        Ending::HalfClosedByServer => {
            server.shutdown(Shutdown::Write)?;
            over(reads(&client))?;
            (&client).write_all(b"late")?;
            reads(&server)?;
        }
        Ending::ResetByClient => reset(client),
        Ending::ResetByServer => reset(server),
        Ending::ResetForTheUnread => {
            (&client).write_all(b"unread")?;
            drop(server);
        }
        Ending::ResetInCloseWait => {
            client.shutdown(Shutdown::Write)?;
            over(reads(&server))?;
            reset(client);
        }
        Ending::ResetInFinWait => {
            server.shutdown(Shutdown::Write)?;
            over(reads(&client))?;
            reset(client);
        }
        _ => {
            drop(client);
            over(reads(&server))?;
        }
    }
    Ok(())
}
