// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Where the running kernel keeps what the programs read of it.

use bytemuck::{Pod, Zeroable};

/// Offsets in bytes, from the running kernel's BTF. The loader sets them before the programs are
/// verified, so the verifier knows them as constants and checks each access against the type.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct Offsets {
    /// `snt_isn` in `struct tcp_request_sock`.
    pub snt_isn: u32,
    /// `rcv_isn` in `struct tcp_request_sock`.
    pub rcv_isn: u32,
    /// `ts_off` in `struct tcp_request_sock`.
    pub ts_off: u32,
    /// `snt_synack` in `struct tcp_request_sock`.
    pub snt_synack: u32,
    /// `mss` in `struct request_sock`.
    pub mss: u32,
    /// `ts_recent` in `struct request_sock`.
    pub ts_recent: u32,
    /// `skc_rcv_wnd`, the window of a request, in `struct sock_common`.
    pub skc_rcv_wnd: u32,
    /// `snd_wscale`, a bit field of 16 bits with the options agreed upon, in `struct inet_request_sock`.
    pub request_options: u32,
    /// `sk_max_ack_backlog` in `struct sock`.
    pub sk_max_ack_backlog: u32,
    /// `sk_userlocks`, four bits, in `struct sock`: of this place in bits.
    pub sk_userlocks: u32,
    /// `max_qlen` of a listener's queue for TCP Fast Open, in `struct tcp_sock`.
    pub fast_open_max_qlen: u32,
    /// `sk_shutdown`, the directions that are shut, in `struct sock`.
    pub sk_shutdown: u32,
    /// `sk_err` in `struct sock`.
    pub sk_err: u32,
    /// `skc_net` in `struct sock_common`.
    pub skc_net: u32,
    /// `skc_cookie`, 0 for a socket of which nobody has asked it, in `struct sock_common`.
    pub skc_cookie: u32,
    /// `skc_family` in `struct sock_common`.
    pub skc_family: u32,
    /// `skc_state` in `struct sock_common`.
    pub skc_state: u32,
    /// `skc_num`, the local port, in `struct sock_common`.
    pub skc_num: u32,
    /// `skc_daddr`, the remote IPv4 address, in `struct sock_common`.
    pub skc_daddr: u32,
    /// `skc_v6_daddr`, the remote IPv6 address, in `struct sock_common`.
    pub skc_v6_daddr: u32,
    /// `skc_ipv6only`, one bit, in `struct sock_common`: of this place in bits.
    pub skc_ipv6only: u32,
    /// `net_cookie` in `struct net`.
    pub net_cookie: u32,
    /// `sk_cgrp_data.cgroup` in `struct sock`.
    pub sk_cgroup: u32,
    /// `kn` in `struct cgroup`.
    pub cgroup_kn: u32,
    /// `self.parent` in `struct cgroup`.
    pub cgroup_parent: u32,
    /// `cgroup` in `struct cgroup_subsys_state`.
    pub css_cgroup: u32,
    /// `id` in `struct kernfs_node`.
    pub kn_id: u32,
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`: any bytes are a value, and there is no padding.
unsafe impl aya::Pod for Offsets {}
