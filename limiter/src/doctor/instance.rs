// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The instance itself: what `limiter status` warns of, each with a grade.

use limiter_common::Mode;

use super::{Context, Grade, Outcome, context::State, outcome::or_good};
use crate::{
    config::IMPLICIT_TLS,
    greeter::tls::Certificate,
    instance::Instance,
    status::{About, Service},
};

/// Whether limits are in force, and where they should be.
pub fn limits(context: &Context) -> Vec<Outcome> {
    let mut found: Vec<Outcome> = judge_state(&context.instance, &context.state).into_iter().collect();
    for about in [About::Attachment, About::Namespace] {
        let grade =
            if context.status().is_some_and(|status| status.in_force) { Grade::Warning } else { Grade::Bad };
        found.extend(warned(context, about, grade));
    }
    or_good(found, format!("the limits of instance {} are in force", context.instance))
}

fn judge_state(instance: &Instance, state: &State) -> Option<Outcome> {
    match state {
        State::Loaded(_) => None,
        State::Nothing(sentence) => Some(Outcome::quoting(Grade::Bad, sentence)),
        State::Unknown(problem) => Some(Outcome::unknown(problem)),
        State::Other(difference) => Some(
            Outcome::bad(format!(
                "another build of limiter loaded instance {instance} ({difference}), so this one cannot look at it"
            ))
            .mended_by(format!("{} run", instance.program())),
        ),
    }
}

/// Whether the daemon runs, and answers.
pub fn daemon(context: &Context) -> Vec<Outcome> {
    let Some(status) = context.status() else { return not_loaded() };
    // Where programs are not attached, nothing was said of the daemon, which ends first then.
    let found: Vec<Outcome> = warned(context, About::Daemon, Grade::Warning).collect();
    match status.daemon.pid.filter(|_| status.daemon.answers) {
        Some(pid) => or_good(found, format!("the daemon runs and answers, pid {pid}")),
        None if found.is_empty() => vec![Outcome::note("the daemon does not run, or does not answer")],
        None => found,
    }
}

/// Whether refused clients are told why.
pub fn greeter(context: &Context) -> Vec<Outcome> {
    let Some(status) = context.status() else { return not_loaded() };
    let about_certificates = |text: &&str| certificate_of(&status.certificates, text);
    let warnings = context.warnings(About::Greeter).filter(|text| !about_certificates(text));
    let found: Vec<Outcome> = warnings.map(|text| Outcome::quoting(Grade::Warning, text)).collect();
    match &status.greeter {
        Some(greeter) => {
            let pid = greeter.process.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
            or_good(found, format!("the greeter tells refused clients why{pid}"))
        }
        None if found.is_empty() => vec![Outcome::unknown("no daemon says what the greeter does")],
        None => found,
    }
}

/// Whether a warning of the greeter is about one of its certificates: it names a file of it.
fn certificate_of(certificates: &[Certificate], text: &str) -> bool {
    let files = certificates.iter().flat_map(|one| [&one.certificate, &one.key]);
    files.map(|file| file.display().to_string()).any(|file| text.contains(&file))
}

/// Whether they are told inside TLS, too.
pub fn certificates(context: &Context) -> Vec<Outcome> {
    let Some(status) = context.status() else { return not_loaded() };
    let warnings = context.warnings(About::Greeter);
    let of_certificates: Vec<&str> =
        warnings.filter(|text| certificate_of(&status.certificates, text)).collect();
    judge_certificates(&status.certificates, &of_certificates, &context.services)
}

fn judge_certificates(certificates: &[Certificate], warnings: &[&str], services: &[Service]) -> Vec<Outcome> {
    let found: Vec<Outcome> = warnings.iter().map(|text| Outcome::quoting(Grade::Warning, *text)).collect();
    let with_tls = |service: &&Service| service.ports.iter().any(|port| IMPLICIT_TLS.contains(port));
    let without = |service: &&Service| !certificates.iter().any(|one| one.services.contains(&service.name));
    let without: Vec<&str> =
        services.iter().filter(with_tls).filter(without).map(|service| service.name.as_str()).collect();
    if found.is_empty() && !without.is_empty() {
        return vec![
            Outcome::note(format!(
                "no certificate for {}: where TLS starts at once, refused clients get an alert instead of a reason; \
                 `tls` in the configuration names one, and `limiter import` finds those of the mail daemons",
                without.join(", ")
            ))
            .mended_by("limiter import | grep tls"),
        ];
    }
    let named: Vec<String> = certificates.iter().map(ToString::to_string).collect();
    let good = if named.is_empty() { "no service needs a certificate".to_owned() } else { named.join("; ") };
    or_good(found, good)
}

