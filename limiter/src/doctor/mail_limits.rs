// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Limits of the mail daemons themselves that are nearer than those of the limiter: then they are what refuses, with a
//! process and in their words.

use super::{Context, Outcome, instance::not_loaded, outcome::or_good};
use crate::{
    evidence::Running,
    import::{ImportedService, Limit, Scope, Sourced},
    instance::Instance,
    status::Service,
};

/// Compares them.
pub fn look(context: &Context) -> Vec<Outcome> {
    if context.status().is_none() {
        return not_loaded();
    }
    if !context.sees_network {
        return vec![Outcome::unknown(context.not_seen())];
    }
    judge(&context.instance, &context.services, context.mail())
}

fn judge(instance: &Instance, services: &[Service], running: &[Running]) -> Vec<Outcome> {
    let mut found = Vec::new();
    let mut compared = Vec::new();
    for running in running {
        let Running { name, ports, settings, .. } = running;
        if let Err(problem) = settings {
            found.push(Outcome::unknown(problem));
            continue;
        }
        for service in services.iter().filter(|service| service.ports.iter().any(|port| ports.contains(port)))
        {
            let Some(its) = running.service(|port| service.ports.contains(&port)) else {
                found.push(Outcome::unknown(format!(
                    "{}: {name} listens there, and its settings do not say so, so its limits are not known",
                    service.name
                )));
                continue;
            };
            compared.push(format!("{name} at {}", service.name));
            found.extend(of_source(instance, name, service, &its.max_connections));
            found.extend(of_all(instance, name, service, &its.max_total));
            found.extend(of_user(name, service, its));
        }
    }
    or_good(
        found,
        if compared.is_empty() {
            "no mail daemon that limiter knows listens at a port of a service".to_owned()
        } else {
            format!("no limit of a mail daemon is nearer than limiter's: {}", compared.join(", "))
        },
    )
}

/// Connections of one source.
fn of_source(instance: &Instance, name: &str, service: &Service, its: &Sourced<Limit>) -> Option<Outcome> {
    let (ours, at) = (service.max_connections, &service.name);
    match its.value {
        Limit::Of(limit) if limit < u64::from(ours) => Some(
            Outcome::warning(format!(
                "{at}: {name} itself refuses a source with more than {limit} connections ({}), and limiter only one \
                 with more than {ours}: these clients cost {name} a process each; raise the setting of {name}, or let \
                 limiter refuse first",
                its.setting()
            ))
            .mended_by(format!("{} set {at} max_connections={limit} --save", instance.program())),
        ),
        Limit::Unknown => Some(Outcome::unknown(format!(
            "{at}: the limit of {name} for one source is not known: {}",
            its.setting()
        ))),
        Limit::Of(_) | Limit::None => None,
    }
}

/// Connections of all.
fn of_all(instance: &Instance, name: &str, service: &Service, its: &Sourced<Limit>) -> Option<Outcome> {
    let at = &service.name;
    let set = |total: u64| format!("{} set {at} max_total={total} --save", instance.program());
    match (its.value, service.max_total.map(u64::from)) {
        (Limit::Of(limit), Some(ours)) if limit < ours => Some(
            Outcome::warning(format!(
                "{at}: {name} serves {limit} connections at most ({}), and limiter lets {ours} in: whoever comes beyond \
                 {limit} waits without an answer",
                its.setting()
            ))
            .mended_by(set(limit)),
        ),
        (Limit::Of(limit), Some(ours)) if limit < ours + u64::from(service.reserve) => Some(
            Outcome::note(format!(
                "{at}: {name} serves {limit} connections at most ({}), which is less than max_total and reserve together \
                 ({ours} and {})",
                its.setting(),
                service.reserve
            ))
            .mended_by(set(limit.saturating_sub(u64::from(service.reserve)).max(1))),
        ),
        (Limit::Of(limit), None) => Some(
            Outcome::note(format!(
                "{at}: {name} serves {limit} connections at most ({}), and limiter has no max_total: whoever comes \
                 beyond {limit} waits without an answer",
                its.setting()
            ))
            .mended_by(set(limit)),
        ),
        _ => None,
    }
}

/// The limit of one user from one address, after the login.
fn of_user(name: &str, service: &Service, its: &ImportedService) -> Option<Outcome> {
    let own = its.own.iter().find(|own| own.scope == Scope::UserAtSource)?;
    let Limit::Of(limit) = own.limit else { return None };
    let (at, ours, setting) = (&service.name, service.max_connections, &own.setting);
    (limit < ours.into()).then(|| {
        Outcome::note(format!(
            "{at}: {name} ends what one user opens beyond {limit} connections from one address, after the login \
             ({setting} = {limit}); limiter lets {ours} of an address in"
        ))
        .mended_by(format!("doveconf {setting}"))
    })
}

#[cfg(test)]
mod tests {
    use limiter_common::{Counters, Protocol, ServicePolicy};

