// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What `limiter set` makes of a policy, and how it is shown.

use limiter_common::{Keepalive, Rate, Response, ServicePolicy, service::Prefixes};
use proptest::prelude::*;

use super::{
    super::{Config, Setting, apply, changes, check, parse_setting},
    one_sentence,
    round_trip::any_service,
    service,
};

#[test]
fn a_setting_changes_its_key_and_no_other() {
    let before = service(&Config::default(), "smtp").policy();
    let set = |text: &str| {
        let settings: Vec<_> = text.split(' ').map(|word| parse_setting(word).unwrap()).collect();
        apply(&settings, &before).unwrap()
    };
    assert_eq!(set("max_connections=8"), ServicePolicy { max_connections: 8, ..before });
    assert_eq!(set("response=reset"), ServicePolicy { response: Response::Reset as u8, ..before });
    assert_eq!(set("rate=60/min"), ServicePolicy { rate: Rate::new(60, 60, 60), ..before });
    let rate = Rate::new(60, 60, 5);
    assert_eq!(set("rate=60/min burst=5"), ServicePolicy { rate, ..before });
    assert_eq!(set("burst=5 rate=60/min"), ServicePolicy { rate, ..before }, "in any order");
    assert_eq!(set("max_total=99 reserve=3"), ServicePolicy { max_total: 99, reserve: 3, ..before });
    assert_eq!(set("keepalive=10m"), ServicePolicy { keepalive: Keepalive::within(600), ..before });
    assert_eq!(set("wait=10s"), ServicePolicy { wait_s: 10, ..before });
    assert_eq!(set("wait=0 response=drop").response, Response::Drop as u8);
    let of_network = Prefixes { ipv4: 24, ipv6: 48 };
    assert_eq!(
        set("network_max_connections=50"),
        ServicePolicy { network_max_connections: 50, network: of_network, ..before }
    );
    assert_eq!(parse_setting("max_connections=1000000"), Ok(Setting::MaxConnections(1_000_000)));
}

#[test]
fn none_takes_away_what_a_setting_gave_and_both_are_shown_as_the_file_writes_them() {
    let before = service(&Config::default(), "smtp").policy();
    for (given, shown, taken) in [
        ("rate=60/min", "60/min", "rate=none"),
        ("max_total=99", "99", "max_total=none"),
        ("keepalive=2m30s", "2m 30s", "keepalive=none"),
        ("network_max_connections=50", "50", "network_max_connections=none"),
    ] {
        let (given, taken) = (parse_setting(given).unwrap(), parse_setting(taken).unwrap());
        let there = apply(&[given], &before).unwrap();
        assert_eq!(changed(&[given], &before, &there)[0], format!("{} none -> {shown}", given.key()));
        assert_eq!(apply(&[taken], &there).unwrap(), before);
    }
}

fn changed(settings: &[Setting], before: &ServicePolicy, after: &ServicePolicy) -> Vec<String> {
    let line = |(was, is): (Setting, Setting)| format!("{} {was} -> {is}", is.key());
    changes(settings, before, after).into_iter().map(line).collect()
}

#[test]
fn whatever_changes_is_shown_and_what_was_asked_for() {
    let mut policy = service(&Config::default(), "smtp").policy();
    let mut set = |text: &str| {
        let settings: Vec<_> = text.split(' ').map(|word| parse_setting(word).unwrap()).collect();
        let before = policy;
        policy = apply(&settings, &before).unwrap();
        changed(&settings, &before, &policy).join(", ")
    };
    assert_eq!(set("max_connections=20"), "max_connections 20 -> 20");
    assert_eq!(set("rate=60/min"), "rate none -> 60/min, burst none -> 60");
    assert_eq!(set("burst=30"), "burst 60 -> 30");
    assert_eq!(set("rate=10/s"), "rate 60/min -> 10/s, burst 30 -> 10", "a new rate has its own burst");
    assert_eq!(set("rate=none"), "rate 10/s -> none, burst 10 -> none");
    assert_eq!(set("reserve=3 max_total=99"), "max_total none -> 99, reserve 0 -> 3");
    assert_eq!(set("reserve=0 max_total=none"), "max_total 99 -> none, reserve 3 -> 0");
    assert_eq!(set("response=reset"), "response reply -> reset");
    assert_eq!(set("wait=10s"), "wait 5s -> 10s");
    assert_eq!(set("wait=0"), "wait 10s -> 0s");
    assert_eq!(set("wait=60s"), "wait 0s -> 1m");
    assert_eq!(set("wait=1m"), "wait 1m -> 1m");
}

#[test]
fn settings_that_make_no_sense_together_are_refused() {
    let before = service(&Config::default(), "smtp").policy();
    let refused = |text: &str| {
        let settings: Vec<_> = text.split(' ').map(|word| parse_setting(word).unwrap()).collect();
        apply(&settings, &before).unwrap_err().to_string()
    };
    for (text, start) in [
        ("burst=5", "burst has no effect without a rate; "),
        ("rate=none burst=5", "burst has no effect without a rate; "),
        ("max_total=99 max_total=98", "max_total is given twice; "),
        ("reserve=5", "service smtp has a reserve but no max_total"),
        ("max_total=19", "max_total 19 of service smtp is less than the 20 connections"),
        ("max_total=30 max_connections=31", "max_total 30 of service smtp is less than the 31"),
        ("wait=5s wait=6s", "wait is given twice; "),
        ("network_max_connections=19", "a network may hold 19 connections to service smtp, less than the 20"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(start), "{error}");
        one_sentence(&error);
    }
}

proptest! {
    #[test]
    fn no_setting_makes_it_panic_and_what_is_shown_can_be_given(
        service in any_service(),
        words in proptest::collection::vec(
            "(max_connections|rate|burst|network_max_connections|max_total|reserve|keepalive|wait|response)=\
             (none|reset|[0-9]{1,7}|[0-9]{1,7}/(s|min|h)|[0-9]{1,5}(s|m|h)|.{0,5})",
            1..4,
        ),
    ) {
        let before = service.policy();
        let settings = words.iter().map(|word| parse_setting(word)).collect::<Result<Vec<_>, _>>();
        match settings.and_then(|settings| Ok((apply(&settings, &before)?, settings))) {
            Ok((after, settings)) => {
                prop_assert_eq!(check::together(&after), Ok(()));
                for (_, is) in changes(&settings, &before, &after) {
                    if is != Setting::Burst(0) {
                        let again = parse_setting(&format!("{}={is}", is.key())).unwrap();
                        prop_assert_eq!(again.key(), is.key());
                        prop_assert_eq!(again.to_string(), is.to_string());
                    }
                }
            }
            Err(error) => one_sentence(&error.to_string()),
        }
    }
}
