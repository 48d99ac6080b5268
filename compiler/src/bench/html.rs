//! `bertc bench --html`: the report as one page that needs nothing else, neither network nor scripts.

use std::path::Path;

use bertc_ir::Diag;

use super::report::{facts, latencies, machine};
use super::{Results, profile, roofline};
use crate::output::Staged;
use crate::picture::html::escape;

const STYLE: &str = include_str!("page.css");

/// Writes the page.
///
/// # Errors
/// The file can't be written.
pub(super) fn write(path: &Path, r: &Results<'_>) -> Result<(), Vec<Diag>> {
    let page = render(r);
    let mut staged = Staged::default();
    staged.add(path, |w| w.write_all(page.as_bytes()).map_err(|e| vec![Diag::new(format!("can't write: {e}"))]))?;
    staged.commit().map(|_| ()).map_err(|d| vec![d])
}

fn render(r: &Results<'_>) -> String {
    let name = r.options.model.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let title = escape(&format!("bertc bench {name}"));
    let mut s = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<dl>\n"
    );
    for (what, value) in facts(r) {
        s += &format!("<dt>{}</dt><dd>{}</dd>\n", escape(&what), escape(&value));
    }
    s += "</dl>\n<h2>Latency</h2>\n";
    s += &latencies(r).html();
    s += "<h2>This machine</h2>\n";
    s += &machine(r).html();
    s += "<p>Measured between the model's runs: multiply-adds that touch no memory, in G a second, and bytes read from \
          memory and from the caches next to the CPUs.</p>\n";
    if let (Some(p), Some(row)) = (&r.profile, r.rows.first()) {
        let kernels = profile::by_kernel(p);
        s += &format!("<h2>Roofline, {}</h2>\n", profile::threads(p));
        s += &roofline::svg(row, &kernels);
        s += "<p>A disc for each kernel that multiplies, its area as its share of the time; the pointer over it tells more. \
              No kernel can be above the roof of its vectors' width, nor left of the line of the cache: all bytes that it has to \
              move come through there. The broken line of memory binds only the bytes that no cache can hold. Discs have the \
              colour of what binds them: blue for multiply-adds, green for the cache, orange for memory.</p>\n";
        s += "<h2>Kernels</h2>\n";
        s += &profile::kernels(p).html();
        s += "<p>The bound of a kernel is the longest of three times: its multiply-adds at the peak of its vectors' width, all \
              its constants, operands and results at the rate of the cache, and what of them can't be in the last-level cache \
              at that of memory.</p>\n";
        s += "<details>\n<summary>Steps in order</summary>\n";
        s += &profile::in_order(p).html();
        s += "</details>\n";
    }
    s + "</body>\n</html>\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bertc_ir::DType;

    use super::*;
    use crate::bench::bandwidth::Bandwidth;
    use crate::bench::bound::{Bound, Traffic};
    use crate::bench::peak::PeakKind;
    use crate::bench::profile::{Profile, StepInfo, StepTime};
    use crate::bench::{BenchOptions, PeakRate, Row};
    use crate::options::CompileOptions;

    fn options(model: &str) -> BenchOptions {
        BenchOptions {
            model: model.into(),
            compile: CompileOptions::default(),
            threads: vec![1],
            repeat: 3,
            warmup: 0,
            json: false,
            profile: true,
            trace: None,
            html: None,
            quiet: true,
        }
    }

    /// Results with two kernels that multiply and one that doesn't, all named `name`.
    fn results<'a>(o: &'a BenchOptions, name: &str) -> Results<'a> {
        let kind = |bits| PeakKind { dtype: DType::F32, bits };
        let step = |suffix, multiply_adds, bound| StepTime {
            info: StepInfo {
                kernel: format!("{name}{suffix}"),
                op: name.into(),
                node: Some(name.into()),
                multiply_adds,
                kind: kind(256),
                moved: Traffic { weights: 1 << 20, data: 1 << 16 },
            },
            time: Duration::from_millis(2),
            bound,
        };
        let compute = Bound { compute: 1e-3, time: 1e-3, ..Bound::default() };
        let memory = Bound { memory: 1e-3, time: 1e-3, ..Bound::default() };
        let steps = vec![step(0, 90_000_000, compute), step(1, 1 << 20, memory), step(2, 0, memory)];
        let row = Row {
            threads: 1,
            workspace: 4096,
            times: [1, 2, 3].map(Duration::from_millis).to_vec(),
            peaks: vec![PeakRate { kind: kind(128), rate: 28e9 }, PeakRate { kind: kind(256), rate: 57e9 }],
            bandwidth: Bandwidth { memory: 24e9, cache: 104e9 },
        };
        Results {
            options: o,
            target: "x86_64".into(),
            dims: vec![(name.into(), 7)],
            multiply_adds: 91_000_000,
            left_out: 9_000_000,
            stats: Default::default(),
            arena: Some(64),
            memory: None,
            last_level: None,
            read_bytes: 1 << 27,
            rows: vec![row],
            profile: Some(Profile { threads: 1, steps, fastest: Vec::new() }),
        }
    }

    /// The names of elements, each closed in its turn; panics where one is not.
    fn elements(page: &str) -> Vec<String> {
        let mut open: Vec<&str> = Vec::new();
        let mut all = Vec::new();
        let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a page");
        while let Some((text, after)) = rest.split_once('<') {
            assert!(!text.contains('>') || open.last() == Some(&"style"), "a stray '>' in {text:?}");
            let (tag, after) = after.split_once('>').expect("an end of the tag");
            rest = after;
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closed after {:?}", all.last());
                continue;
            }
            let name = tag.split([' ', '/']).next().unwrap_or_default();
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            all.push(name.to_string());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "left open: {open:?}");
        all
    }

    #[test]
    fn the_page_is_well_formed_and_needs_nothing_else() {
        let harmless = options("m.onnx");
        let expected = elements(&render(&results(&harmless, "x")));
        for name in ["</title><script>alert(1)</script>", "<!--", "\"'&<>", "</svg>", "@"] {
            let o = options(&format!("{}.onnx", name.replace('/', "")));
            let page = render(&results(&o, name));
            assert_eq!(elements(&page), expected, "{name}");
            for part in ["http:", "https:", "src=", "href=", "@import", "url(", "<script", "<link"] {
                assert!(!page.contains(part), "{part}");
            }
        }
        // Those that multiply; the one that doesn't has no place on a scale of powers.
        assert_eq!(expected.iter().filter(|e| *e == "circle").count(), 2);
        assert_eq!(expected.iter().filter(|e| *e == "table").count(), 4);
    }

    #[test]
    fn the_picture_stays_in_its_frame() {
        let o = options("m.onnx");
        let mut r = results(&o, "x");
        let inside = |r: &Results<'_>| {
            let page = render(r);
            for name in ["x", "y", "x1", "y1", "x2", "y2", "cx", "cy"] {
                for value in page.split(&format!(" {name}=\"")).skip(1) {
                    let value: f64 = value.split('"').next().unwrap().parse().unwrap();
                    let end = if name.contains('x') { 980.0 } else { 500.0 };
                    assert!((0.0..=end).contains(&value), "{name} is {value}");
                }
            }
            assert!(!page.contains("NaN") && !page.contains("inf"));
            page
        };
        let page = inside(&r);
        assert!(page.contains("256-bit FMA 57.00 G") && page.contains("memory 24.00 GB/s"), "{page}");
        // What no machine has, such as a clock too coarse for any rate.
        r.rows[0].bandwidth = Bandwidth::default();
        r.rows[0].peaks.clear();
        inside(&r);
        let times = r.profile.as_mut().unwrap().steps.iter_mut();
        times.for_each(|s| s.time = Duration::ZERO);
        inside(&r);
    }
}