    use super::*;
    use crate::{
        doctor::Grade,
        import::{Daemon, OwnLimit},
    };

    fn ours(max_connections: u32, max_total: u32, reserve: u32) -> Service {
        let name = ServicePolicy::pack_name("imap").unwrap();
        let policy = ServicePolicy { name, max_connections, max_total, reserve, ..ServicePolicy::default() };
        Service::new(&policy, vec![143, 993], 0, 0, 0.0, Counters::default())
    }

    fn theirs(ports: &[u16], max_connections: Limit, max_total: Limit) -> Daemon {
        let mut daemon = Daemon::new("Dovecot");
        daemon.services.push(ImportedService {
            name: "imap".to_owned(),
            ports: Sourced::new(ports.to_vec(), ""),
            tls_ports: None,
            tls: Vec::new(),
            protocol: Protocol::Imap,
            max_connections: Sourced::new(max_connections, "Dovecot: a_limit = 5"),
            ipv4_prefix: None,
            ipv6_prefix: None,
            rate: None,
            max_total: Sourced::new(max_total, "Dovecot: process_limit = 100"),
            reserve: None,
            own: Vec::new(),
        });
        daemon
    }

    fn judged(ours: Service, settings: Result<Daemon, String>) -> Vec<Outcome> {
        let running = Running { name: "Dovecot", ports: vec![143], settings };
        judge(&"mail".parse().unwrap(), &[ours], &[running])
    }

    fn grades(ours: Service, settings: Daemon) -> Vec<Grade> {
        judged(ours, Ok(settings)).iter().map(|outcome| outcome.grade).collect()
    }

    #[test]
    fn a_nearer_limit_of_a_source_is_a_warning_with_the_number_that_makes_both_one() {
        let said = judged(ours(20, 100, 0), Ok(theirs(&[143], Limit::Of(5), Limit::Of(100))));
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].grade, Grade::Warning);
        assert!(said[0].sentence.contains("more than 5 connections (a_limit = 5)"), "{said:?}");
        assert_eq!(
            said[0].command.as_deref(),
            Some("limiter --instance mail set imap max_connections=5 --save")
        );
        assert_eq!(grades(ours(20, 100, 0), theirs(&[143], Limit::Of(20), Limit::Of(100))), [Grade::Good]);
        assert_eq!(grades(ours(20, 100, 0), theirs(&[143], Limit::None, Limit::None)), [Grade::Good]);
        assert_eq!(grades(ours(20, 100, 0), theirs(&[143], Limit::Unknown, Limit::None)), [Grade::Unknown]);
    }

    #[test]
    fn a_total_beyond_what_the_daemon_serves_is_a_warning_and_none_at_all_a_note() {
        let said = judged(ours(20, 400, 0), Ok(theirs(&[143], Limit::None, Limit::Of(100))));
        assert_eq!(said[0].grade, Grade::Warning, "{said:?}");
        assert_eq!(said[0].command.as_deref(), Some("limiter --instance mail set imap max_total=100 --save"));
        let with =
            |total, reserve| grades(ours(20, total, reserve), theirs(&[143], Limit::None, Limit::Of(100)));
        assert_eq!(with(100, 0), [Grade::Good]);
        assert_eq!(with(100, 10), [Grade::Note]);
        assert_eq!(with(90, 10), [Grade::Good]);
        assert_eq!(with(0, 0), [Grade::Note]);
    }

    #[test]
    fn the_limit_of_a_user_is_a_note() {
        let mut settings = theirs(&[143], Limit::None, Limit::Of(100));
        let own = OwnLimit::new("mail_max_userip_connections", Limit::Of(10), Scope::UserAtSource);
        settings.services[0].own.push(own);
        let said = judged(ours(20, 100, 0), Ok(settings.clone()));
        assert_eq!(said[0].grade, Grade::Note);
        assert!(said[0].sentence.contains("beyond 10 connections from one address"), "{said:?}");
        assert_eq!(judged(ours(10, 100, 0), Ok(settings))[0].grade, Grade::Good);
    }

    #[test]
    fn what_is_not_known_is_not_good() {
        let said = judged(ours(20, 0, 0), Err("in a container".to_owned()));
        assert_eq!(said, [Outcome::unknown("in a container")]);
        // Listens at a port that its settings do not name: the only service it has is meant, if it has one.
        assert_eq!(grades(ours(20, 100, 0), theirs(&[1143], Limit::None, Limit::Of(100))), [Grade::Good]);
        assert_eq!(grades(ours(20, 100, 0), Daemon::new("Dovecot")), [Grade::Unknown]);
    }

    #[test]
    fn nobody_who_listens_is_good_and_said() {
        let said = judge(&"mail".parse().unwrap(), &[ours(20, 0, 0)], &[]);
        assert_eq!(said[0].grade, Grade::Good);
        assert!(said[0].sentence.starts_with("no mail daemon that limiter knows"), "{said:?}");
    }
}
