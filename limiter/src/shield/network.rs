// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The links of this network namespace, and which of them lead to the world.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context as _, Result};
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, XdpAttached},
    route::{RouteAttribute, RouteMessage, RouteType},
};
use nix::sys::socket::SockProtocol;

use super::driver::{self, Drivers};
use crate::{
    config::Interfaces,
    netlink::{self, Message},
};

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub name: String,
    pub is_up: bool,
    /// Whether its frames begin with an Ethernet header.
    pub is_ethernet: bool,
    /// Of a VLAN, the device that its frames come through.
    pub carrier: Option<u32>,
    /// Whether it is the end of a pair within this machine.
    pub is_veth: bool,
    /// The name of its driver; none where the kernel tells of none.
    pub driver: Option<String>,
    /// The XDP program it has.
    pub program: Option<Program>,
}

/// An XDP program on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its id; 0 where there are several.
    pub id: u32,
    /// Whether the driver runs it, and not the kernel behind the driver.
    pub is_native: bool,
}

/// What there is.
#[derive(Default)]
pub struct Network {
    /// By index.
    pub links: BTreeMap<u32, Link>,
    /// Indices of those with a public address or a default route.
    facing: BTreeSet<u32>,
}

/// Where the shield should be, or should not although it could.
#[derive(Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    /// The link; none by that name if none.
    pub index: Option<u32>,
    /// Why it is left alone, if it is.
    pub left_alone: Option<String>,
}

impl Network {
    /// Of the network namespace this thread is in.
    pub fn read() -> Result<Self> {
        let mut network = Self::default();
        let dump = |message| netlink::dump(SockProtocol::NetlinkRoute, message);
        for message in dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
            network.links.extend(link(&message));
        }
        for message in dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
            if netlink::local_address(&message).is_some_and(is_public) {
                let index = message.fixed::<AddressMessage>().map(|message| message.header.index);
                network.facing.extend(index);
            }
        }
        for message in dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))? {
            if is_default(&message) {
                network.facing.extend(ways(&message));
            }
        }
        let drivers = Drivers::open().context("cannot query the drivers of interfaces")?;
        for link in network.links.values_mut() {
            link.driver = drivers.of(&link.name);
        }
        Ok(network)
    }

    /// Whether there are other links than in `before`, apart from the programs on them.
    pub fn has_other_links(&self, before: &Self) -> bool {
        let links = |network: &Self| -> Vec<(u32, Link)> {
            let plain = |(&index, link): (&u32, &Link)| (index, Link { program: None, ..link.clone() });
            network.links.iter().map(plain).collect()
        };
        self.facing != before.facing || links(self) != links(before)
    }

    /// Where the shield should be by the configuration.
    pub fn wanted(&self, interfaces: &Interfaces) -> Vec<Wanted> {
        match interfaces {
            Interfaces::Named(names) => {
                let wanted = |name: &String| {
                    let found = self.links.iter().find(|(_, link)| link.name == *name);
                    Wanted { name: name.clone(), index: found.map(|(&index, _)| index), left_alone: None }
                };
                names.iter().map(wanted).collect()
            }
            Interfaces::Auto => {
                let mut facing = BTreeSet::new();
                for &index in &self.facing {
                    if self.links.get(&index).is_some_and(|link| link.is_up) {
                        facing.insert(self.carrier(index));
                    }
                }
                let wanted = |index: u32| {
                    // Nobody has asked for it here, so nobody else shall pay for it.
                    let link = self.links.get(&index)?;
                    let driver = link.driver.as_deref();
                    let left_alone = (!driver::is_free(driver)).then(|| driver::left_alone(driver));
                    Some(Wanted { name: link.name.clone(), index: Some(index), left_alone })
                };
                facing.into_iter().filter_map(wanted).collect()
            }
        }
    }

    /// The device under all VLANs: its driver may have a native mode, theirs has none.
    fn carrier(&self, mut index: u32) -> u32 {
        // As many as can be stacked (`MAX_NEST_DEV`, include/linux/netdevice.h).
        for _ in 0..8 {
            match self.links.get(&index).and_then(|link| link.carrier) {
                Some(carrier) if self.links.contains_key(&carrier) => index = carrier,
                _ => break,
            }
        }
        index
    }
}

fn link(message: &Message) -> Option<(u32, Link)> {
    let LinkMessage { header, .. } = message.fixed()?;
    if header.flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let mut link = Link {
        is_up: header.flags.contains(LinkFlags::Up),
        is_ethernet: header.link_layer_type == LinkLayerType::Ether,
        ..Link::default()
    };
    let (mut below, mut is_vlan, mut is_below_elsewhere) = (None, false, false);
    for attribute in message.each::<LinkMessage>().flat_map(|message| message.attributes) {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Link(index) => below = Some(index),
            LinkAttribute::LinkNetNsId(_) => is_below_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                is_vlan = infos.contains(&LinkInfo::Kind(InfoKind::Vlan));
                link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            LinkAttribute::Xdp(said) => link.program = program(&said),
            _ => {}
        }
    }
    link.carrier = below.filter(|_| is_vlan && !is_below_elsewhere);
    Some((header.index, link))
}

fn program(said: &[LinkXdp]) -> Option<Program> {
    let id = said.iter().find_map(|xdp| if let LinkXdp::ProgId(id) = xdp { Some(*id) } else { None });
    let attached =
        said.iter().find_map(|xdp| if let LinkXdp::Attached(how) = xdp { Some(*how) } else { None });
    let is_native = match attached? {
        XdpAttached::None => return None,
        XdpAttached::SocketBuffer => false,
        _ => true,
    };
    Some(Program { id: id.unwrap_or_default(), is_native })
}