/// Whether each service refuses.
pub fn services(context: &Context) -> Vec<Outcome> {
    if context.status().is_none() {
        return not_loaded();
    }
    let found: Vec<Outcome> = warned(context, About::Observing, Grade::Note).collect();
    let enforced = context.services.iter().filter(|service| service.mode == Mode::Enforce);
    let names: Vec<&str> = enforced.map(|service| service.name.as_str()).collect();
    or_good(found, format!("enforced: {}", names.join(", ")))
}

/// Whether all connections are counted, and rightly.
pub fn counts(context: &Context) -> Vec<Outcome> {
    if context.status().is_none() {
        return not_loaded();
    }
    let room = warned(context, About::Room, Grade::Warning);
    let found: Vec<Outcome> = room.chain(warned(context, About::Drift, Grade::Warning)).collect();
    or_good(found, "every connection was counted, and no count was wrong")
}

/// What `limiter status` warns of.
pub fn warned(context: &Context, about: About, grade: Grade) -> impl Iterator<Item = Outcome> {
    context.warnings(about).map(move |text| Outcome::quoting(grade, text))
}

/// What there is to say of an instance that cannot be looked at: why not is said once, by [`limits`].
pub const fn not_loaded() -> Vec<Outcome> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use limiter_common::{Counters, ServicePolicy};

    use super::*;

    fn instance() -> Instance {
        "mail".parse().unwrap()
    }

    fn service(name: &str, ports: &[u16]) -> Service {
        let policy =
            ServicePolicy { name: ServicePolicy::pack_name(name).unwrap(), ..ServicePolicy::default() };
        Service::new(&policy, ports.to_vec(), 0, 0, 0.0, Counters::default())
    }

    #[test]
    fn what_is_not_loaded_is_bad_and_comes_with_the_command() {
        let said =
            judge_state(&instance(), &State::Nothing(crate::loaded::nothing_loaded(&instance()))).unwrap();
        assert_eq!((said.grade, said.command.as_deref()), (Grade::Bad, Some("limiter --instance mail run")));
        let said = judge_state(&instance(), &State::Other("its layout is 1".to_owned())).unwrap();
        assert_eq!((said.grade, said.command.as_deref()), (Grade::Bad, Some("limiter --instance mail run")));
        let said = judge_state(&instance(), &State::Unknown("no root".to_owned())).unwrap();
        assert_eq!(said.grade, Grade::Unknown);
    }

    #[test]
    fn a_service_that_starts_with_tls_wants_a_certificate() {
        let certificate = |service: &str| Certificate {
            services: vec![service.to_owned()],
            certificate: "/etc/ssl/mail.pem".into(),
            key: "/etc/ssl/mail.key".into(),
            names: vec!["mail.example.org".to_owned()],
            expires: Some("2027-01-31".to_owned()),
            problem: None,
        };
        let imap = [service("imap", &[143, 993]), service("smtp", &[25])];
        let judged = |certificates: &[Certificate], warnings: &[&str]| {
            judge_certificates(certificates, warnings, &imap)
        };
        let said = judged(&[], &[]);
        assert_eq!(said[0].grade, Grade::Note);
        assert!(said[0].sentence.starts_with("no certificate for imap: "), "{said:?}");
        assert_eq!(judged(&[certificate("imap")], &[])[0].grade, Grade::Good);
        let warning = "the certificate in /etc/ssl/mail.pem expired";
        assert_eq!(judged(&[certificate("imap")], &[warning])[0].grade, Grade::Warning);
        assert!(certificate_of(&[certificate("imap")], warning));
        assert!(!certificate_of(&[certificate("imap")], "the greeter does not run"));
        let smtp = [service("smtp", &[25])];
        assert_eq!(judge_certificates(&[], &[], &smtp)[0].grade, Grade::Good);
    }
}
