// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The shield on network devices: where it should be, as they come and go, and where it cannot be.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::tproxy::firewall;
use limiter_lab::command::run;
use limiter_lab::xdp::{self, Constant};
use limiter_lab::{
    Answer, Lab, Limiter, SOON, Sink, V4, V6, client, eventually, same, skip_without, sockets,
};

/// Long enough for a SYN that is repeated once.
const A_WHILE: Duration = Duration::from_millis(1500);

fn answer(lab: &Lab, source: IpAddr) -> Answer {
    let to = if source.is_ipv4() { V4.port(25) } else { V6.port(25) };
    lab.client.run(|| client::answer(source, to, A_WHILE).1)
}

/// Interface and mode of each attachment.
fn attachments(limiter: &Limiter) -> Vec<(String, String)> {
    let status = limiter.json(&["status"]);
    let attachments = status["shield"].as_array().expect("a list of attachments").clone();
    let text = |attachment: &Value, key: &str| attachment[key].as_str().expect("text").to_owned();
    attachments.iter().map(|attachment| (text(attachment, "interface"), text(attachment, "mode"))).collect()
}

#[track_caller]
fn comes_to(limiter: &Limiter, expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|&(name, mode)| (name.to_owned(), mode.to_owned())).collect();
    eventually("the shield is where it should be", SOON, || {
        same("attachments", &attachments(limiter), &expected)
            .map_err(|complaint| format!("{complaint}\n{}", limiter.log()))
    });
}

/// Why the shield is not there, or not native.
fn why(limiter: &Limiter, interface: &str) -> String {
    let status = limiter.json(&["status"]);
    let attachments = status["shield"].as_array().expect("a list of attachments");
    let attachment =
        attachments.iter().find(|attachment| attachment["interface"] == interface).expect("a place");
    attachment["why"].as_str().unwrap_or_default().to_owned()
}

fn bpftool(line: &str) -> String {
    let mut command = Command::new("bpftool");
    command.args(line.split_whitespace());
    run(command).unwrap()
}

/// The XDP programs in the mail host's namespace, by device.
fn attached(lab: &Lab) -> Value {
    let mut command = lab.host.command("bpftool");
    command.args(["--json", "net"]);
    let net: Value = serde_json::from_str(&run(command).unwrap()).expect("JSON");
    net[0]["xdp"].clone()
}

/// How many links of the shield are pinned.
fn pins(limiter: &Limiter) -> usize {
    let pins = std::fs::read_dir(limiter.pins()).expect("it is loaded");
    pins.filter(|pin| {
        pin.as_ref().is_ok_and(|pin| pin.file_name().to_string_lossy().starts_with("link-shield-"))
    })
    .count()
}

/// Id of the link pinned for the only device, and of its program.
fn link(limiter: &Limiter) -> (u64, u64) {
    let pins = std::fs::read_dir(limiter.pins()).expect("it is loaded");
    let mut links = pins
        .map(|pin| pin.expect("a pin").path())
        .filter(|pin| pin.to_string_lossy().contains("/link-shield-"));
    let pin = links.next().expect("a link");
    assert!(links.next().is_none(), "only one");
    let shown: Value =
        serde_json::from_str(&bpftool(&format!("--json link show pinned {}", pin.display()))).expect("JSON");
    (shown["id"].as_u64().expect("an id"), shown["prog_id"].as_u64().expect("an id"))
}

/// On the labs' wire; `auto` leaves pairs within one machine alone.
const ON_THE_WIRE: &str = "interfaces = [\"wire\"]\n";

const DENIED: &str = "[[rule]]\nnetwork = \"198.51.100.7\"\ndeny = true\n\
                      [[rule]]\nnetwork = \"2001:db8:7::/64\"\ndeny = true\n";

/// The denied sources get nothing, and the others what they want.
fn refuses(lab: &Lab, limiter: &Limiter) {
    for family in [V4, V6] {
        let [denied, other, _] = family.sources;
        assert_eq!(answer(lab, denied), Answer::Silence, "a denied source is told nothing");
        drop(lab.served(other, family.port(25)));
    }
    sockets::settled(&lab.host, limiter, 25);
}

