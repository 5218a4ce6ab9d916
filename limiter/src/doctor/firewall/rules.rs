// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Rules that change the destination of TCP connections, as `nft --json list ruleset` and `iptables-save` print them. A rule
//! that names no port, or takes it from a map, is not understood, and left out.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use crate::conntrack::Translation;

/// At most so many ports of a range.
const MOST_PORTS: u16 = 1024;

/// Those of nftables (`libnftables-json(5)`).
pub fn of_nftables(text: &str) -> BTreeSet<Translation> {
    let Ok(document) = serde_json::from_str::<Value>(text) else { return BTreeSet::new() };
    let rules = document["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("rule"));
    rules.flat_map(|rule| of_rule(rule["expr"].as_array().map_or(&[], Vec::as_slice))).collect()
}

fn of_rule(expressions: &[Value]) -> Vec<Translation> {
    let mut ports = Vec::new();
    for expression in expressions {
        let is_port = |left: &Value| {
            let payload = &left["payload"];
            payload["field"] == "dport"
                && ["tcp", "th"].iter().any(|protocol| payload["protocol"] == *protocol)
        };
        let found = expression.get("match").filter(|found| found["op"] != "!=" && is_port(&found["left"]));
        if let Some(found) = found {
            ports = numbers(&found["right"]);
        }
        let (target, is_elsewhere) = match (expression.get("dnat"), expression.get("redirect")) {
            (Some(target), _) => (target, true),
            (None, Some(target)) => (target, false),
            (None, None) => continue,
        };
        let address: Option<IpAddr> =
            target["addr"].as_str().filter(|_| is_elsewhere).and_then(|address| address.parse().ok());
        let port = target["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        return translations(&ports, port, address);
    }
    Vec::new()
}

/// The numbers of a port, of a set, or of a range.
fn numbers(right: &Value) -> Vec<u16> {
    if let Some(port) = right.as_u64() {
        return u16::try_from(port).into_iter().collect();
    }
    if let Some(range) = right["range"].as_array() {
        let ends: Vec<u16> = range.iter().flat_map(numbers).collect();
        return match ends.as_slice() {
            [first, last] if last.saturating_sub(*first) < MOST_PORTS => (*first..=*last).collect(),
            _ => Vec::new(),
        };
    }
    right["set"].as_array().into_iter().flatten().flat_map(numbers).collect()
}

/// Those of iptables: a line a rule.
pub fn of_iptables(text: &str) -> BTreeSet<Translation> {
    text.lines().filter(|line| line.starts_with("-A ")).flat_map(of_line).collect()
}

fn of_line(line: &str) -> Vec<Translation> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        let is_negated = at > 0 && words.get(at - 1) == Some(&"!");
        words.get(at + 1).copied().filter(|_| !is_negated)
    };
    if after("-p") != Some("tcp") {
        return Vec::new();
    }
    let Some(asked) = after("--dport").or_else(|| after("--dports")) else { return Vec::new() };
    let ports: Vec<u16> = asked.split(',').flat_map(range).collect();
    match after("-j") {
        Some("DNAT") => {
            let (address, port) = after("--to-destination").map_or((None, None), destination);
            translations(&ports, port, address)
        }
        Some("REDIRECT") => {
            translations(&ports, after("--to-ports").and_then(|ports| ports.parse().ok()), None)
        }
        _ => Vec::new(),
    }
}

/// `25`, or `25:30`.
fn range(text: &str) -> Vec<u16> {
    match text.split_once(':') {
        None => text.parse().into_iter().collect(),
        Some((first, last)) => match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if last.saturating_sub(first) < MOST_PORTS => (first..=last).collect(),
            _ => Vec::new(),
        },
    }
}

/// `172.17.0.2:25`, `172.17.0.2`, `:1143`, `[2001:db8::2]:25`.
fn destination(text: &str) -> (Option<IpAddr>, Option<u16>) {
    let plain = |text: &str| text.trim_matches(['[', ']']).parse().ok();
    if let Some(address) = plain(text) {
        return (Some(address), None);
    }
    let (address, port) = text.rsplit_once(':').unwrap_or((text, ""));
    (plain(address), port.parse().ok())
}

fn translations(ports: &[u16], port: Option<u16>, address: Option<IpAddr>) -> Vec<Translation> {
    let translation = |&asked: &u16| {
        let port = port.unwrap_or(asked);
        (port != asked || address.is_some()).then_some(Translation { asked, port, address })
    };
    ports.iter().filter_map(translation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translation(asked: u16, port: u16, address: Option<&str>) -> Translation {
        Translation { asked, port, address: address.map(|address| address.parse().unwrap()) }
    }

    #[test]
    fn rules_of_nftables_are_read() {
        let of = |expressions: &str| {
            let text =
                format!(r#"{{"nftables": [{{"metainfo": {{}}}}, {{"rule": {{"expr": [{expressions}]}}}}]}}"#);
            of_nftables(&text).into_iter().collect::<Vec<_>>()
        };
        let port = |right: &str| {
            format!(
                r#"{{"match": {{"op": "==", "left": {{"payload": {{"protocol": "tcp", "field": "dport"}}}}, "right": {right}}}}}"#
            )
        };
        let dnat = r#"{"dnat": {"family": "ip", "addr": "172.17.0.2", "port": 25}}"#;
        assert_eq!(of(&format!("{}, {dnat}", port("25"))), [translation(25, 25, Some("172.17.0.2"))]);
        let redirect = r#"{"redirect": {"port": 1143}}"#;
        assert_eq!(
            of(&format!(
                r#"{}, {{"counter": null}}, {redirect}"#,
                port(r#"{"set": [143, {"range": [993, 994]}]}"#)
            )),
            [translation(143, 1143, None), translation(993, 1143, None), translation(994, 1143, None)]
        );
        assert_eq!(of(redirect), [], "no port");
        assert_eq!(of(&port("25")), [], "no translation");
        assert_eq!(of(&format!(r#"{}, {{"dnat": {{"addr": {{"map": {{}}}}}}}}"#, port("25"))), []);
        assert_eq!(of_nftables("no JSON"), BTreeSet::new());
    }

    #[test]
    fn rules_of_iptables_are_read() {
        let of = |line: &str| of_iptables(line).into_iter().collect::<Vec<_>>();
        // As Docker writes them.
        assert_eq!(
            of("-A DOCKER ! -i docker0 -p tcp -m tcp --dport 25 -j DNAT --to-destination 172.17.0.2:2525\n"),
            [translation(25, 2525, Some("172.17.0.2"))]
        );
        assert_eq!(
            of(
                "-A PREROUTING -p tcp -m multiport --dports 143,993:994 -j DNAT --to-destination [2001:db8::2]"
            ),
            [143, 993, 994].map(|port| translation(port, port, Some("2001:db8::2")))
        );
        assert_eq!(
            of("-A PREROUTING -p tcp -m tcp --dport 143 -j REDIRECT --to-ports 1143"),
            [translation(143, 1143, None)]
        );
        for other in [
            "-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
            "-A PREROUTING -p udp -m udp --dport 53 -j DNAT --to-destination 192.0.2.1:53",
            "-A PREROUTING -p tcp -m tcp ! --dport 25 -j REDIRECT --to-ports 1",
            "-A PREROUTING -p tcp -j DNAT",
            ":PREROUTING ACCEPT [0:0]",
        ] {
            assert_eq!(of(other), [], "{other}");
        }
    }
}
