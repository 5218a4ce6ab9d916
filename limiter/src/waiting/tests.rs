// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Real clients whose handshakes are held back, on two hosts and a wire between them.
//!
//! Instead of the gate a filter of the listener drops the ACKs: it runs where the gate does, on the packet
//! that completes a handshake. The numbers come from the wire.

mod net;
mod scene;
mod wire;

mod ends;
mod finds;
mod probes;
mod speed;
mod takes_over;