/// Whether it is of a route to everywhere: of any table, since a rule may point to it.
fn is_default(message: &Message) -> bool {
    message.fixed::<RouteMessage>().is_some_and(|RouteMessage { header, .. }| {
        header.destination_prefix_length == 0 && header.kind == RouteType::Unicast
    })
}

/// The links that a route goes through.
fn ways(message: &Message) -> Vec<u32> {
    let of = |attribute| match attribute {
        RouteAttribute::Oif(link) => vec![link],
        RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
        _ => Vec::new(),
    };
    message.each::<RouteMessage>().flat_map(|message| message.attributes).flat_map(of).collect()
}

/// Whether the world may be at the other end: not for private use (RFC 1918, RFC 6598, RFC 4193), nor for
/// one link only (RFC 3927, RFC 4291). Addresses for documentation pass for public.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            !(v4.is_private() || v4.is_link_local() || v4.is_loopback() || v4.is_unspecified() || is_shared)
        }
        IpAddr::V6(v6) => {
            !(v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback() || v6.is_unspecified())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> Link {
        let driver = Some("ice".to_owned());
        Link { name: name.to_owned(), is_up: true, is_ethernet: true, driver, ..Link::default() }
    }

    fn names(network: &Network, interfaces: &Interfaces) -> Vec<String> {
        let wanted = network.wanted(interfaces).into_iter();
        wanted.filter(|wanted| wanted.left_alone.is_none()).map(|wanted| wanted.name).collect()
    }

    #[test]
    fn auto_leaves_alone_where_other_traffic_would_pay_and_names_do_not() {
        let with = |driver: Option<&str>| Link { driver: driver.map(str::to_owned), ..link("eth") };
        let drivers = [Some("ice"), Some("virtio_net"), Some("veth"), Some("bridge"), Some("i40e"), None];
        let links = (2..)
            .zip(drivers.map(with))
            .map(|(index, link)| (index, Link { name: format!("eth{index}"), ..link }));
        let network = Network { links: links.collect(), facing: (2..8).collect() };
        assert_eq!(names(&network, &Interfaces::Auto), ["eth2", "eth6"]);
        let all = network.wanted(&Interfaces::Auto);
        assert_eq!(all.len(), 6, "each is told of");
        let why = all[1].left_alone.as_deref().unwrap();
        assert!(why.contains("skips the driver virtio_net"), "{why}");
        let named: Vec<String> = (2..8).map(|index| format!("eth{index}")).collect();
        assert_eq!(names(&network, &Interfaces::Named(named.clone())), named);
    }

    #[test]
    fn auto_is_what_faces_the_world_and_is_up_below_its_vlans() {
        let links = BTreeMap::from([
            (2, link("eth0")),
            (3, link("eth1")),
            (4, Link { carrier: Some(3), ..link("eth1.5") }),
            (5, Link { carrier: Some(4), ..link("eth1.5.6") }),
            (6, Link { is_up: false, ..link("eth2") }),
            (7, Link { carrier: Some(99), ..link("elsewhere") }),
            (8, link("inside")),
        ]);
        let network = Network { links, facing: BTreeSet::from([2, 5, 6, 7]) };
        assert_eq!(names(&network, &Interfaces::Auto), ["eth0", "eth1", "elsewhere"]);
    }

    #[test]
    fn names_are_wanted_whether_they_are_there_or_not() {
        let network = Network { links: BTreeMap::from([(2, link("eth0"))]), facing: BTreeSet::from([2]) };
        let named = Interfaces::Named(vec!["eth0".to_owned(), "eth9".to_owned()]);
        assert_eq!(
            network.wanted(&named),
            [
                Wanted { name: "eth0".to_owned(), index: Some(2), left_alone: None },
                Wanted { name: "eth9".to_owned(), index: None, left_alone: None }
            ]
        );
        assert_eq!(names(&network, &Interfaces::Named(Vec::new())), [""; 0]);
    }

    #[test]
    fn a_program_makes_no_other_link() {
        let network = |link| Network { links: BTreeMap::from([(2, link)]), facing: BTreeSet::from([2]) };
        let before = network(link("eth0"));
        let program = Some(Program { id: 7, is_native: true });
        assert!(!network(Link { program, ..link("eth0") }).has_other_links(&before));
        assert!(network(link("eth1")).has_other_links(&before));
        assert!(network(Link { is_up: false, ..link("eth0") }).has_other_links(&before));
        assert!(Network { facing: BTreeSet::new(), ..network(link("eth0")) }.has_other_links(&before));
    }

    #[test]
    fn private_addresses_face_nobody() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for address in ["192.0.2.1", "8.8.8.8", "100.128.0.1", "2001:db8::1", "2a00::1"] {
            assert!(public(address), "{address}");
        }
        for address in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.1.1",
            "127.0.0.1",
            "fd00::1",
            "fe80::1",
            "::1",
        ] {
            assert!(!public(address), "{address}");
        }
    }

    #[test]
    fn every_way_of_a_route_is_seen() {
        let ways = |attributes: &[u8]| ways(&Message::of([&[0; 12], attributes].concat()));
        let single = [&8_u16.to_ne_bytes()[..], &4_u16.to_ne_bytes(), &7_u32.to_ne_bytes()].concat();
        assert_eq!(ways(&single), [7]);
        let hop = |link: u32| [&8_u16.to_ne_bytes()[..], &[0, 0], &link.to_ne_bytes()].concat();
        let several = [&20_u16.to_ne_bytes()[..], &9_u16.to_ne_bytes(), &hop(3), &hop(4)].concat();
        assert_eq!(ways(&several), [3, 4]);
    }
}
