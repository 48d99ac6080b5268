use bertc_ir::kernel::{KernelBuilder, Reg, Un};

use super::constant;

/// 2^27 + 1: a product with it leaves half of the mantissa's bits (Veltkamp).
const HALVES: f64 = 134_217_729.0;

/// The sum hi + lo with |lo| of at most about an ulp of hi: a number of some 106 bits. Operations err by a few units in
/// their last place; infinities and overflows make NaN of lo.
#[derive(Clone, Copy)]
pub struct Pair {
    /// The nearest f64.
    pub hi: Reg,
    /// The rest.
    pub lo: Reg,
}

impl Pair {
    pub fn constant(b: &mut KernelBuilder, hi: f64, lo: f64) -> Pair {
        Pair { hi: constant(b, hi), lo: constant(b, lo) }
    }

    /// x + y, exactly (Knuth).
    pub fn sum(b: &mut KernelBuilder, x: Reg, y: Reg) -> Pair {
        let hi = b.add(x, y);
        let of_y = b.sub(hi, x);
        let of_x = b.sub(hi, of_y);
        let (x, y) = (b.sub(x, of_x), b.sub(y, of_y));
        Pair { hi, lo: b.add(x, y) }
    }

    /// x · y, exactly but for underflow (Dekker). Factors are below 2^996.
    pub fn product(b: &mut KernelBuilder, x: Reg, y: Reg) -> Pair {
        let hi = b.mul(x, y);
        let (x, y) = (halves(b, x), halves(b, y));
        let mut lo = b.un(Un::Neg, hi);
        for (x, y) in [(x.hi, y.hi), (x.hi, y.lo), (x.lo, y.hi), (x.lo, y.lo)] {
            let p = b.mul(x, y);
            lo = b.add(lo, p);
        }
        Pair { hi, lo }
    }

    pub fn add(self, b: &mut KernelBuilder, other: Pair) -> Pair {
        let hi = Pair::sum(b, self.hi, other.hi);
        let lo = b.add(self.lo, other.lo);
        let lo = b.add(hi.lo, lo);
        Pair::sum(b, hi.hi, lo)
    }

    pub fn mul(self, b: &mut KernelBuilder, other: Pair) -> Pair {
        let hi = Pair::product(b, self.hi, other.hi);
        let (p, q) = (b.mul(self.hi, other.lo), b.mul(self.lo, other.hi));
        let lo = b.add(p, q);
        let lo = b.add(hi.lo, lo);
        Pair::sum(b, hi.hi, lo)
    }

    pub fn div(self, b: &mut KernelBuilder, by: Pair) -> Pair {
        let q = b.div(self.hi, by.hi);
        let p = Pair::product(b, q, by.hi);
        let hi = b.sub(self.hi, p.hi);
        let hi = b.sub(hi, p.lo);
        let p = b.mul(q, by.lo);
        let lo = b.sub(self.lo, p);
        let rest = b.add(hi, lo);
        let rest = b.div(rest, by.hi);
        Pair::sum(b, q, rest)
    }

    /// Both halves times a power of two, of either sign, exactly but for underflow.
    pub fn scale(self, b: &mut KernelBuilder, power: f64) -> Pair {
        let power = constant(b, power);
        Pair { hi: b.mul(self.hi, power), lo: b.mul(self.lo, power) }
    }
}

/// x as a sum of two numbers of 26 bits, of which all products are exact.
fn halves(b: &mut KernelBuilder, x: Reg) -> Pair {
    let c = constant(b, HALVES);
    let big = b.mul(c, x);
    let rest = b.sub(big, x);
    let hi = b.sub(big, rest);
    Pair { hi, lo: b.sub(x, hi) }
}