#[test]
fn it_drops_who_is_denied_before_anything_else_sees_them() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, &format!("{ON_THE_WIRE}{DENIED}"));
    assert_eq!(attachments(&limiter), [("wire".to_owned(), "generic".to_owned())], "{}", limiter.log());
    let text = limiter.ok(&["status"]);
    assert!(
        text.contains(
            "\nshield on wire: generic (on a veth the native mode slows all traffic more); each incoming packet"
        ),
        "{text}"
    );
    refuses(&lab, &limiter);
    let (dropped, refused) = (limiter.counter("smtp", "dropped"), limiter.counter("smtp", "refused_denied"));
    assert!(dropped >= 2, "each SYN once: {dropped}");
    assert_eq!(refused, dropped, "by the shield alone");
    assert_eq!(limiter.counter("smtp", "held"), 0, "nothing came as far as the gate");
}

#[test]
fn in_the_driver_it_drops_the_same() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, &format!("interfaces = []\n{DENIED}"));
    // The only native mode at hand that frames can be sent through is the veth's, which the daemon leaves alone.
    let mut command = lab.host.command("bpftool");
    command
        .args(["net", "attach", "xdpdrv", "pinned"])
        .arg(limiter.pins().join("shield"))
        .args(["dev", "wire"]);
    run(command).unwrap();
    refuses(&lab, &limiter);
    assert!(limiter.counter("smtp", "dropped") >= 2);
    assert_eq!(limiter.counter("smtp", "held"), 0, "nothing came as far as the gate");
}

#[test]
fn without_it_the_other_programs_refuse_the_same() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, &format!("interfaces = []\n{DENIED}"));
    assert_eq!(attachments(&limiter), []);
    assert_eq!(attached(&lab), json!([]));
    refuses(&lab, &limiter);
    assert_eq!(limiter.counter("smtp", "dropped"), 0);
    assert!(limiter.counter("smtp", "refused_denied") >= 2);
    assert_eq!(limiter.json(&["status"])["warnings"], json!([]), "that is what was asked for");
}

#[test]
fn a_connection_that_was_there_when_its_source_was_denied_or_banned_goes_on() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, ON_THE_WIRE);
    for family in [V4, V6] {
        let source = family.source();
        for (begin, end) in [("deny", "forget"), ("ban", "unban")] {
            let session = lab.served(source, family.port(25));
            limiter.ok(&[begin, &source.to_string()]);
            let dropped = limiter.counter("smtp", "dropped");
            for _ in 0..3 {
                let said = client::ask(&session, "NOOP", SOON);
                assert_eq!(said, Answer::Line("250 2.0.0 Ok".to_owned()), "{begin} {source}");
            }
            assert_eq!(limiter.counter("smtp", "dropped"), dropped);
            assert_eq!(answer(&lab, source), Answer::Silence);
            assert!(limiter.counter("smtp", "dropped") > dropped);
            let bye = client::ask(&session, "QUIT", SOON);
            assert_eq!(bye, Answer::Line("221 2.0.0 Bye".to_owned()), "its end comes through, too");
            drop(session);
            sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
            limiter.ok(&[end, &source.to_string()]);
            drop(lab.served(source, family.port(25)));
            sockets::agree(&lab.host, &limiter, ("smtp", 25), source, 0);
        }
    }
}

/// Has the wire lead to the host by way of a bridge.
fn bridge(lab: &Lab) {
    let addresses: Vec<String> = [V4.host, V6.host].iter().map(ToString::to_string).collect();
    lab.host_ip(&["link", "add", "bridge", "type", "bridge"]);
    lab.host_ip(&["link", "set", "bridge", "address", "02:00:00:00:00:01", "addrgenmode", "none", "up"]);
    lab.host_ip(&["link", "set", "wire", "master", "bridge"]);
    for (address, family) in addresses.iter().zip([V4, V6]) {
        let at_once: &[&str] = if family.host.is_ipv6() { &["nodad"] } else { &[] };
        lab.host_ip(&["addr", "del", address, "dev", "wire"]);
        lab.host_ip(&[&["addr", "add", address, "dev", "bridge"], at_once].concat());
        for source in family.sources {
            lab.host_ip(&["route", "replace", &source.to_string(), "dev", "bridge", "src", address]);
        }
    }
}

/// Serves at a port to those who come by the bridge.
fn serve_on_bridge(lab: &Lab, port: u16) -> Sink {
    let listener = lab.host.run(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        socket.set_only_v6(false).unwrap();
        socket.bind_device(Some(b"bridge")).unwrap();
        socket.bind(&SocketAddr::from(([0_u16; 8], port)).into()).unwrap();
        socket.listen(16).unwrap();
        socket
    });
    Sink::serve(listener.into())
}

