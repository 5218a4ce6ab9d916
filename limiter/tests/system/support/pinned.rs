//! The pinned ledger, changed behind the limiter's back.

use std::net::IpAddr;

use aya::maps::{HashMap, Map, MapData};
use limiter_common::{Addr, Entry, Key, Places};

use super::Limiter;

/// The ledger of an instance.
pub struct Ledger(HashMap<MapData, Key, Entry>);

impl Ledger {
    pub fn open(limiter: &Limiter) -> Self {
        let map = MapData::from_pin(limiter.pins().join("LEDGER")).expect("the ledger is pinned");
        Self(HashMap::try_from(Map::HashMap(map)).expect("it is a hash map"))
    }

    /// Makes the only entry of `source` hold so many connections, in one write that nobody may disturb.
    pub fn set_connections(&mut self, source: IpAddr, connections: u32) {
        let source = Addr::from(source);
        let mut of_source =
            self.0.iter().map(Result::unwrap).filter(|(key, _)| source.cut(key.prefix) == key.source);
        let (key, entry) = of_source.next().expect("the source is known");
        assert!(of_source.next().is_none(), "the source is known once");
        drop(of_source);
        let entry = Entry { places: Places(u64::from(connections)), ..entry };
        self.0.insert(key, entry, 0).expect("the entry is there");
    }
}
