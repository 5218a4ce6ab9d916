// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Who listens at the ports of each service.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Grade, Outcome, instance::warned, outcome::or_good};
use crate::{
    evidence::Listening,
    status::{About, Service},
};

/// Nobody, the wrong ones, or these.
pub fn look(context: &Context) -> Vec<Outcome> {
    if !context.sees_network {
        return vec![Outcome::unknown(context.not_seen())];
    }
    let uncounted = [About::Multipath, About::Cgroup].map(|about| warned(context, about, Grade::Bad));
    let mut found: Vec<Outcome> = uncounted.into_iter().flatten().collect();
    found.extend(warned(context, About::Listeners, Grade::Warning));
    match context.listening() {
        Ok(listening) => found.extend(judge(&context.services, listening, context.status().is_some())),
        Err(problem) => found.push(Outcome::unknown(problem)),
    }
    or_good(found, "nobody listens at a port of a service")
}

/// Where something is loaded, `limiter status` has warned of what is wrong already.
fn judge(services: &[Service], listening: &[Listening], is_loaded: bool) -> Vec<Outcome> {
    let mut found = Vec::new();
    for service in services {
        let of_service = listening.iter().filter(|one| service.ports.contains(&one.listener.port));
        let mut by_process: BTreeMap<String, (BTreeSet<u16>, u32)> = BTreeMap::new();
        for Listening { listener, process } in of_service {
            let who = process.as_ref().map_or_else(
                || "a process that is not to be found".to_owned(),
                |process| match &process.unit {
                    Some(unit) => format!("{} (pid {}, {unit})", process.name, process.pid),
                    None => format!("{} (pid {})", process.name, process.pid),
                },
            );
            let known = by_process.entry(who).or_insert_with(|| (BTreeSet::new(), u32::MAX));
            known.0.insert(listener.port);
            known.1 = known.1.min(listener.backlog);
            if listener.is_mptcp && !is_loaded {
                found.push(Outcome::warning(format!(
                    "{}: port {} listens for Multipath TCP, by which clients get around limits",
                    service.name, listener.port
                )));
            }
        }
        let who: Vec<String> = by_process
            .into_iter()
            .map(|(who, (ports, backlog))| {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!("{who} at {}, backlog {backlog}", ports.join(", "))
            })
            .collect();
        if !who.is_empty() {
            found.push(Outcome::good(format!("{}: {}", service.name, who.join("; "))));
        }
    }
    if listening.is_empty() && !is_loaded {
        found.push(Outcome::warning("no program listens on a port of any service"));
    }
    found
}

#[cfg(test)]
mod tests {
    use limiter_common::{Counters, ServicePolicy};

    use super::*;
    use crate::{evidence::Process, listeners::Listener};

    fn service(name: &str, ports: &[u16]) -> Service {
        let policy =
            ServicePolicy { name: ServicePolicy::pack_name(name).unwrap(), ..ServicePolicy::default() };
        Service::new(&policy, ports.to_vec(), 0, 0, 0.0, Counters::default())
    }

    fn at(port: u16, is_mptcp: bool, name: Option<&str>) -> Listening {
        let listener = Listener {
            address: "::".parse().unwrap(),
            port,
            ifindex: 0,
            takes_both: true,
            is_mptcp,
            cgroup: None,
            inode: 1,
            queued: 0,
            backlog: 100,
        };
        let unit = Some("dovecot.service".to_owned());
        let process = name.map(|name| Process { pid: 7, name: name.to_owned(), unit });
        Listening { listener, process }
    }

    #[test]
    fn each_service_is_said_with_who_listens() {
        let services = [service("imap", &[143, 993]), service("smtp", &[25])];
        let listening =
            [at(143, false, Some("dovecot")), at(993, false, Some("dovecot")), at(25, false, None)];
        let said: Vec<String> =
            judge(&services, &listening, true).into_iter().map(|outcome| outcome.sentence).collect();
        assert_eq!(
            said,
            [
                "imap: dovecot (pid 7, dovecot.service) at 143, 993, backlog 100",
                "smtp: a process that is not to be found at 25, backlog 100"
            ]
        );
    }

    #[test]
    fn without_an_instance_it_is_said_what_would_be_wrong() {
        let services = [service("imap", &[143])];
        assert_eq!(judge(&services, &[], false)[0].grade, Grade::Warning);
        assert_eq!(judge(&services, &[], true), []);
        let said = judge(&services, &[at(143, true, Some("go"))], false);
        assert_eq!((said[0].grade, said[1].grade), (Grade::Warning, Grade::Good), "{said:?}");
    }
}