/// The shield sees packets before the firewall translates them, and below a bridge.
#[test]
fn a_connection_goes_on_when_its_source_is_banned_also_behind_a_redirection_or_a_bridge() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    bridge(&lab);
    let chain = "chain in {\n type nat hook prerouting priority dstnat\n tcp dport 143 redirect to :1143\n}";
    firewall(&lab, &format!("table inet translated {{\n{chain}\n}}\n"));
    let _redirected = Sink::start(&lab, 1143);
    let _bound = serve_on_bridge(&lab, 25);
    let config = format!("{ON_THE_WIRE}[service.imap]\nports = [143, 993, 1143]\n");
    let limiter = Limiter::start_with(&lab, &config);
    assert_eq!(attachments(&limiter), [("wire".to_owned(), "generic".to_owned())], "{}", limiter.log());
    for family in [V4, V6] {
        let source = family.source();
        for (service, port, counted) in [("imap", 143, 1143), ("smtp", 25, 25)] {
            for (begin, end) in [("deny", "forget"), ("ban", "unban")] {
                let session = lab.served(source, family.port(port));
                limiter.ok(&[begin, &source.to_string()]);
                for _ in 0..3 {
                    let said = client::ask(&session, "NOOP", SOON);
                    assert_eq!(said, Answer::Line("250 2.0.0 Ok".to_owned()), "{begin} {source} at {port}");
                }
                let dropped = limiter.counter(service, "dropped");
                let refused = lab.client.run(|| client::answer(source, family.port(port), A_WHILE).1);
                assert_eq!(refused, Answer::Silence);
                assert!(limiter.counter(service, "dropped") > dropped, "{begin} {source} at {port}");
                let bye = client::ask(&session, "QUIT", SOON);
                assert_eq!(bye, Answer::Line("221 2.0.0 Bye".to_owned()), "its end comes through, too");
                drop(session);
                sockets::agree(&lab.host, &limiter, (service, counted), source, 0);
                limiter.ok(&[end, &source.to_string()]);
            }
        }
    }
}

/// What the shield lets through of a banned source, the gate holds back.
#[test]
fn a_handshake_that_began_before_its_source_was_banned_becomes_no_connection() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, ON_THE_WIRE);
    for family in [V4, V6] {
        let source = family.source();
        // It does not hear the SYN-ACK, which comes again.
        lab.deafen(source);
        let knocking = lab.client.run(|| client::knock(source, family.port(25)));
        eventually("the handshake has begun", SOON, || {
            if sockets::half_open(&lab.host, 25).is_empty() { Err("no handshake".to_owned()) } else { Ok(()) }
        });
        limiter.ok(&["ban", &source.to_string(), "--service", "smtp"]);
        let held = limiter.counter("smtp", "held");
        lab.undeafen(source);
        eventually("its ACK is held back", SOON, || {
            if limiter.counter("smtp", "held") > held { Ok(()) } else { Err("not yet".to_owned()) }
        });
        assert_eq!(client::first_line(&knocking, A_WHILE), Answer::Reset);
        assert_eq!(sink.tally(source).ever, 0, "the mail daemon has not seen it");
    }
    sockets::settled(&lab.host, &limiter, 25);
}

