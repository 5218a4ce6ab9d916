// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How many connections Dovecot can serve.

use super::{
    super::model::{Daemon, Limit, OwnLimit, Scope, Sourced},
    settings::Settings,
};

/// What Dovecot can serve: a login process keeps a connection with TLS to its end, since it encrypts; one
/// without TLS moves to the process of its session.
pub fn total(settings: &Settings, daemon: &mut Daemon, name: &str, login: &str) -> Sourced<Limit> {
    let (sessions, shown_sessions) = sessions(settings, name);
    if sessions == Limit::Unknown {
        daemon.leave_out(shown_sessions.clone(), NO_NUMBER);
    }
    if !has_tls(settings) {
        let mut total = Sourced::new(sessions, format!("Dovecot: {shown_sessions}"));
        total.note("Dovecot: ssl = no, so a login process passes each connection on.");
        return total;
    }
    let (logins, shown_logins) = logins(settings, login);
    match (logins, sessions) {
        (Limit::Unknown, _) => {
            daemon.leave_out(shown_logins.clone(), NO_NUMBER);
            Sourced::new(Limit::Unknown, format!("Dovecot: {shown_logins}"))
        }
        (Limit::Of(logins), Limit::Of(sessions)) if sessions < logins => {
            let mut total = Sourced::new(Limit::Of(sessions), format!("Dovecot: {shown_sessions}"));
            total.note(format!("Dovecot: that is less than {shown_logins}, which would be {logins}."));
            total
        }
        (Limit::Of(_), _) => {
            let mut total = Sourced::new(logins, format!("Dovecot: {shown_logins}"));
            total.note("A login process encrypts, and keeps a connection with TLS to its end.");
            total
        }
        (Limit::None, sessions) => Sourced::new(sessions, format!("Dovecot: {shown_sessions}")),
    }
}

/// Whether connections may have TLS.
fn has_tls(settings: &Settings) -> bool {
    settings.value("ssl") != Some("no")
}

/// How many sessions the processes behind the login can serve, and the settings that say so.
fn sessions(settings: &Settings, name: &str) -> (Limit, String) {
    let (processes, shown_processes) = settings.of_service(name, "process_limit");
    let (each, shown_each) = settings.of_service(name, "client_limit");
    (product(processes, each), format!("service {name} {{ {shown_processes}, {shown_each} }}"))
}

/// How many connections the login processes can serve, likewise.
fn logins(settings: &Settings, login: &str) -> (Limit, String) {
    let (processes, shown_processes) = settings.of_service(login, "process_limit");
    let (count, shown_count) = settings.of_service(login, settings.service_count());
    let (clients, shown_clients) = settings.of_service(login, "client_limit");
    // A process that ends after so many connections has no room for more at once.
    let (each, shown_each) = match (count, clients) {
        (Limit::Of(1), _) => (count, shown_count),
        (Limit::Of(few), Limit::Of(many)) if few > many => (clients, shown_clients),
        (Limit::Of(_), Limit::Of(_) | Limit::None) => (count, shown_count),
        (Limit::None, _) => (clients, shown_clients),
        _ => (Limit::Unknown, format!("{shown_count}, {shown_clients}")),
    };
    (product(processes, each), format!("service {login} {{ {shown_processes}, {shown_each} }}"))
}

/// The limits as Dovecot has them. Where nothing is encrypted, a login process holds a connection for a moment only.
pub fn own(settings: &Settings, name: &str, login: &str) -> Vec<OwnLimit> {
    let of_service = |service: &str, limit| {
        OwnLimit::new(format!("service {service} {{ process_limit }}"), limit, Scope::Service)
    };
    let mut own = vec![of_service(name, sessions(settings, name).0)];
    own.extend(has_tls(settings).then(|| of_service(login, logins(settings, login).0)));
    own
}

/// What is said of a value that is not understood.
const NO_NUMBER: &str = "this is not a valid number, so the limit is unknown";

/// The product of two limits.
const fn product(processes: Limit, each: Limit) -> Limit {
    match (processes, each) {
        (Limit::Unknown, _) | (_, Limit::Unknown) => Limit::Unknown,
        (Limit::Of(processes), Limit::Of(each)) => Limit::Of(processes.saturating_mul(each)),
        (Limit::None, _) | (_, Limit::None) => Limit::None,
    }
}
