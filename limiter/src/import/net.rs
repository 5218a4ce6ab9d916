// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A network as the mail daemons write it.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads `ADDRESS` or `ADDRESS/BITS`, with or without brackets around an IPv6 address. Bits beyond the
/// prefix are cut, a mapped IPv4 network is one of IPv4.
pub fn parse(text: &str) -> Option<IpNet> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().ok()?;
    let prefix = match prefix {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
        None => IpNet::from(address).max_prefix_len(),
    };
    let network = IpNet::new(address, prefix).ok()?.trunc();
    match network.addr() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpNet::new(v4.into(), prefix.checked_sub(96)?).ok(),
            None => Some(network),
        },
        IpAddr::V4(_) => Some(network),
    }
}

/// Whether nothing is set behind the prefix of the network in `text`.
pub fn is_without_host_bits(text: &str) -> bool {
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match (bare.parse(), prefix.parse()) {
        (Ok(address), Ok(prefix)) => {
            IpNet::new(address, prefix).is_ok_and(|network| network.trunc() == network)
        }
        (address, _) => address.is_ok() && prefix.is_empty(),
    }
}

/// As people write it: a single address without its prefix.
pub fn shown(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() {
        network.addr().to_string()
    } else {
        network.to_string()
    }
}

/// Whether it is the host itself.
pub fn is_loopback(network: &IpNet) -> bool {
    match network {
        IpNet::V4(v4) => v4.network().is_loopback() && v4.prefix_len() >= 8,
        IpNet::V6(v6) => v6.network().is_loopback(),
    }
}

/// Whether `text` is an address or a name of the host itself.
pub fn is_own_host(text: &str) -> bool {
    text == "localhost" || parse(text).is_some_and(|network| is_loopback(&network))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_read_as_the_daemons_write_them() {
        for (written, read) in [
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("[2001:db8::]/32", "2001:db8::/32"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("[::ffff:127.0.0.0]/104", "127.0.0.0/8"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("198.51.100.7/32", "198.51.100.7"),
        ] {
            assert_eq!(shown(&parse(written).unwrap()), read, "{written}");
        }
    }

    #[test]
    fn what_is_no_network_is_none() {
        for text in
            ["", "/", "example.com", "192.0.2.0/33", "192.0.2.0/+8", "192.0.2.0/", "10/8", "[::1", "::1/129"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_is_the_host_itself() {
        for (text, is) in
            [("127.0.0.0/8", true), ("[::1]/128", true), ("127.0.0.0/7", false), ("::/0", false)]
        {
            assert_eq!(is_loopback(&parse(text).unwrap()), is, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_the_same_and_is_a_network_of_the_configuration(address: IpAddr, prefix in 0u8..=128) {
            if let Some(network) = parse(&format!("{address}/{prefix}")) {
                let shown = shown(&network);
                prop_assert_eq!(parse(&shown), Some(network));
                prop_assert_eq!(crate::config::parse_network(&shown).unwrap(), network);
            }
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]0-9a-f:./]*") {
            let _read = parse(&text);
        }
    }
}
