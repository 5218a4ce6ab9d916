// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Chance that needs no luck: the same sequence for the same seed.

/// A generator of Marsaglia's (xorshift64*).
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (seed << 32 | 0x1234_5677))
    }

    /// 32 bits.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// One of `0..sides`.
    pub fn below(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    /// One of `0..sides`, as an index.
    pub fn index(&mut self, sides: usize) -> usize {
        (self.next() % sides as u64) as usize
    }

    /// Whether something of which `percent` out of a hundred are true is.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }
}
