//! The roofline picture: multiply-adds a second over multiply-adds a byte, both on scales of powers, with the roofs that
//! this machine was measured to have and a disc for each kernel that multiplies.

use std::fmt::Write as _;
use std::time::Duration;

use super::bound::Binding;
use super::profile::{KernelTime, percent};
use super::report::giga;
use super::{Row, rate};
use crate::picture::html::escape;
use crate::progress::time;

/// Size of the picture, and of its margins: left, right, above, below.
const SIZE: (f64, f64) = (980.0, 500.0);
const MARGIN: (f64, f64, f64, f64) = (70.0, 24.0, 22.0, 48.0);

/// A kernel whose share of the time is less has no name beside its disc.
const NAMED: f64 = 0.01;
/// Height of a name and room for it, in the picture's units.
const NAME: (f64, f64) = (14.0, 150.0);

/// An axis whose ends are powers.
#[derive(Clone, Copy)]
struct Axis {
    /// Logarithms to base 10 of the values at its ends.
    ends: (f64, f64),
    /// Places of its ends.
    places: (f64, f64),
}

impl Axis {
    /// From below the least of `values` to above the greatest by a power of `above`; what is not positive and finite is
    /// left out.
    fn new(values: impl Iterator<Item = f64>, above: f64, places: (f64, f64)) -> Axis {
        let mut ends = (f64::MAX, f64::MIN);
        for v in values.filter(|v| v.is_finite() && *v > 0.0).map(f64::log10) {
            ends = (ends.0.min(v), ends.1.max(v));
        }
        if ends.0 > ends.1 {
            ends = (0.0, 1.0);
        }
        Axis { ends: (ends.0 - 0.25, ends.1 + above), places }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.max(f64::MIN_POSITIVE).log10() - self.ends.0) / (self.ends.1 - self.ends.0);
        self.places.0 + part.clamp(0.0, 1.0) * (self.places.1 - self.places.0)
    }

    fn first(&self) -> f64 {
        10f64.powf(self.ends.0)
    }

    fn last(&self) -> f64 {
        10f64.powf(self.ends.1)
    }

    /// Values to mark: powers of ten, and on short axes their double and fivefold.
    fn marks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.ends.1 - self.ends.0 > 3.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let powers = self.ends.0.floor() as i32..=self.ends.1.ceil() as i32;
        let all = powers.flat_map(|p| steps.iter().map(move |s| s * 10f64.powi(p)));
        all.filter(|v| (self.ends.0..=self.ends.1).contains(&v.log10())).collect()
    }
}

/// A disc.
struct Disc<'a> {
    kernel: &'a KernelTime<'a>,
    /// Multiply-adds a byte, and a second.
    at: (f64, f64),
    /// Part of the time of all steps.
    share: f64,
}

/// The picture for what was measured in `row`.
pub(super) fn svg(row: &Row, kernels: &[KernelTime<'_>]) -> String {
    let whole: Duration = kernels.iter().map(|k| k.time).sum();
    let multiplies = kernels.iter().filter(|k| k.multiply_adds > 0 && k.bytes > 0 && !k.time.is_zero());
    let discs: Vec<Disc<'_>> = multiplies
        .map(|k| Disc {
            kernel: k,
            at: (k.multiply_adds as f64 / k.bytes as f64, rate(k.multiply_adds, k.time)),
            share: k.time.as_secs_f64() / whole.as_secs_f64(),
        })
        .collect();
    let top = row.peaks.iter().map(|p| p.rate).fold(0.0, f64::max);
    let (memory, cache) = (row.bandwidth.memory, row.bandwidth.cache);
    // Both ridges are in the picture: left of them bytes bind, right of them multiply-adds.
    let xs = discs.iter().map(|d| d.at.0).chain([top / memory.max(1.0), top / cache.max(1.0)]);
    // With room for names on the right.
    let x = Axis::new(xs, 0.8, (MARGIN.0, SIZE.0 - MARGIN.1));
    let y = Axis::new(
        discs.iter().map(|d| d.at.1).chain(row.peaks.iter().map(|p| p.rate)),
        0.25,
        (SIZE.1 - MARGIN.3, MARGIN.2),
    );
    let mut s = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"roofline\">\n", SIZE.0, SIZE.1);
    // Writing to a string can't fail.
    let _ = axes(&mut s, x, y);
    let _ = roofs(&mut s, x, y, row, top);
    let _ = draw(&mut s, x, y, &discs);
    s + "</svg>\n"
}

