// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The greeter over real sockets. The listener is at an address of the host here, which is all that
//! differs: the kernel program is tested with the whole.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream as Client},
    os::fd::AsFd as _,
    process::Command,
    time::Duration,
};

use channel::Reader;
use event_loop::{Daemon, EventLoop};
use limiter_common::{Protocol, Reason};
use messages::Notice;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use process::{Ends, Launched};
use rustix::net::RecvFlags;
use setup::Setup;
use tokio::task::JoinHandle;

use super::*;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const LINE: &str =
    "421 4.7.0 mx.example.org Too many connections (8 of 8) from this IP [127.0.0.1], close one or wait\r\n";

/// On which everybody is refused: what a listener bears, the connections that it accepts bear, too.
pub const GROUNDS: Grounds = Grounds { reason: Reason::Concurrency, count: 8, limit: 8 };

/// Knows of nobody.
#[derive(Debug)]
pub struct Never;

impl Dues for Never {
    fn due(&self, _local_port: u16, _remote: IpAddr) -> Option<Duration> {
        None
    }
}

pub fn words() -> Words {
    Words::of(&crate::config::Config::default(), "mx.example.org".to_owned())
}

pub const SMTP: Service = Service { protocol: Protocol::Smtp };

pub struct Running {
    pub port: u16,
    pub totals: Totals,
    log: RefusalLog,
    teller: Teller,
    pub stop: watch::Sender<bool>,
    pub serve: JoinHandle<io::Result<()>>,
    settings: Settings,
}

/// Starts threads of this process in place of processes, with all that is said between them and the daemon.
#[derive(Debug)]
pub struct Thread;

#[derive(Debug)]
struct Started;

impl Launch for Thread {
    fn launch(&self, ends: Ends) -> anyhow::Result<Box<dyn Launched>> {
        let serve = || child::serve(ends, || Ok(crate::sandbox::Confined { landlock: true }));
        std::thread::spawn(serve);
        Ok(Box::new(Started))
    }
}

impl Launched for Started {
    fn pid(&self) -> Option<u32> {
        None
    }

    /// It ends by itself, as nobody is at the other end of its socket any more.
    fn end(self: Box<Self>) -> String {
        "a thread".to_owned()
    }
}

/// A greeter where clients of `service`, if there is one, are refused on `grounds`, if there are any. At its port TLS starts at
/// once if `settings` say so when they are `prepared`.
pub fn start_with(
    service: Option<Service>,
    grounds: Option<Grounds>,
    settings: Settings,
    prepare: impl FnOnce(u16),
    bounds: Bounds,
) -> Running {
    let listener = Listener::at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    if let Some(grounds) = grounds {
        bear(&listener, grounds).unwrap();
    }
    let port = listener.address().port();
    settings.set_words(service.map(|service| (port, service)).into_iter().collect(), words());
    prepare(port);
    let steer = Box::new(|_: &Listener| Ok(()));
    let greeter =
        Greeter::new(listener, settings.clone(), Box::new(Never), steer, Box::new(Thread), bounds).unwrap();
    let (totals, log, teller) = (greeter.totals(), greeter.log(), greeter.teller());
    let (stop, stopped) = watch::channel(false);
    Running { port, totals, log, teller, stop, serve: tokio::spawn(greeter.serve(stopped)), settings }
}

fn start(service: Service, bounds: Bounds) -> Running {
    start_plain(Some(service), Some(GROUNDS), bounds)
}

fn start_plain(service: Option<Service>, grounds: Option<Grounds>, bounds: Bounds) -> Running {
    start_with(service, grounds, Settings::default(), |_| (), bounds)
}

impl Running {
    fn connect(&self) -> Client {
        connect("127.0.0.1", self.port)
    }

    /// What one more client hears. A reset may come before its connect(2) has returned.
    fn hears(&self) -> Result<String, ErrorKind> {
        let client = Client::connect(("127.0.0.1", self.port)).map_err(|error| error.kind())?;
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        heard(&client)
    }

    /// Waits for the counts: a client hears first, and is counted then.
    pub fn counts(&self, expected: Snapshot) {
        eventually(&format!("{expected:?}"), || self.totals.snapshot() == expected);
    }

