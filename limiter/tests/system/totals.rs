// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a service as a whole may hold, and the reserve of allowed sources.

use std::net::TcpStream;
use std::sync::Barrier;

use limiter_lab::client::dial;
use limiter_lab::{Answer, Lab, Limiter, SOON, Sink, V4, V6, eventually, same, sockets};

const CONFIG: &str = "
[service.smtp]
max_connections = 4
response = \"reply\"
max_total = 6
reserve = 1
";

fn total(limiter: &Limiter) -> u64 {
    let status = limiter.json(&["status"]);
    let services = status["services"].as_array().unwrap();
    services.iter().find(|service| service["name"] == "smtp").unwrap()["connections"].as_u64().unwrap()
}

#[test]
fn a_full_service_refuses_everyone_but_allowed_sources_within_the_reserve() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let _sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(&lab, CONFIG);
    let mut held: Vec<TcpStream> = (0..4).map(|_| lab.served(V4.source(), V4.port(25))).collect();
    held.extend((0..2).map(|_| lab.served(V6.source(), V6.port(25))));
    assert_eq!(total(&limiter), 6);
    for family in [V4, V6] {
        let stranger = family.sources[1];
        let Answer::Line(refusal) = lab.answer(stranger, family.port(25)) else { panic!("no refusal") };
        assert!(refusal.contains("Too many connections (6 of 6) to this service"), "{refusal}");
    }
    // The host itself is allowed from the start: it has the reserve, and no more.
    let own = |family: limiter_lab::Family| lab.host.run(|| dial(family.host, family.port(25), SOON));
    let within = own(V4).expect("the reserve is for it");
    assert_eq!(total(&limiter), 7);
    let Ok(beyond) = own(V6) else { panic!("a refusal is said to the host, too") };
    let Answer::Line(refusal) = limiter_lab::client::first_line(&beyond, SOON) else { panic!("no word") };
    assert!(refusal.starts_with("421 "), "{refusal}");
    assert_eq!(limiter.counter("smtp", "refused_total"), 3);

    drop((within, beyond));
    held.pop();
    eventually("a place is free", SOON, || same("total", &total(&limiter), &5));
    held.push(lab.served(V6.sources[1], V6.port(25)));
    drop(held);
    sockets::settled(&lab.host, &limiter, 25);
    assert_eq!(total(&limiter), 0);
}

#[test]
fn many_sources_at_once_never_hold_more_than_the_total() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let sink = Sink::start(&lab, 25);
    let limiter = Limiter::start_with(
        &lab,
        "[service.smtp]\nmax_connections = 6\nmax_total = 6\nresponse = \"reset\"\n",
    );
    let start = Barrier::new(6);
    let sources = [V4, V6].map(|family| family.sources.map(|source| (source, family.port(25))));
    for _round in 0..10 {
        let held: Vec<Vec<TcpStream>> = std::thread::scope(|scope| {
            let start = &start;
            let lab = &lab;
            let clients: Vec<_> = sources
                .as_flattened()
                .iter()
                .map(|&(source, smtp)| {
                    scope.spawn(move || {
                        lab.client.run(|| {
                            start.wait();
                            (0..4).filter_map(|_| dial(source, smtp, SOON).ok()).collect()
                        })
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let established = sockets::established(&lab.host, 25).len();
        assert!(established <= 6, "{established} at limit 6");
        let most: usize =
            sources.as_flattened().iter().map(|&(source, _)| sink.tally(source).peak).max().unwrap();
        assert!(most <= 6, "{most} of one source");
        drop(held);
        eventually("all are gone", SOON, || same("total", &total(&limiter), &0));
    }
    sockets::settled(&lab.host, &limiter, 25);
}