fn axes(s: &mut String, x: Axis, y: Axis) -> std::fmt::Result {
    let (left, right, above, below) = (x.places.0, x.places.1, y.places.1, y.places.0);
    for v in x.marks() {
        let at = x.at(v);
        writeln!(s, "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{above:.1}\" x2=\"{at:.1}\" y2=\"{below:.1}\"/>")?;
        let label = number(v);
        writeln!(
            s,
            "<text class=\"axis\" text-anchor=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{label}</text>",
            below + 16.0
        )?;
    }
    for v in y.marks() {
        let at = y.at(v);
        writeln!(s, "<line class=\"grid\" x1=\"{left:.1}\" y1=\"{at:.1}\" x2=\"{right:.1}\" y2=\"{at:.1}\"/>")?;
        let label = number(v / 1e9);
        writeln!(
            s,
            "<text class=\"axis\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            left - 6.0,
            at + 4.0
        )?;
    }
    let (width, height) = (right - left, below - above);
    writeln!(s, "<rect class=\"frame\" x=\"{left}\" y=\"{above}\" width=\"{width}\" height=\"{height}\"/>")?;
    let middle = (left + right) / 2.0;
    let bottom = below + 36.0;
    writeln!(
        s,
        "<text class=\"axis\" text-anchor=\"middle\" x=\"{middle}\" y=\"{bottom}\">multiply-adds a byte</text>"
    )?;
    let middle = (above + below) / 2.0;
    writeln!(
        s,
        "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate(18 {middle}) rotate(-90)\">G multiply-adds a second</text>"
    )
}

/// A number for an axis, which is one, two or five of a power.
fn number(v: f64) -> String {
    if v >= 1.0 { format!("{v:.0}") } else { format!("{v:.6}").trim_end_matches('0').to_string() }
}

fn roofs(s: &mut String, x: Axis, y: Axis, row: &Row, top: f64) -> std::fmt::Result {
    for p in &row.peaks {
        let (at, lower) = (y.at(p.rate), if p.rate < top { " lower" } else { "" });
        let from = x.at(p.rate / row.bandwidth.cache.max(1.0));
        writeln!(s, "<path class=\"roof{lower}\" d=\"M{from:.1} {at:.1}H{:.1}\"/>", x.places.1)?;
    }
    // Of peaks that are nearly the same, one line of text for all.
    let mut named: Vec<(f64, String)> = Vec::new();
    for p in &row.peaks {
        let at = y.at(p.rate);
        match named.iter_mut().find(|n| (n.0 - at).abs() < NAME.0) {
            Some(n) => n.1 += &format!(", {} {} G", p.kind, giga(p.rate)),
            None => named.push((at, format!("{} {} G", p.kind, giga(p.rate)))),
        }
    }
    for (at, text) in named {
        let (end, above) = (x.places.1 - 6.0, at - 5.0);
        writeln!(
            s,
            "<text class=\"name\" text-anchor=\"end\" x=\"{end:.1}\" y=\"{above:.1}\">{}</text>",
            escape(&text)
        )?;
    }
    for (class, what, bytes) in [("cache", "cache", row.bandwidth.cache), ("memory", "memory", row.bandwidth.memory)] {
        if bytes <= 0.0 {
            continue;
        }
        // From where it enters the picture, at the left or from below, up to the highest peak.
        let from = x.first().max(y.first() / bytes);
        let to = (top / bytes).min(x.last());
        let ends = [from, to].map(|v| (x.at(v), y.at(v * bytes)));
        let [(x1, y1), (x2, y2)] = ends;
        writeln!(s, "<path class=\"roof {class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>")?;
        let angle = (y2 - y1).atan2(x2 - x1).to_degrees();
        let (mx, my) = (x1 + 0.3 * (x2 - x1), y1 + 0.3 * (y2 - y1));
        writeln!(
            s,
            "<text class=\"name\" text-anchor=\"middle\" transform=\"translate({mx:.1} {my:.1}) rotate({angle:.1})\" dy=\"-6\">{what} {} GB/s</text>",
            giga(bytes)
        )?;
    }
    Ok(())
}