    /// Waits until another client is greeted.
    fn has_room(&self) {
        eventually("a place is free", || self.hears().as_deref() == Ok(LINE));
    }
}

pub fn connect(host: &str, port: u16) -> Client {
    let client = Client::connect((host, port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// All that comes until the greeter closes.
pub fn heard(mut client: &Client) -> Result<String, ErrorKind> {
    let mut text = String::new();
    client.read_to_string(&mut text).map(|_| text).map_err(|error| error.kind())
}

/// The greeter runs on other threads meanwhile.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let check = || if holds() { Ok(()) } else { Err("still not".to_owned()) };
    tokio::task::block_in_place(|| limiter_lab::eventually(what, PATIENCE, check));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_protocol_hears_its_line_and_then_the_end() {
    let table = [
        (Protocol::Smtp, "127.0.0.1", LINE),
        (
            Protocol::Smtp,
            "::1",
            "421 4.7.0 mx.example.org Too many connections (8 of 8) from this IP [IPv6:::1], close one or wait\r\n",
        ),
        (
            Protocol::Imap,
            "127.0.0.1",
            "* BYE [UNAVAILABLE] Too many connections (8 of 8) from this IP [127.0.0.1], close one or wait\r\n",
        ),
        (
            Protocol::Imap,
            "::1",
            "* BYE [UNAVAILABLE] Too many connections (8 of 8) from this IP [::1], close one or wait\r\n",
        ),
        (
            Protocol::Pop3,
            "127.0.0.1",
            "-ERR [SYS/TEMP] Too many connections (8 of 8) from this IP [127.0.0.1], close one or wait\r\n",
        ),
        (
            Protocol::Sieve,
            "127.0.0.1",
            "BYE (TRYLATER) \"Too many connections (8 of 8) from this IP [127.0.0.1], close one or wait\"\r\n",
        ),
    ];
    for (protocol, host, line) in table {
        let greeter = start(Service { protocol }, Bounds::default());
        assert_eq!(heard(&connect(host, greeter.port)).as_deref(), Ok(line), "{host}");
        greeter.counts(Snapshot { greeted: 1, ..Snapshot::default() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_the_number_that_its_connection_bears() {
    for count in [1, 8, 999_999, 1_000_000] {
        for host in ["127.0.0.1", "::1"] {
            let grounds = Grounds { reason: Reason::Total, count, limit: count };
            let greeter = start_plain(Some(SMTP), Some(grounds), Bounds::default());
            let line = heard(&connect(host, greeter.port)).unwrap();
            assert!(
                line.contains(&format!(" Too many connections ({count} of {count}) to this service, ")),
                "{line}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_at_a_port_may_change_while_the_greeter_runs() {
    let greeter = start(SMTP, Bounds::default());
    assert_eq!(greeter.hears().as_deref(), Ok(LINE));
    let imap = Service { protocol: Protocol::Imap };
    greeter.settings.set_words([(greeter.port, imap)].into_iter().collect(), words());
    eventually("it is IMAP", || greeter.hears().is_ok_and(|line| line.starts_with("* BYE ")));
    greeter.settings.set_words(Services::default(), words());
    eventually("nothing is served", || greeter.hears() == Err(ErrorKind::ConnectionReset));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_told_is_reset() {
    for (service, grounds) in [(None, Some(GROUNDS)), (Some(SMTP), None)] {
        let greeter = start_plain(service, grounds, Bounds::default());
        assert_eq!(greeter.hears(), Err(ErrorKind::ConnectionReset));
        let unexplained = u64::from(grounds.is_none());
        greeter.counts(Snapshot { reset: 1, unexplained, ..Snapshot::default() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_what_the_client_got() {
    let noted = |greeter: &Running| {
        let mut lines = Vec::new();
        eventually("the refusal is noted", || {
            lines = greeter.log.lines(Instant::now());
            !lines.is_empty()
        });
        match lines.as_slice() {
            [LogLine::Source(Refused { answer, .. }, 0)] => *answer,
            other => panic!("{other:?}"),
        }
    };
    let said = start(SMTP, Bounds::default());
    assert_eq!(said.hears().as_deref(), Ok(LINE));
    assert_eq!(noted(&said), Answer::Reply);
    let settings = Settings::default();
    let alert = |port| settings.set_tls(vec![(vec![port], Vec::new())]);
    let alerts = start_with(Some(SMTP), Some(GROUNDS), settings.clone(), alert, Bounds::default());
    let mut bytes = Vec::new();
    alerts.connect().read_to_end(&mut bytes).unwrap();
    assert_eq!((bytes.as_slice(), noted(&alerts)), (&tls::REFUSED[..], Answer::Alert));
    alerts.counts(Snapshot { alerts: 1, ..Snapshot::default() });
    // The kernel takes nothing for this one any more.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let resets = start_plain(None, None, Bounds::default());
    resets.settings.set_words([(address.port(), SMTP)].into_iter().collect(), words());
    eventually("it serves", || resets.teller.is_there());
    let client = connect("127.0.0.1", address.port());
    let (served, _) = listener.accept().unwrap();
    bear(&served, GROUNDS).unwrap();
    served.shutdown(Shutdown::Write).unwrap();
    resets.teller.tell(&served);
    drop(served);
    assert_eq!(noted(&resets), Answer::Reset);
    resets.counts(Snapshot { reset: 1, ..Snapshot::default() });
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_before_it_reads_hears_the_line_and_no_reset() {
    for _ in 0..10 {
        let greeter = start(SMTP, Bounds { connections: 1, ..Bounds::default() });
        let mut client = greeter.connect();
        for _ in 0..20 {
            client.write_all(&[b'x'; 100]).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        // The one place is free again, so the connection is closed, and the reply still unread.
        greeter.has_room();
        assert_eq!(heard(&client).as_deref(), Ok(LINE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_neither_reads_nor_closes_gives_its_place_back_in_time() {
    assert_eq!(
        Bounds::default(),
        Bounds {
            connections: 1024,
            per_source: 128,
            time: Duration::from_secs(2),
            bytes: 4096,
            handshakes: 256,
            handshakes_per_source: 16,
            handshakes_per_second: 200,
            handshakes_at_once: 50,
            handshake_time: Duration::from_secs(10),
            handshake_bytes: 16_384,
        }
    );
    let bounds = Bounds { connections: 1, ..Bounds::default() };
    let greeter = start(SMTP, bounds);
    let start = Instant::now();
    let idle = greeter.connect();
    eventually("the idle client is greeted", || greeter.totals.snapshot().greeted == 1);
    assert_eq!(greeter.hears(), Err(ErrorKind::ConnectionReset), "there is one place");
    greeter.has_room();
    let took = start.elapsed();
    assert!((bounds.time..2 * bounds.time).contains(&took), "{took:?}");
    assert_eq!(heard(&idle).as_deref(), Ok(LINE), "what was said is still there to read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_stop_sending_is_not_listened_to() {
    let bounds = Bounds { connections: 1, time: 4 * PATIENCE, ..Bounds::default() };
    let greeter = start(SMTP, bounds);
    let mut flood = greeter.connect();
    let flooding = tokio::task::spawn_blocking(move || while flood.write_all(&[b'x'; 4096]).is_ok() {});
    flooding.await.unwrap();
    greeter.has_room();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_2000_connections_at_once_1024_are_greeted_and_the_others_reset() {
    allow_many_files();
    let bounds = Bounds { time: 4 * PATIENCE, per_source: 1024, ..Bounds::default() };
    let greeter = start(SMTP, bounds);
    let connect = |_| {
        tokio::task::spawn_blocking({
            let port = greeter.port;
            move || {
                let client = connect("127.0.0.1", port);
                let heard = heard(&client);
                (client, heard)
            }
        })
    };
    let clients: Vec<_> = (0..2000).map(connect).collect();
    let mut held = Vec::new();
    let (mut told, mut reset) = (0, 0);
    for client in clients {
        let (client, heard) = client.await.unwrap();
        held.push(client);
        match heard.as_deref() {
            Ok(LINE) => told += 1,
            Err(ErrorKind::ConnectionReset) => reset += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((told, reset), (1024, 976));
    greeter.counts(Snapshot { greeted: 1024, dropped_full: 976, ..Snapshot::default() });
    drop(held);
    eventually("places are free", || greeter.hears().as_deref() == Ok(LINE));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_told_to_stop_it_closes_the_listener_and_lets_the_last_client_hear() {
    let Running { port, totals, stop, serve, .. } = start(SMTP, Bounds::default());
    let last = connect("127.0.0.1", port);
    eventually("the last client is greeted", || totals.snapshot().greeted == 1);
    stop.send(true).unwrap();
    eventually("the listener is closed", || Client::connect(("127.0.0.1", port)).is_err());
    assert!(!serve.is_finished(), "the last client has not closed");
    assert_eq!(heard(&last).as_deref(), Ok(LINE));
    drop(last);
    serve.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_when_nobody_is_left_to_stop_it() {
    let Running { stop, serve, .. } = start(SMTP, Bounds::default());
    drop(stop);
    serve.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_never_has_the_greeter_for_itself() {
    let bounds = Bounds { connections: 8, per_source: 2, time: 4 * PATIENCE, ..Bounds::default() };
    let greeter = start(SMTP, bounds);
    let connect = |_| Client::connect(("127.0.0.1", greeter.port)).ok();
    let clients: Vec<Client> = (0..20).filter_map(connect).collect();
    for client in &clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let told = clients.iter().filter(|client| heard(client).as_deref() == Ok(LINE)).count();
    assert_eq!(told, 2, "the others are reset");
    let other = super::tests::connect("::1", greeter.port);
    assert!(heard(&other).is_ok_and(|line| line.starts_with("421 ")), "another source is told");
    greeter.counts(Snapshot { greeted: 3, dropped_full: 18, ..Snapshot::default() });
    drop(clients);
    greeter.has_room();
}

/// In a process of its own, because what runs out is the process's.
#[test]
fn out_of_descriptors_it_resets_and_recovers() {
    const CHILD: &str = "LIMITER_TEST_IS_OUT_OF_DESCRIPTORS";
    if std::env::var_os(CHILD).is_none() {
        let name = std::thread::current().name().unwrap().to_owned();
        let mut again = Command::new(std::env::current_exe().unwrap());
        let output = again.args(["--exact", &name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    // The client is connected to the backlog before the last descriptor goes.
    let listener = Listener::at(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
    let port = listener.address().port();
    let client = connect("127.0.0.1", port);
    bear(&listener, GROUNDS).unwrap();
    let settings = Settings::default();
    settings.set_words([(port, SMTP)].into_iter().collect(), words());
    let totals = Totals::new().unwrap();
    let (ours, orders) = channel::pair().unwrap();
    let (_answers, questions) = channel::pair().unwrap();
    let daemon = Daemon { orders, reader: Reader::new(), asker: tls::Asker::new(questions) };
    let setup = Setup::of(&settings.get(), Bounds::default(), false);
    let listener = listener.as_fd().try_clone_to_owned().unwrap().into();
    let mut event_loop = EventLoop::new(listener, daemon, &setup, totals.clone()).unwrap();
    let files: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    let serves = std::thread::spawn(move || event_loop.run());
    assert_eq!(heard(&client), Err(ErrorKind::ConnectionReset), "nobody waits");
    let is_counted = || if totals.snapshot().accept_errors == 1 { Ok(()) } else { Err("not yet".to_owned()) };
    limiter_lab::eventually("it is counted", PATIENCE, is_counted);
    drop(files);
    assert_eq!(heard(&connect("127.0.0.1", port)).as_deref(), Ok(LINE));
    let (notice, _) = Reader::new().receive::<Notice>(&ours, RecvFlags::empty()).unwrap().unwrap();
    assert_eq!(notice, Notice::CannotAccept { waits: false, errno: libc::EMFILE });
    // Nobody gives it orders any more.
    drop(ours);
    serves.join().unwrap().unwrap();
}

fn allow_many_files() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
