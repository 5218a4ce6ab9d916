// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter check`: whether a file is right, and what a reload of it would change.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::schema::is_as_its_schema_says;
use limiter_lab::command::Outcome;
use limiter_lab::{Lab, Limiter};
use serde_json::Value;

#[test]
fn a_check_says_what_a_reload_then_changes_and_changes_nothing_itself() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start_with(&lab, "[defaults]\nmax_connections = 3\n");
    let said = limiter.ok(&["check"]);
    assert!(
        said.contains("limiter.toml: no mistakes") && said.contains("a reload would change nothing"),
        "{said}"
    );
    limiter.ok(&["set", "imap", "max_connections=9"]);
    let said = limiter.ok(&["check"]);
    assert!(said.contains("revert them:\n  imap: max_connections 9 -> 3\n"), "{said}");
    limiter.configure("[defaults]\nmax_connections = 3\n[service.smtp]\nmax_connections = 4\n");
    let before = limiter.state();
    let document = limiter.json(&["check"]);
    is_as_its_schema_says("check", &document);
    let in_force = &document["in_force"];
    assert_eq!((&in_force["state"], &in_force["edited"]), (&"compared".into(), &true.into()), "{document:#}");
    let told: Vec<(&Value, &Value, &Value, &Value)> = in_force["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (&change["what"], &change["key"], &change["was"], &change["is"]))
        .collect();
    assert_eq!(limiter.state(), before, "a check changed something");
    let reloaded = limiter.json(&["reload"]);
    let done: Vec<(&Value, &Value, &Value, &Value)> = reloaded["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| (&change["what"], &change["key"], &change["was"], &change["is"]))
        .collect();
    assert_eq!(told, done);
    assert_eq!(done.len(), 2, "{reloaded:#}");
}

#[test]
fn a_check_names_a_mistake_with_its_place_as_a_reload_does() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::start(&lab, 1, "reset");
    limiter.configure_all("[service.smtp]\nmax_conections = 4\n");
    let [checked, reloaded] = [["check"], ["reload"]].map(|verb| limiter.cli(&verb));
    assert_eq!((checked.code, &checked.stderr), (Some(2), &reloaded.stderr), "{checked:?}");
    assert!(checked.stderr.contains("limiter.toml:2:1: "), "{checked:?}");
    let document: Value = serde_json::from_str(&limiter.cli(&["check", "--json"]).stdout).unwrap();
    assert_eq!(document["exit_code"], 2, "{document:#}");
}

#[test]
fn a_check_needs_neither_root_nor_anything_loaded() {
    let Some(lab) = Lab::new(crate::BINARY) else { return };
    let limiter = Limiter::absent(&lab);
    let file = limiter.config_path();
    let document = limiter.json(&["check", file.to_str().unwrap()]);
    is_as_its_schema_says("check", &document);
    assert_eq!(document["in_force"]["state"], "not_loaded", "{document:#}");
    // Where anybody can read them.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let [program, config] = ["limiter", "limiter.toml"].map(|name| dir.path().join(name));
    fs::copy(crate::BINARY, &program).unwrap();
    let check = |text: &str| {
        fs::write(&config, text).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(&program).arg("check").arg(&config).arg("--json");
        Outcome::of(command)
    };
    let outcome = check("[service.smtp]\nmax_connections = 4\n");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    is_as_its_schema_says("check", &document);
    assert_eq!(document["in_force"]["state"], "unknown", "{document:#}");
    let outcome = check("[service.smtp]\nmax_connections = 0\n");
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}
