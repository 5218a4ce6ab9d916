//! A network as the mail daemons write it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// An address and how much of it counts; the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

impl Net {
    /// Reads `ADDRESS` or `ADDRESS/BITS`, with or without brackets around an IPv6 address. Bits beyond
    /// the prefix are cut, a mapped IPv4 network is one of IPv4.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address: IpAddr = bare.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => bits,
        };
        (prefix <= bits).then(|| Self::new(address, prefix))
    }

    fn new(address: IpAddr, prefix: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self { address: Ipv4Addr::from(u32::from(v4) & mask).into(), prefix }
            }
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if prefix >= 96 => Self::new(v4.into(), prefix - 96),
                _ => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                    Self { address: Ipv6Addr::from(u128::from(v6) & mask).into(), prefix }
                }
            },
        }
    }

    /// Whether it is the host itself.
    pub fn is_loopback(&self) -> bool {
        self.address.is_loopback() && (self.address.is_ipv6() || self.prefix >= 8)
    }

    /// Whether it is everything there is.
    pub fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

impl fmt::Display for Net {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_single = self.prefix == if self.address.is_ipv4() { 32 } else { 128 };
        if is_single { self.address.fmt(out) } else { write!(out, "{}/{}", self.address, self.prefix) }
    }
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
            assert_eq!(Net::parse(written).unwrap().to_string(), read, "{written}");
        }
    }

    #[test]
    fn what_is_no_network_is_none() {
        for text in
            ["", "/", "example.com", "192.0.2.0/33", "192.0.2.0/+8", "192.0.2.0/", "10/8", "[::1", "::1/129"]
        {
            assert_eq!(Net::parse(text), None, "{text}");
        }
    }

    #[test]
    fn loopback_is_the_host_itself() {
        for (text, is) in
            [("127.0.0.0/8", true), ("[::1]/128", true), ("127.0.0.0/7", false), ("::/0", false)]
        {
            assert_eq!(Net::parse(text).unwrap().is_loopback(), is, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_the_same(address: IpAddr, prefix in 0u8..=32) {
            let net = Net::new(address, prefix);
            prop_assert_eq!(Net::parse(&net.to_string()), Some(net));
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]0-9a-f:./]*") {
            let _read = Net::parse(&text);
        }
    }
}
