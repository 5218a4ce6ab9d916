// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How long a client is without a socket while it is taken over.

use std::time::{Duration, Instant};

use super::{
    super::repair::{Takeover, take_over},
    net::Lab,
    scene::{Scene, V4, V6},
};

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
#[ignore = "it measures, and takes a while: cargo test -p limiter --release -- --ignored --nocapture take_over_costs"]
fn what_a_take_over_costs() {
    const TIMES: usize = 200;
    let Some(lab) = Lab::new() else { return };
    for (name, way) in [("IPv4", V4), ("IPv6", V6)] {
        let (mut find, mut whole, mut gap, mut probe) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let scene = Scene::new(&lab, way);
            let (held, diag) = (&scene.held, &scene.diag);
            lab.host.run(|| {
                let started = Instant::now();
                scene.prober.probe(held).unwrap();
                probe.push(started.elapsed());
                let started = Instant::now();
                let found = diag.find(&held.tuple()).unwrap().unwrap();
                find.push(started.elapsed());
                let started = Instant::now();
                assert!(diag.destroy(&held.tuple(), found.cookie).unwrap());
                let _connection = take_over(held).unwrap();
                whole.push(started.elapsed());
            });
            drop(scene);
            let scene = Scene::new(&lab, way);
            let (held, diag) = (&scene.held, &scene.diag);
            lab.host.run(|| {
                let found = diag.find(&held.tuple()).unwrap().unwrap();
                let prepared = Takeover::prepare(held).unwrap();
                let started = Instant::now();
                assert!(diag.destroy(&held.tuple(), found.cookie).unwrap());
                let _connection = prepared.finish().unwrap();
                gap.push(started.elapsed());
            });
        }
        let [probe, find, whole, gap] = [probe, find, whole, gap].map(median);
        println!(
            "{name}: probe {probe:?}, find {find:?}, destroy and take over {whole:?}, prepared before {gap:?}"
        );
    }
}
