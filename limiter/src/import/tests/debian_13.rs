// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The daemons of Debian 13: Postfix 3.10, Exim 4.98 and Dovecot 2.4.

use super::*;

#[test]
fn postfix_3_10_as_debian_installs_it_and_by_what_differs_from_its_defaults() {
    let config =
        holds(&[(&POSTFIX, "postfix/default/output-3.10.txt")], "postfix/default/expected-3.10.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25], 50, Some(100), 0));
    assert_eq!(prefixes(&config, "smtp"), (32, 84));
    let (changed, _) = imported(&[(&POSTFIX, "postfix/default/changed-3.10.txt")]);
    assert_eq!(changed, config);
}

#[test]
fn postfix_3_10_of_a_busy_mx() {
    let config = holds(&[(&POSTFIX, "postfix/mx/changed-3.10.txt")], "postfix/mx/expected-3.10.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25], 20, Some(150), 0));
    let allowed = ["192.0.2.0/24", "198.51.100.25/32", "2001:db8:10::/48"];
    assert_eq!(rules(&config), allowed.map(|network| (network.to_owned(), Action::Allow)));
    assert_eq!(rate(&config, "smtp"), Some(("1/s".to_owned(), 30)));
}

#[test]
fn postfix_3_10_with_limits_of_single_services() {
    let config =
        holds(&[(&POSTFIX, "postfix/submission/changed-3.10.txt")], "postfix/submission/expected-3.10.toml");
    assert_eq!(limits(&config, "submission"), (vec![587], 40, Some(40), 0));
    assert_eq!(limits(&config, "submissions"), (vec![465], 1_000_000, None, 0));
    assert_eq!(limits(&config, "smtp-2525"), (vec![2525], 50, Some(100), 0));
}

#[test]
fn postfix_3_10_behind_postscreen() {
    let config =
        holds(&[(&POSTFIX, "postfix/postscreen/changed-3.10.txt")], "postfix/postscreen/expected-3.10.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25], 15, None, 0));
}

#[test]
fn exim_4_98_as_debian_installs_it() {
    let config = holds(&[(&EXIM, "exim/default/output-4.98.txt")], "exim/default/expected-4.98.toml");
    assert_eq!(limits(&config, "smtp"), (vec![25], 20, Some(20), 0));
}

#[test]
fn exim_4_98_edited_has_the_limits_of_4_96() {
    for name in ["busy", "lists", "open"] {
        let new = format!("exim/{name}/output-4.98.txt");
        let config = holds(&[(&EXIM, &new)], &format!("exim/{name}/expected-4.98.toml"));
        let (before, _) = imported(&[(&EXIM, &format!("exim/{name}/output.txt"))]);
        assert_eq!(config.services, before.services, "{name}");
        assert_eq!(config.rules, before.rules, "{name}");
    }
}

#[test]
fn dovecot_2_4_as_debian_installs_it_in_either_form() {
    let config = holds(&[(&DOVECOT, "dovecot/default/changed-2.4.txt")], "dovecot/default/expected-2.4.toml");
    assert_eq!(limits(&config, "imap"), (vec![143, 993], 100, Some(100), 0));
    assert_eq!(limits(&config, "pop3"), (vec![110, 995], 100, Some(100), 0));
    assert_eq!(limits(&config, "submission"), (vec![465, 587], 100, Some(100), 0));
    assert_eq!(limits(&config, "sieve"), (vec![2000, 4190], 100, Some(100), 0));
    let (full, _) = imported(&[(&DOVECOT, "dovecot/default/output-2.4.txt")]);
    assert_eq!(full, config);
}

#[test]
fn dovecot_2_4_with_many_connections_a_process() {
    let config =
        holds(&[(&DOVECOT, "dovecot/performance/changed-2.4.txt")], "dovecot/performance/expected-2.4.toml");
    assert_eq!(limits(&config, "imap"), (vec![143, 993], 1600, Some(1600), 0));
    assert_eq!(limits(&config, "pop3"), (vec![110, 995], 300, Some(300), 0));
    assert_eq!(limits(&config, "sieve"), (vec![4190], 200, Some(200), 0));
    let allowed = ["192.0.2.10/32", "2001:db8:10::/64"];
    assert_eq!(rules(&config), allowed.map(|network| (network.to_owned(), Action::Allow)));
}

#[test]
fn dovecot_2_4_without_tls_and_partly_on_loopback() {
    let config = holds(&[(&DOVECOT, "dovecot/plain/changed-2.4.txt")], "dovecot/plain/expected-2.4.toml");
    assert_eq!(limits(&config, "imap"), (vec![1143], 150, Some(150), 0));
    assert_eq!(limits(&config, "pop3"), limits(&Config::default(), "pop3"));
}

#[test]
fn dovecot_2_4_behind_a_proxy_with_submission() {
    let config = holds(&[(&DOVECOT, "dovecot/proxies/changed-2.4.txt")], "dovecot/proxies/expected-2.4.toml");
    assert_eq!(limits(&config, "imap"), (vec![993, 10143], 100, Some(100), 0));
    assert_eq!(limits(&config, "submission"), (vec![465, 587], 50, Some(50), 0));
    let allowed = ["192.0.2.10/32", "198.51.100.0/24"];
    assert_eq!(rules(&config), allowed.map(|network| (network.to_owned(), Action::Allow)));
}

#[test]
fn dovecot_gives_the_same_in_both_forms() {
    for name in ["default", "performance", "plain", "proxies"] {
        let read = |form: &str| (DOVECOT.read)(&text(&format!("dovecot/{name}/{form}.txt"))).unwrap();
        let (full, changed) = (read("output"), read("changed"));
        assert_eq!(changed.left_out, full.left_out, "{name}");
        let config = |daemon| Import::new(vec![daemon], Vec::new()).to_string();
        let config = |daemon| config::parse(&config(daemon), "imported").unwrap();
        assert_eq!(config(changed), config(full), "{name}");
    }
}
