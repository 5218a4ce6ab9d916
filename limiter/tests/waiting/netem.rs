// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The same burst over the kernel's own delay and loss (netem), where a kernel has it.

use std::net::IpAddr;
use std::time::Duration;

use crate::crowd::{Caller, Crowd};
use crate::figures::{ms, summary};
use crate::setup::{SMTP, Setup, TIDY, WAIT, all_is_well, gently, nothing_is_left, slack};
use limiter_lab::{Answer, Namespace, V4, V6, say, skip_without};

const LIMIT: usize = 3;
const CLIENTS: usize = 30;
const STAY: Duration = Duration::from_secs(1);
/// What a client may lose by segments of its own that were lost: a SYN (RFC 6298, 5.7), and one more.
const REPETITIONS: Duration = Duration::from_secs(4);

/// Delays what a host sends, and loses some of it; `false` where the kernel has no netem.
fn shape(host: &Namespace, one_way: Duration, loss_percent: u32) -> bool {
    let mut command = host.command("tc");
    command.args(["qdisc", "add", "dev", "wire", "root", "netem", "limit", "10000"]);
    command.args(["delay", &format!("{}us", one_way.as_micros())]);
    if loss_percent > 0 {
        command.args(["loss", &format!("{loss_percent}%")]);
    }
    command.stderr(std::process::Stdio::null()).status().expect("iproute2 is installed").success()
}

fn burst(rtt_ms: u64, loss_percent: u32) {
    let _machine = gently();
    let rtt = Duration::from_millis(rtt_ms);
    let Some(setup) = Setup::near(LIMIT as u32) else { return };
    for host in [&setup.lab.client, &setup.lab.host] {
        if !shape(host, rtt / 2, loss_percent) {
            return skip_without("CONFIG_NET_SCH_NETEM");
        }
    }
    let families = [V4, V6];
    let callers =
        families.map(|family| Caller::crowd(CLIENTS, family.source(), family.port(SMTP), STAY)).concat();
    let lost = if loss_percent == 0 { Duration::ZERO } else { REPETITIONS };
    let allowed = WAIT + 2 * rtt + slack() + lost;
    let patience = allowed + Duration::from_secs(2);
    let records = Crowd { callers, patience, again: None, link: None }.call(&setup.lab);
    let allowed = allowed + setup.noise();
    let mut complaints: Vec<String> = records
        .iter()
        .filter(|record| record.answer == Answer::Silence || record.silence() > allowed)
        .map(|record| format!("{} heard nothing for {}", record.local, ms(record.silence())))
        .collect();
    let sources: [IpAddr; 2] = families.map(|family| family.source());
    complaints.extend(sources.iter().filter_map(|source| setup.excess(*source)));
    for source in sources {
        let served = records.iter().filter(|record| record.local.ip() == source && record.served()).count();
        if served <= LIMIT {
            complaints.push(format!("{served} of {source} were served: nobody who waited got in"));
        }
    }
    let summary = format!("burst, netem, rtt {rtt_ms} ms, loss {loss_percent} %: {}", summary(&records));
    say(&summary);
    all_is_well(&complaints, &summary);
    nothing_is_left(&setup.lab, &setup.limiter, TIDY);
}

#[test]
fn of_thirty_at_once_over_the_kernels_own_delay_nobody_waits_in_silence() {
    burst(100, 0);
}

#[test]
fn of_thirty_at_once_over_the_kernels_own_delay_and_loss_nobody_waits_longer_than_these_cost() {
    burst(100, 1);
}
