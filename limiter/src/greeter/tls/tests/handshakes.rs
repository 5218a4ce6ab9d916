// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What clients hear, in every way to shake hands or not to, and within which bounds.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_said_inside_tls_in_either_version_and_family() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    let mut said = 0;
    for version in [&TLS12, &TLS13] {
        for (address, line) in
            [("127.0.0.1", LINE.to_owned()), ("::1", LINE.replace("127.0.0.1", "IPv6:::1"))]
        {
            let config = host.client("a", &[version]);
            let (text, (spoken, _)) = ask(connect(address, greeter.port), &config, NAME).unwrap();
            assert_eq!((text, spoken), (line, version.version));
            said += 1;
            greeter.counts(Snapshot { greeted: said, greeted_by_tls: said, ..Snapshot::default() });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_again_brings_a_ticket_and_costs_no_signature() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    for version in [&TLS12, &TLS13] {
        let config = host.client("a", &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (text, (_, how)) = ask(connect("127.0.0.1", greeter.port), &config, NAME).unwrap();
            assert_eq!((text.as_str(), how), (LINE, kind), "{version:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_the_client_gets_an_alert_and_a_clean_end() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&[], Bounds::default());
    assert_eq!(host.hears(&greeter, "a", NAME), Err(DENIED.to_owned()));
    greeter.counts(Snapshot { alerts: 1, ..Snapshot::default() });
    // Who says nothing hears it as well, and so does who says much before it listens.
    let silent = connect("127.0.0.1", greeter.port);
    let mut loud = connect("127.0.0.1", greeter.port);
    loud.write_all(&[b'x'; 2000]).unwrap();
    for mut client in [silent, loud] {
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, REFUSED);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_chosen_by_the_name_that_the_client_asks_for() {
    let mut host = Host::new();
    for (file, names) in
        [("a", &["a.example.org"][..]), ("b", &["b.example.org", "*.example.net"]), ("c", &[NAME])]
    {
        host.certificate(file, names);
    }
    let greeter = host.greeter(&["a", "b", "c"], Bounds::default());
    for (file, name) in [
        ("a", "a.example.org"),
        ("b", "b.example.org"),
        ("b", "imap.example.net"),
        ("b", "IMAP.Example.NET"),
        ("c", NAME),
    ] {
        assert_eq!(host.hears(&greeter, file, name).as_deref(), Ok(LINE), "{name}");
    }
    // For another name, and for none at all, it is the first: a client that insists on names says so itself.
    for other in ["other.example.org", "127.0.0.1"] {
        let error = host.hears(&greeter, "a", other).unwrap_err();
        assert!(error.contains("not valid for"), "{other}: {error}");
    }
    let error = host.hears(&greeter, "c", "a.b.example.net").unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_no_tls_is_answered_and_let_go() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds { connections: 1, ..Bounds::default() });
    for said in [
        &b"EHLO client.example.org\r\n"[..],
        b"a LOGIN anna secret\r\n",
        &[0; 300],
        &[22, 3, 1, 0xff, 0xff, 1],
    ] {
        let mut client = TcpStream::connect(("127.0.0.1", greeter.port)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(said).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        let end = client.read_to_end(&mut bytes);
        // An alert where it can be told that this is no TLS.
        assert!(end.is_err() || bytes.is_empty() || bytes[0] == 21, "{bytes:?}");
        drop(client);
        eventually("the one seat is free", || host.hears(&greeter, "a", NAME).as_deref() == Ok(LINE));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_says_hello_gets_an_alert_in_time_and_gives_its_seat_back() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let bounds = Bounds { handshake_time: Duration::from_millis(300), ..Bounds::default() };
    let greeter = host.greeter(&["a"], Bounds { connections: 1, ..bounds });
    let begun = Instant::now();
    let mut silent = connect("127.0.0.1", greeter.port);
    let mut bytes = Vec::new();
    silent.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, REFUSED);
    assert!(begun.elapsed() >= bounds.handshake_time, "{:?}", begun.elapsed());
    greeter.counts(Snapshot { failed_handshakes: 1, ..Snapshot::default() });
    eventually("its seat is free", || host.hears(&greeter, "a", NAME).as_deref() == Ok(LINE));
}

/// A client that has the only seat: the one before may have it for a moment more, and then this one is reset.
fn seated(greeter: &Running) -> TcpStream {
    let mut seated = None;
    eventually("it has the seat", || {
        let Ok(client) = TcpStream::connect(("127.0.0.1", greeter.port)) else { return false };
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let waits = client.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        seated = waits.then_some(client);
        waits
    });
    seated.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_hello_and_nothing_more_or_drips_or_floods_is_let_go_in_time() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let bounds = Bounds { handshake_time: Duration::from_millis(500), ..Bounds::default() };
    let greeter = host.greeter(&["a"], Bounds { connections: 1, ..bounds });
    let hello = || {
        let name = ServerName::try_from(NAME.to_owned()).unwrap();
        let mut connection = ClientConnection::new(host.client("a", &[&TLS13]), name).unwrap();
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).unwrap();
        hello
    };
    let is_free =
        || eventually("its seat is free", || host.hears(&greeter, "a", NAME).as_deref() == Ok(LINE));
    // Never reads.
    let mut deaf = seated(&greeter);
    deaf.write_all(&hello()).unwrap();
    is_free();
    // Says one byte after the other.
    let mut slow = seated(&greeter);
    for byte in hello() {
        if slow.write_all(&[byte]).is_err() {
            break;
        }
        std::thread::yield_now();
    }
    is_free();
    // Says a megabyte of what begins like a hello.
    let mut flood = seated(&greeter);
    let record = [&[22, 3, 1, 0x40, 0, 1, 0x00, 0xff, 0xff][..], &[0; 0x4000 - 4]].concat();
    while flood.write_all(&record).is_ok() {}
    is_free();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_speaks_before_it_listens_hears_the_reason() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter = host.greeter(&["a"], Bounds::default());
    let name = ServerName::try_from(NAME.to_owned()).unwrap();
    let mut connection = ClientConnection::new(host.client("a", &[&TLS13]), name).unwrap();
    let mut stream = connect("127.0.0.1", greeter.port);
    connection.writer().write_all(b"EHLO client.example.org\r\n").unwrap();
    while connection.is_handshaking() || connection.wants_write() {
        connection.complete_io(&mut stream).unwrap();
    }
    let mut text = String::new();
    rustls::Stream::new(&mut connection, &mut stream).read_to_string(&mut text).unwrap();
    assert_eq!(text, LINE);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_budget_the_client_gets_an_alert_and_a_moment_later_the_reason() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let bounds = Bounds { handshakes_per_second: 5, handshakes_at_once: 1, ..Bounds::default() };
    let greeter = host.greeter(&["a"], bounds);
    assert_eq!(host.hears(&greeter, "a", NAME).as_deref(), Ok(LINE));
    assert_eq!(host.hears(&greeter, "a", NAME), Err(DENIED.to_owned()));
    greeter.counts(Snapshot { greeted: 1, greeted_by_tls: 1, over_budget: 1, ..Snapshot::default() });
    eventually("there is budget", || host.hears(&greeter, "a", NAME).as_deref() == Ok(LINE));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_source_never_has_all_handshakes() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let greeter =
        host.greeter(&["a"], Bounds { handshakes: 4, handshakes_per_source: 2, ..Bounds::default() });
    let _silent: Vec<TcpStream> = (0..2).map(|_| connect("127.0.0.1", greeter.port)).collect();
    eventually("its handshakes go on", || host.hears(&greeter, "a", NAME) == Err(DENIED.to_owned()));
    let config = host.client("a", &[&TLS13]);
    assert!(ask(connect("::1", greeter.port), &config, NAME).is_ok(), "another source has its reply");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_told_to_stop_it_waits_for_no_handshake_longer_than_for_others() {
    let mut host = Host::new();
    host.certificate("a", &[NAME]);
    let bounds =
        Bounds { time: Duration::from_millis(200), handshake_time: 4 * PATIENCE, ..Bounds::default() };
    let Running { port, stop, serve, .. } = host.greeter(&["a"], bounds);
    let mut silent = connect("127.0.0.1", port);
    // Who comes later is told, so this one was accepted.
    let config = host.client("a", &[&TLS13]);
    assert!(ask(connect("127.0.0.1", port), &config, NAME).is_ok());
    stop.send(true).unwrap();
    let mut bytes = Vec::new();
    silent.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, REFUSED);
    drop(silent);
    tokio::time::timeout(PATIENCE, serve).await.unwrap().unwrap().unwrap();
}
