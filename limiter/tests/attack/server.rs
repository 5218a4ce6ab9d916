// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A mail server for crowds: greets, answers, and on `QUIT` closes first.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use socket2::SockRef;

use crate::support::Lab;
use crate::support::sink::listener;

/// Serves until it is dropped.
pub struct Server {
    listener: Arc<TcpListener>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// A dual-stack server at `port`, whose queues hold `backlog`.
    pub fn start(lab: &Lab, port: u16, backlog: i32) -> Self {
        Self::serve(listener(lab, SocketAddr::from(([0_u16; 8], port)), backlog))
    }

    /// Serves what `listener` accepts.
    pub fn serve(listener: TcpListener) -> Self {
        let listener = Arc::new(listener);
        let open = Arc::clone(&listener);
        let acceptor = std::thread::spawn(move || {
            while let Ok((stream, _)) = open.accept() {
                // A peer that is gone is no fault of the server.
                std::thread::spawn(move || converse(&stream).ok());
            }
        });
        Self { listener, acceptor: Some(acceptor) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The acceptor's `accept` fails, and it ends.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn converse(mut stream: &TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 mx.example.net ESMTP\r\n")?;
    for line in BufReader::new(stream).lines() {
        if line?.trim_end() == "QUIT" {
            stream.write_all(b"221 2.0.0 Bye\r\n")?;
            break;
        }
        stream.write_all(b"250 2.0.0 Ok\r\n")?;
    }
    Ok(())
}
