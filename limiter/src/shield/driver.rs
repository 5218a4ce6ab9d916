// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What an XDP program on a device costs traffic that it has nothing to say about, by the device's driver.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// Drivers whose native mode costs other traffic nothing but the program itself, some ten nanoseconds a frame:
/// it runs on the buffer the card has filled, without a copy; buffers are laid out in the same way with and
/// without a program (`i40e_rx_offset`, `ice_rx_offset`); checksums and hashes still come from the card; neither
/// driver has an offload that a program rules out, such as LRO; and GRO comes behind the program. What they cannot
/// do they refuse (frames larger than a buffer, too few queues). Read in `i40e_xdp_setup`
/// (`drivers/net/ethernet/intel/i40e/i40e_main.c`) and `ice_xdp_setup_prog`
/// (`drivers/net/ethernet/intel/ice/ice_main.c`), not measured. Both stop their queues for a moment when the first
/// program comes; an exchange of programs does not.
///
/// Not here, among others: `virtio_net` switches off the offloads of the guest (`virtnet_clear_guest_offloads`),
/// so every segment comes alone; `mlx5_core` gives each packet a page of its own (`mlx5e_xdp_set`); `ena` needs
/// half of the queues for the program; `tun` copies what comes in one piece (`tun_get_user`); `veth` unbundles
/// what its peer sends.
const FREE: [&str; 2] = ["i40e", "ice"];

/// Whether other traffic pays nothing for a native program with this driver.
pub fn is_free(driver: Option<&str>) -> bool {
    driver.is_some_and(|driver| FREE.contains(&driver))
}

/// Why `auto` leaves a device with this driver alone.
pub fn left_alone(driver: Option<&str>) -> String {
    let driver = driver.map_or("an unknown driver".to_owned(), |driver| format!("the driver {driver}"));
    format!(
        "\"auto\" skips {driver}, because other traffic would be slower; `interfaces = [...]` attaches it"
    )
}

/// What the native mode costs other traffic; none if nothing.
pub fn native_cost(driver: Option<&str>) -> Option<String> {
    match driver {
        driver if is_free(driver) => None,
        Some("virtio_net") => Some(
            "the offloads of this virtual machine are off: the host delivers each segment separately"
                .to_owned(),
        ),
        Some(driver) => Some(format!("its cost for other traffic with the driver {driver} is unknown")),
        None => Some("its cost for other traffic is unknown".to_owned()),
    }
}

/// What the generic mode costs (`netif_receive_generic_xdp`, net/core/dev.c).
pub fn generic_cost() -> String {
    "each incoming packet is copied for it, on every port".to_owned()
}

/// Asks for the drivers of devices (ethtool's `ETHTOOL_GDRVINFO`).
pub struct Drivers(OwnedFd);

/// The beginning of `struct ethtool_drvinfo`, and as much room as all of it takes (include/uapi/linux/ethtool.h).
#[repr(C)]
struct Info {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ifreq` as this request uses it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut Info,
    /// Of the union.
    rest: [u8; 16],
}

impl Drivers {
    /// Of the network namespace this thread is in: `/sys` may show another one's.
    pub fn open() -> nix::Result<Self> {
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map(Self)
    }

    /// The driver of a device; none where the kernel tells of none.
    pub fn of(&self, device: &str) -> Option<String> {
        const SIOCETHTOOL: libc::c_ulong = 0x8946;
        const ETHTOOL_GDRVINFO: u32 = 3;
        let mut info = Info { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
        let mut request = Request { name: [0; libc::IFNAMSIZ], data: &raw mut info, rest: [0; 16] };
        // One byte is left for the zero behind it.
        let name = request.name.get_mut(..device.len()).filter(|name| name.len() < libc::IFNAMSIZ)?;
        name.copy_from_slice(device.as_bytes());
        // SAFETY: the kernel reads and writes a `struct ifreq`, which is no larger than `request`, and writes a
        // `struct ethtool_drvinfo` of 196 bytes, the size of `info`, where it points to; both outlive the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
        if result < 0 {
            tracing::debug!("cannot find the driver of {device}: {}", io::Error::last_os_error());
            return None;
        }
        let end = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
        let name = String::from_utf8_lossy(&info.driver[..end]).into_owned();
        (!name.is_empty()).then_some(name)
    }
}

const _: () = assert!(size_of::<Info>() == 196);
const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_not_known_to_be_free_is_not() {
        for driver in ["i40e", "ice"] {
            assert!(is_free(Some(driver)));
            assert_eq!(native_cost(Some(driver)), None);
        }
        for driver in ["virtio_net", "mlx5_core", "ena", "veth", "tun", "bridge", "iavf", "ic", ""] {
            assert!(!is_free(Some(driver)), "{driver}");
            assert!(native_cost(Some(driver)).is_some(), "{driver}");
        }
        assert!(!is_free(None));
    }

    #[test]
    fn a_device_that_is_not_there_has_no_driver() {
        let drivers = Drivers::open().unwrap();
        assert_eq!(drivers.of("no-such-device"), None);
        assert_eq!(drivers.of("a-name-too-long-for-a-device"), None);
        assert_eq!(drivers.of(""), None);
    }
}