fn draw(s: &mut String, x: Axis, y: Axis, discs: &[Disc<'_>]) -> std::fmt::Result {
    // Areas are as shares; the least is still to be seen.
    let radius = |d: &Disc<'_>| 3.0 + 26.0 * d.share.clamp(0.0, 1.0).sqrt();
    for d in discs {
        let (cx, cy) = (x.at(d.at.0), y.at(d.at.1));
        let class = match d.kernel.bound.by() {
            Some(Binding::Memory) => "memory",
            Some(Binding::Cache) => "cache",
            _ => "compute",
        };
        writeln!(s, "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"{:.1}\">", radius(d))?;
        writeln!(s, "<title>{}</title></circle>", escape(&about(d)))?;
    }
    // Names from above, each below those that it would cover: so leads don't cross.
    let mut named: Vec<&Disc<'_>> = discs.iter().filter(|d| d.share >= NAMED).collect();
    named.sort_by(|a, b| b.at.1.total_cmp(&a.at.1));
    let right = named.iter().map(|d| x.at(d.at.0) + radius(d) + 8.0).fold(0.0, f64::max);
    let mut above = f64::MIN;
    for d in named {
        let (cx, cy) = (x.at(d.at.0), y.at(d.at.1));
        let (nx, ny) = (right.min(x.places.1 - NAME.1), (cy + 4.0).max(above + NAME.0).min(y.places.0));
        above = ny;
        let (from, to) = (nx - 3.0, ny - 4.0);
        writeln!(s, "<line class=\"lead\" x1=\"{cx:.1}\" y1=\"{cy:.1}\" x2=\"{from:.1}\" y2=\"{to:.1}\"/>")?;
        let name = escape(&format!("{} {:.0}%", d.kernel.kernel, 100.0 * d.share));
        writeln!(s, "<text class=\"name\" x=\"{nx:.1}\" y=\"{ny:.1}\">{name}</text>")?;
    }
    Ok(())
}

/// What the pointer over a disc shows.
fn about(d: &Disc<'_>) -> String {
    let k = d.kernel;
    let by = k.bound.by().map_or("nothing", Binding::name);
    format!(
        "{} ({}), {} steps, {}, {:.1}% of the time\n{} G multiply-adds a second, {:.1} a byte\n{:.1}% of its bound, which is {by}",
        k.kernel,
        k.op,
        k.steps,
        time(k.time),
        100.0 * d.share,
        giga(d.at.1),
        d.at.0,
        percent(&k.bound, k.time)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_mark_powers_and_hold_all_values() {
        let a = Axis::new([3.0, 40.0, 0.0, f64::NAN].into_iter(), 0.25, (100.0, 0.0));
        assert_eq!(a.marks(), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert!(a.at(3.0) < 100.0 && a.at(40.0) > 0.0 && a.at(3.0) > a.at(40.0));
        assert_eq!((a.at(0.0), a.at(f64::MAX)), (100.0, 0.0));
        let far = Axis::new([1e-3, 1e9].into_iter(), 0.25, (0.0, 1.0));
        assert!(far.marks().len() <= 13 && far.marks().contains(&1e3), "{:?}", far.marks());
        let none = Axis::new(std::iter::empty(), 0.25, (0.0, 1.0));
        assert!(none.first() < none.last());
        assert_eq!((number(20.0), number(0.5), number(0.002)), ("20".into(), "0.5".into(), "0.002".into()));
    }
}
