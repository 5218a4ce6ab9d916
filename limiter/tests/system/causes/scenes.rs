// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the scenes are built from: crowds of clients, a host behind a translating one, a sender, a slow server.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use limiter_lab::command::feed;
use limiter_lab::lab::WIRE;
use limiter_lab::{Lab, Limiter, Namespace, SOON, V4, client, eventually, let_time_pass};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::support::mail_daemon::MailDaemon;
use crate::support::postfix;

/// IMAP clients in one process, which end with this.
pub struct Crowd(Child);

impl Crowd {
    /// Starts them in a namespace, as `imap_crowd.py` says, and waits until their first round is done.
    #[track_caller]
    pub fn start(netns: &Namespace, mode: &str, host: IpAddr, source: IpAddr, words: &[&str]) -> Self {
        let mut command = netns.command("python3");
        command.args(["-c", include_str!("../support/imap_crowd.py"), mode]);
        command.args([host.to_string(), source.to_string()]).args(words);
        Self::run(command)
    }

    #[track_caller]
    fn run(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python is installed");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        let _length = BufReader::new(out).read_line(&mut line).expect("it says when it is ready");
        assert_eq!(line.trim_end(), "ready", "the clients are refused");
        Self(child)
    }

    /// Sessions of these users that wait in IDLE.
    #[track_caller]
    pub fn hold(netns: &Namespace, host: IpAddr, source: IpAddr, users: &[&str]) -> Self {
        Self::start(netns, "hold", host, source, users)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _no_zombie = self.0.wait();
    }
}

/// The connections of an address, as `limiter connections` lists them.
pub fn connections(limiter: &Limiter, address: IpAddr) -> Vec<Value> {
    let listed = limiter.json(&["connections", &address.to_string()]);
    listed["connections"].as_array().expect("a list").clone()
}

/// Waits until an address has so many.
#[track_caller]
pub fn has(limiter: &Limiter, address: IpAddr, count: usize) -> Vec<Value> {
    eventually(&format!("{address} has {count} connections"), SOON, || {
        let found = connections(limiter, address);
        if found.len() == count { Ok(found) } else { Err(format!("{found:#?}")) }
    })
}

/// One more address of the client host.
pub fn add_address(lab: &Lab, address: IpAddr) {
    lab.client.ip(&["addr", "add", &format!("{address}/32"), "dev", WIRE]).expect("an address");
    lab.host.ip(&["route", "add", &address.to_string(), "dev", WIRE]).expect("a route");
}

/// The host behind another one that hides it.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

/// A host whose connections all come from one address of the client host, as those of containers behind a bridge do.
pub fn hide_behind(lab: &Lab, bridge: IpAddr) -> Namespace {
    /// Its end of the link to the client host, and that one's.
    const LINK: &str = "inside";
    let gateway: IpAddr = Ipv4Addr::new(172, 17, 255, 254).into();
    let inside = Namespace::new(format!("{}-i", lab.name)).expect("root may make a namespace");
    inside.veth_to(&lab.client, LINK).expect("a link");
    lab.client.connect(LINK, gateway, INSIDE.into()).expect("an address");
    inside.connect(LINK, INSIDE.into(), gateway).expect("an address");
    inside.ip(&["route", "add", &V4.host.to_string(), "via", &gateway.to_string()]).expect("a route");
    add_address(lab, bridge);
    lab.client.sysctl("ipv4/ip_forward", "1").expect("root may");
    let mut nft = lab.client.command("nft");
    nft.args(["-f", "-"]);
    let rules = format!(
        "table ip hide {{\nchain out {{\ntype nat hook postrouting priority srcnat\n\
         ip saddr {INSIDE} snat to {bridge}\n}}\n}}\n"
    );
    feed(nft, &rules).expect("nftables is installed");
    inside
}

/// A client that connects, says goodbye, and comes again at once, until this is dropped.
pub struct Loop {
    stops: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    /// Pauses so long in between.
    pub fn start(lab: &Lab, source: IpAddr, to: SocketAddr, pause: Duration) -> Self {
        let stops = Arc::new(AtomicBool::new(false));
        let (stopped, netns) = (stops.clone(), lab.client.path());
        let thread = std::thread::spawn(move || {
            let netns = File::open(netns).expect("the namespace is there");
            setns(netns, CloneFlags::CLONE_NEWNET).expect("root may enter it");
            while !stopped.load(Ordering::Relaxed) {
                let (stream, _said) = client::answer(source, to, SOON);
                if let Some(mut stream) = stream {
                    let _it_may_be_refused = stream.write_all(b"QUIT\r\n");
                }
                let_time_pass(pause, "the pace of the loop");
            }
        });
        Self { stops, thread: Some(thread) }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _it_has_failed = thread.join();
        }
    }
}

/// A Postfix on the client host that delivers a queue to the mail host.
pub struct Sender {
    _postfix: MailDaemon,
}

/// Delivers up to 20 at a time from the start, and each over a connection of its own.
const MAIN: &str = "
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
multi_instance_directories =
inet_interfaces = loopback-only
inet_protocols = ipv4
disable_dns_lookups = yes
relayhost = [{host}]
smtp_bind_address = {source}
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtp_connection_cache_on_demand = no
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
myhostname = sender.example.org
mydestination =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
";

const MASTER: &str = "
2525      inet  n       -       n       -       100     smtpd
smtp      unix  -       -       n       -       100     smtp
postlog   unix-dgram n  -       n       -       1       postlogd
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
proxymap  unix  -       -       n       -       -       proxymap
anvil     unix  -       -       n       -       1       anvil
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
";

impl Sender {
    /// With so many messages, to as many people.
    #[track_caller]
    pub fn start(lab: &Lab, source: IpAddr, messages: usize) -> Self {
        let main = MAIN.replace("{host}", &V4.host.to_string()).replace("{source}", &source.to_string());
        let postfix = postfix::start_in(&lab.client, &main, MASTER, |files, command| {
            MailDaemon::start_alone("the sender", files, command)
        });
        lab.client.run(|| {
            let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 2525));
            let mut stream = eventually("the sender takes mail", SOON, || {
                std::net::TcpStream::connect(to).map_err(|error| error.to_string())
            });
            let mut lines = BufReader::new(stream.try_clone().expect("a file")).lines();
            let mut answer = || lines.next().expect("it answers").expect("it answers");
            answer();
            let mut say = |words: &str| {
                stream.write_all(words.as_bytes()).expect("it listens");
                let line = answer();
                assert!(line.starts_with(['2', '3']), "{words:?}: {line}");
            };
            say("HELO client.example.org\r\n");
            for number in 0..messages {
                say("MAIL FROM:<list@sender.example.org>\r\n");
                say(&format!("RCPT TO:<to-{number}@mx.example.net>\r\n"));
                say("DATA\r\n");
                say(&format!("Subject: one of many\r\n\r\n{}\r\n.\r\n", "news ".repeat(2000)));
            }
        });
        Self { _postfix: postfix }
    }
}
