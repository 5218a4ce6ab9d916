// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A mail server that greets, and nothing more.

use std::{
    io::{ErrorKind, Write as _},
    net::{SocketAddrV4, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// What it says to whoever gets through.
const GREETING: &[u8] = b"220 mail.example.net ESMTP\r\n";

/// How often it looks for a connection, or its end.
const POLL: Duration = Duration::from_millis(5);

/// It listens as long as this lives.
pub struct Sink {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// When the address is not to be had.
    pub fn listen(address: SocketAddrV4) -> Result<Self> {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let over = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let over = Arc::clone(&over);
            move || serve(&listener, &over)
        });
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the mail server of the demo died");
        }
    }
}

/// Greets each client and holds its connection, until it is over.
fn serve(listener: &TcpListener, over: &AtomicBool) {
    let mut held = Vec::new();
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut connection, _)) => {
                if let Err(error) = connection.write_all(GREETING) {
                    eprintln!("the mail server of the demo cannot greet: {error}");
                }
                held.push(connection);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(POLL),
            Err(error) => {
                eprintln!("the mail server of the demo cannot accept: {error}");
                return;
            }
        }
    }
}