#[test]
fn where_another_program_is_status_says_so_and_it_is_attached_when_that_is_gone() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    Constant::new(xdp::PASS).attach(&lab.host, "wire");
    let limiter = Limiter::start_with(&lab, &format!("{ON_THE_WIRE}{DENIED}"));
    assert_eq!(attachments(&limiter), [("wire".to_owned(), "none".to_owned())]);
    assert!(why(&limiter, "wire").contains("another XDP program"));
    let status = limiter.json(&["status"]);
    let warning = status["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.starts_with("the shield is not on wire: another XDP program"), "{status:#}");
    assert_eq!(status["in_force"], true);
    assert_eq!(limiter.log().matches("the shield is not on wire").count(), 1, "{}", limiter.log());
    refuses(&lab, &limiter);
    assert_eq!(limiter.counter("smtp", "dropped"), 0);
    lab.host_ip(&["link", "set", "wire", "xdp", "off"]);
    comes_to(&limiter, &[("wire", "generic")]);
    refuses(&lab, &limiter);
    assert!(limiter.counter("smtp", "dropped") >= 2);
}

#[test]
fn it_follows_interfaces_that_come_and_go() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start_with(&lab, "interfaces = [\"late\", \"wire\"]\n");
    assert_eq!(
        attachments(&limiter),
        [("late".to_owned(), "none".to_owned()), ("wire".to_owned(), "generic".to_owned())]
    );
    assert_eq!(why(&limiter, "late"), "no such interface");
    // A bridge's driver has no native mode.
    lab.host_ip(&["link", "add", "late", "type", "bridge"]);
    comes_to(&limiter, &[("late", "generic"), ("wire", "generic")]);
    assert_eq!(why(&limiter, "late"), "its driver has no native mode");
    assert_eq!(pins(&limiter), 2);
    lab.host_ip(&["link", "del", "late"]);
    comes_to(&limiter, &[("late", "none"), ("wire", "generic")]);
    eventually("its pin is removed", SOON, || same("pins", &pins(&limiter), &1));
    // Without an Ethernet header in front, nothing could be read.
    lab.host_ip(&["tuntap", "add", "late", "mode", "tun"]);
    eventually("it is looked at", SOON, || {
        same("why", &why(&limiter, "late").as_str(), &"its packets have no Ethernet header")
    });
    lab.host_ip(&["link", "del", "late"]);
    // A tap's driver has one.
    lab.host_ip(&["tuntap", "add", "late", "mode", "tap"]);
    comes_to(&limiter, &[("late", "native"), ("wire", "generic")]);
    lab.host_ip(&["link", "del", "late"]);
    comes_to(&limiter, &[("late", "none"), ("wire", "generic")]);
    // A veth's, too, but it costs too much.
    lab.host_ip(&["link", "add", "late", "type", "veth", "peer", "name", "peer"]);
    comes_to(&limiter, &[("late", "generic"), ("wire", "generic")]);
    // It takes the shield along, until the daemon sees that it is gone.
    lab.host_ip(&["link", "set", "late", "netns", lab.client.name()]);
    comes_to(&limiter, &[("late", "none"), ("wire", "generic")]);
    eventually("its pin is removed", SOON, || same("pins", &pins(&limiter), &1));
    let mut command = lab.client.command("bpftool");
    command.args(["--json", "net"]);
    let net: Value = serde_json::from_str(&run(command).unwrap()).expect("JSON");
    assert_eq!(net[0]["xdp"], json!([]), "nothing of it is left there");
}

#[test]
fn by_itself_it_leaves_alone_where_other_traffic_would_pay_and_the_same_are_refused() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    for name in ["inside", "outside"] {
        lab.host_ip(&["link", "add", name, "type", "bridge"]);
        lab.host_ip(&["link", "set", name, "up"]);
    }
    // A tap has a native mode, too, as virtual machines' interfaces have.
    lab.host_ip(&["tuntap", "add", "virtual", "mode", "tap"]);
    lab.host_ip(&["link", "set", "virtual", "up"]);
    for (name, address) in
        [("inside", "10.1.2.3/24"), ("outside", "192.0.2.100/32"), ("virtual", "192.0.2.101/32")]
    {
        lab.host_ip(&["addr", "add", address, "dev", name]);
    }
    let limiter = Limiter::start_with(&lab, DENIED);
    // Private addresses face nobody.
    comes_to(&limiter, &[("outside", "none"), ("virtual", "none"), ("wire", "none")]);
    assert_eq!(attached(&lab), json!([]), "nothing is copied, and no driver is touched");
    lab.host_ip(&["route", "add", "default", "via", "10.1.2.1", "dev", "inside"]);
    comes_to(&limiter, &[("inside", "none"), ("outside", "none"), ("virtual", "none"), ("wire", "none")]);
    assert_eq!(attached(&lab), json!([]));
    for (interface, driver) in [("outside", "bridge"), ("virtual", "tun"), ("wire", "veth")] {
        let why = why(&limiter, interface);
        assert!(why.contains(&format!("skips the driver {driver}")), "{why}");
    }
    let status = limiter.json(&["status"]);
    assert_eq!(status["warnings"], json!([]), "that is as it should be");
    assert!(!limiter.log().contains("WARN"), "{}", limiter.log());
    refuses(&lab, &limiter);
    assert_eq!(limiter.counter("smtp", "dropped"), 0);
    // By name it is attached, and status says what that costs.
    limiter.configure(&format!("interfaces = [\"outside\", \"virtual\", \"wire\"]\n{DENIED}"));
    limiter.ok(&["reload"]);
    comes_to(&limiter, &[("outside", "generic"), ("virtual", "native"), ("wire", "generic")]);
    let text = limiter.ok(&["status"]);
    for line in [
        "shield on wire: generic (on a veth the native mode slows all traffic more); each incoming packet is copied",
        "shield on virtual: native; its cost for other traffic with the driver tun is unknown",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // And taken away again, whatever its mode.
    limiter.configure(DENIED);
    limiter.ok(&["reload"]);
    comes_to(&limiter, &[("inside", "none"), ("outside", "none"), ("virtual", "none"), ("wire", "none")]);
    assert_eq!(attached(&lab), json!([]));
    assert_eq!(pins(&limiter), 0);
}

