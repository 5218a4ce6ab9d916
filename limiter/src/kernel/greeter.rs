// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which listener refused clients are led to.

use std::{os::fd::AsRawFd, path::Path};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, SkStorage, SockMap};

/// The maps that say so.
pub struct Steering {
    greeter: SockMap<MapData>,
    sockets: SkStorage<MapData, u32>,
}

impl Steering {
    /// Those that are pinned there.
    ///
    /// # Errors
    /// If there are none.
    pub fn open(pins: &Path) -> Result<Self> {
        let open = |name: &str| {
            MapData::from_pin(pins.join(name)).with_context(|| format!("cannot open the map {name}"))
        };
        Ok(Self {
            greeter: Map::SockMap(open("GREETER")?).try_into()?,
            sockets: Map::SkStorage(open("GREETER_SOCKETS")?).try_into()?,
        })
    }

    /// Makes `listener` the greeter: refused handshakes go to it from now on, and what it accepts is not counted.
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub fn lead_to(&mut self, listener: &impl AsRawFd) -> Result<()> {
        self.sockets.insert(listener, 1, 0).context("cannot mark the greeter's listener")?;
        self.greeter.set(0, listener, 0).context("cannot pass the greeter's listener to the kernel")
    }
}
