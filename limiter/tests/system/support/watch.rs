// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Watching the socket table while it changes.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use super::{Lab, SOON, Sink, eventually};

/// The most connections of each source that existed at one time.
pub type Peaks = HashMap<IpAddr, usize>;

/// Governs a watch from other threads.
#[derive(Default)]
pub struct Watch {
    done: AtomicBool,
    looks: AtomicUsize,
}

impl Watch {
    /// Lets it end.
    pub fn end(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    /// Waits until what is there now has been looked at, twice.
    #[track_caller]
    pub fn sees(&self) {
        let before = self.looks.load(Ordering::Relaxed);
        eventually("the socket table is looked at", SOON, || {
            let looks = self.looks.load(Ordering::Relaxed);
            // The look under way may have begun too early.
            if looks >= before + 3 { Ok(()) } else { Err(format!("{before} looks, and now {looks}")) }
        });
    }
}

/// Looks at the mail host's socket table until `watch` ends, at the connections to `port` that `sink` has
/// accepted (and so not the greeter's).
///
/// The table is read piece by piece, while connections come and go: one reading may show more than ever
/// were at one time. But what is in two readings in a row was there in between, all of it.
pub fn start<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    lab: &'scope Lab,
    sink: &'scope Sink,
    port: u16,
    watch: &'scope Watch,
) -> ScopedJoinHandle<'scope, Peaks> {
    scope.spawn(move || {
        lab.host.enter();
        let mut peaks = Peaks::new();
        let mut before = HashSet::new();
        while !watch.done.load(Ordering::Relaxed) {
            let now = counted(port);
            let mut at_once: HashMap<IpAddr, usize> = HashMap::new();
            for (remote, inode) in &now {
                if before.contains(remote) && sink.accepted(*inode) {
                    *at_once.entry(remote.ip()).or_default() += 1;
                }
            }
            for (source, count) in at_once {
                let peak = peaks.entry(source).or_default();
                *peak = count.max(*peak);
            }
            before = now.into_keys().collect();
            watch.looks.fetch_add(1, Ordering::Relaxed);
        }
        peaks
    })
}

/// Remote end and inode of the connections to `port` of the calling thread's network namespace that
/// are established or in `CLOSE_WAIT`.
fn counted(port: u16) -> HashMap<SocketAddr, u64> {
    // Not /proc/net: that is the namespace of the process's first thread.
    let tables = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
    let tables = tables.map(|path| std::fs::read_to_string(path).expect("the kernel has TCP"));
    tables.iter().flat_map(|table| table.lines().skip(1)).filter_map(|line| parse(line, port)).collect()
}

/// A line of `/proc/net/tcp` or `tcp6`: see `get_tcp4_sock` in `net/ipv4/tcp_ipv4.c`.
fn parse(line: &str, port: u16) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = end(fields.get(1)?)?;
    let counts = matches!(*fields.get(3)?, "01" | "08");
    if local.port() != port || !counts {
        return None;
    }
    Some((end(fields.get(2)?)?, fields.get(9)?.parse().ok()?))
}

/// An address in words of the host's byte order, and a port: `0100007F:0019`.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |i: usize| u32::from_str_radix(address.get(8 * i..8 * i + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = if address.len() == 8 {
        IpAddr::from(word(0)?)
    } else {
        let words = [word(0)?, word(1)?, word(2)?, word(3)?];
        let octets: [u8; 16] = words.concat().try_into().ok()?;
        IpAddr::V6(Ipv6Addr::from(octets)).to_canonical()
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[test]
fn the_socket_table_is_read_as_the_kernel_writes_it() {
    let v4 = "   0: 010200C0:0019 076433C6:C350 01 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 20 4";
    assert_eq!(parse(v4, 25), Some(("198.51.100.7:50000".parse().unwrap(), 12345)));
    assert_eq!(parse(v4, 143), None);
    assert_eq!(parse(&v4.replace(" 01 ", " 06 "), 25), None, "TIME_WAIT does not count");
    let mapped = "   1: 0000000000000000FFFF0000010200C0:0019 0000000000000000FFFF0000076433C6:C350 08 0:0 00:0 0 0 0 7 1";
    assert_eq!(parse(mapped, 25), Some(("198.51.100.7:50000".parse().unwrap(), 7)));
}
