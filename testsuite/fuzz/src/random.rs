//! A generator with a seed: a case is a function of its number, so it can be made again after a crash.

/// Vigna's splitmix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of case `index` under `seed`.
    pub fn new(seed: u64, index: u64) -> Self {
        let mut r = Random(seed ^ index.wrapping_mul(0xd134_2543_de82_ef95));
        r.next_u64();
        r
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.next_u64() % n as u64) as usize }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// An element; `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// An integer that is likely to sit on an edge.
    pub fn edge(&mut self) -> i64 {
        const EDGES: [i64; 22] = [
            0,
            1,
            -1,
            2,
            3,
            4,
            7,
            8,
            16,
            63,
            64,
            65,
            127,
            128,
            255,
            256,
            1 << 31,
            -(1 << 31),
            1 << 32,
            1 << 61,
            i64::MAX,
            i64::MIN,
        ];
        match self.below(4) {
            0 => self.below(16) as i64 - 4,
            1 => self.next_u64() as i64 >> self.below(64),
            2 => EDGES[self.below(EDGES.len())],
            _ => EDGES[self.below(EDGES.len())].wrapping_add(self.below(3) as i64 - 1),
        }
    }
}
