// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail server that is measured: accepts, writes and closes, and nothing more, so that it is not what
//! is measured. In a process of its own, which is told what to do on its standard input.

use std::{
    io::{BufRead as _, BufReader, Read, Write as _},
    net::{Ipv6Addr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::socket::{Backlog, listen};

/// Threads that accept on each port.
const THREADS: usize = 2;

/// Handshakes that wait for [`THREADS`].
const BACKLOG: i32 = 4096;

/// What to do with a connection after the banner.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// End it.
    Close = b'c',
    /// Keep it, until another mode is set.
    Hold = b'h',
    /// End it, and go on keeping those that are kept.
    Keep = b'k',
    /// Read and discard, until the client ends it.
    Drain = b'd',
}

/// Arguments of the process.
#[derive(Args)]
pub struct Server {
    /// Port to listen on and reply code to send: 25=220
    ports: Vec<String>,
}

impl Server {
    /// Serves until its standard input ends.
    ///
    /// # Errors
    ///
    /// When a port is not to be had.
    pub fn run(&self) -> Result<()> {
        let mode = Arc::new(AtomicU8::new(Mode::Close as u8));
        let held = Arc::new(Mutex::new(Vec::new()));
        limiter_lab::limits::allow_many_files()?;
        for port in &self.ports {
            let (port, code) = port.split_once('=').context("a port is given as PORT=CODE")?;
            // Takes both families.
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port.parse()?))
                .with_context(|| format!("cannot listen on port {port}"))?;
            listen(&listener.as_fd(), Backlog::new(BACKLOG)?)?;
            let banner: Arc<[u8]> = format!("{code} mail.example.net\r\n").into_bytes().into();
            for _ in 0..THREADS {
                let listener = listener.try_clone()?;
                let (mode, held, banner) = (Arc::clone(&mode), Arc::clone(&held), Arc::clone(&banner));
                thread::spawn(move || serve(&listener, &banner, &mode, &held));
            }
        }
        println!("ready");
        for order in std::io::stdin().lock().bytes() {
            let order = order?;
            mode.store(order, Ordering::SeqCst);
            if order != Mode::Keep as u8
                && let Ok(mut held) = held.lock()
            {
                held.clear();
            }
            println!("done");
        }
        Ok(())
    }
}

fn serve(listener: &TcpListener, banner: &[u8], mode: &AtomicU8, held: &Mutex<Vec<TcpStream>>) {
    loop {
        // One that ended before it was accepted, or a moment without memory: the next one.
        let Ok((mut connection, _)) = listener.accept() else { continue };
        // A client that is gone already is none of our concern.
        let _gone = connection.write_all(banner);
        let mode = mode.load(Ordering::Relaxed);
        if mode == Mode::Hold as u8 {
            if let Ok(mut held) = held.lock() {
                held.push(connection);
            }
        } else if mode == Mode::Drain as u8 {
            thread::spawn(move || {
                let mut buffer = vec![0; 128 * 1024];
                while connection.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
        }
    }
}

/// A running server, seen from the benchmark.
pub struct Serving {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Serving {
    /// Starts it: `command` runs xtask where the server is to be.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or gets no port.
    pub fn start(mut command: Command, ports: &[(u16, u16)]) -> Result<Self> {
        let ports = ports.iter().map(|(port, code)| format!("{port}={code}"));
        command.arg("bench-server").args(ports).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the server")?;
        let answers = child.stdout.take().context("the server has no output")?;
        let mut serving = Self { child, answers: BufReader::new(answers) };
        serving.answer("ready")?;
        Ok(serving)
    }

    /// Tells it what to do with connections from now on, and to let go of those that it holds.
    ///
    /// # Errors
    ///
    /// When it is dead.
    pub fn set(&mut self, mode: Mode) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("the server has no input")?;
        stdin.write_all(&[mode as u8])?;
        stdin.flush()?;
        self.answer("done")
    }

    fn answer(&mut self, expected: &str) -> Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim() != expected {
            bail!("the server is dead");
        }
        Ok(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Its input ends with us, and it with that; its cgroup sees to the rest.
        let _dead_already = self.child.kill();
        let _dead_already = self.child.wait();
    }
}