#[test]
fn what_an_older_limiter_has_attached_by_itself_is_taken_away() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let mut limiter = Limiter::start_with(&lab, ON_THE_WIRE);
    assert_eq!(attachments(&limiter), [("wire".to_owned(), "generic".to_owned())], "{}", limiter.log());
    limiter.kill();
    limiter.configure("");
    limiter.run();
    comes_to(&limiter, &[("wire", "none")]);
    assert_eq!(attached(&lab), json!([]));
}

#[test]
fn for_a_vlan_it_is_the_device_below_that_counts() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    lab.host_ip(&["link", "add", "below", "type", "bridge"]);
    lab.host_ip(&["link", "set", "below", "up"]);
    let vlan = ["link", "add", "link", "below", "name", "below.7", "type", "vlan", "id", "7"];
    let mut command = Command::new("ip");
    command.args(["-n", lab.host.name()]).args(vlan);
    if let Err(complaint) = run(command) {
        assert!(complaint.to_string().contains("Unknown device type"), "{complaint:#}");
        return skip_without("CONFIG_VLAN_8021Q");
    }
    lab.host_ip(&["link", "set", "below.7", "up"]);
    lab.host_ip(&["addr", "add", "192.0.2.100/32", "dev", "below.7"]);
    let limiter = Limiter::start_with(&lab, "");
    comes_to(&limiter, &[("below", "none"), ("wire", "none")]);
}

#[test]
fn a_reload_attaches_and_detaches() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, &format!("{ON_THE_WIRE}{DENIED}"));
    limiter.configure(&format!("interfaces = []\n{DENIED}"));
    limiter.ok(&["reload"]);
    comes_to(&limiter, &[]);
    assert_eq!(attached(&lab), json!([]));
    assert_eq!(pins(&limiter), 0);
    refuses(&lab, &limiter);
    assert_eq!(limiter.counter("smtp", "dropped"), 0);
    limiter.configure(&format!("interfaces = [\"wire\"]\n{DENIED}"));
    limiter.ok(&["reload"]);
    comes_to(&limiter, &[("wire", "generic")]);
    refuses(&lab, &limiter);
    assert!(limiter.counter("smtp", "dropped") >= 2);
}

#[test]
fn it_works_without_the_daemon_and_the_next_one_takes_it_over() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let mut limiter = Limiter::start_with(&lab, &format!("{ON_THE_WIRE}{DENIED}"));
    let (id, program) = link(&limiter);
    limiter.kill();
    let dropped = limiter.counter("smtp", "dropped");
    refuses(&lab, &limiter);
    assert!(limiter.counter("smtp", "dropped") >= dropped + 2);
    assert_eq!(attachments(&limiter), [("wire".to_owned(), "generic".to_owned())]);
    limiter.run();
    let (same_id, another) = link(&limiter);
    assert_eq!(same_id, id, "it was attached all the time");
    assert_ne!(another, program, "the program is that of the new daemon");
    assert_eq!(attachments(&limiter), [("wire".to_owned(), "generic".to_owned())]);
    refuses(&lab, &limiter);
    // Someone detaches it.
    let pin = std::fs::read_dir(limiter.pins()).unwrap().map(|pin| pin.unwrap().path());
    let pin = pin.into_iter().find(|pin| pin.to_string_lossy().contains("link-shield")).unwrap();
    limiter.kill();
    bpftool(&format!("link detach pinned {}", pin.display()));
    assert_eq!(attachments(&limiter), [("wire".to_owned(), "none".to_owned())]);
    refuses(&lab, &limiter);
    limiter.run();
    assert_eq!(attachments(&limiter), [("wire".to_owned(), "generic".to_owned())]);
    bpftool(&format!("link detach pinned {}", pin.display()));
    comes_to(&limiter, &[("wire", "generic")]);
    assert_ne!(attached(&lab), json!([]));
    limiter.stop();
    limiter.ok(&["unload"]);
    assert_eq!(attached(&lab), json!([]));
}

#[test]
fn behind_the_driver_it_drops_the_same() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    // Its driver has no native mode.
    bridge(&lab);
    let limiter = Limiter::start_with(&lab, &format!("interfaces = [\"bridge\"]\n{DENIED}"));
    assert_eq!(attachments(&limiter), [("bridge".to_owned(), "generic".to_owned())]);
    refuses(&lab, &limiter);
    assert!(limiter.counter("smtp", "dropped") >= 2);
    assert_eq!(limiter.counter("smtp", "held"), 0);
}
