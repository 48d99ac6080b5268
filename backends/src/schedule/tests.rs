//! Round trips of random programs, the examples of the documentation, errors with their places, and each invariant of
//! the verifier broken once.

use bertc_ir::kernel::{Elem, Kernel, KernelBuilder, Param, RegType};
use bertc_ir::text::{line_col, no_resources, resource_key};
use bertc_ir::{DType, Diag, Dim, Loc, Symbols, Tensor, TensorType};
use proptest::prelude::*;

use super::parse;
use crate::arena;
use crate::plan::{Arg, Chunk, ConstData, ConstLayout, Lane, Part, PortSpec, Program, Step};

const PAGE: &str = include_str!("../../../docs/scheduled-ir.md");

/// Decisions drawn from proptest's bytes; past their end all are 0.
struct Choices<'a>(std::slice::Iter<'a, u32>);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |&v| v as usize % n.max(1))
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn of<T: Clone>(&mut self, v: &[T]) -> T {
        v[self.below(v.len())].clone()
    }

    fn dim(&mut self, symbols: &Symbols) -> Dim {
        let mut d = Dim::constant(self.of(&[4, 64, 1, 3072]));
        for (s, _) in symbols.iter() {
            match self.below(3) {
                0 => d = d.mul(&s.into()).unwrap(),
                1 => d = d.add(&s.into()).unwrap(),
                _ => {}
            }
        }
        d
    }

    fn chunk(&mut self) -> Chunk {
        let share = Chunk::Share { multiple: 4, most: 32 };
        self.of(&[Chunk::Fixed(1), Chunk::Fixed(16384), share, Chunk::Share { multiple: 1, most: 7 }])
    }

    fn tensor(&mut self, dtype: DType, shape: Vec<usize>) -> Tensor {
        let n = shape.iter().product::<usize>() * dtype.size();
        let seed = self.below(100);
        let bytes: Vec<u8> = (0..n).map(|i| if dtype == DType::Bool { 1 } else { (i * 7 + seed) as u8 }).collect();
        Tensor::new(dtype, shape, bytes.into()).unwrap()
    }

    fn constant(&mut self) -> ConstData {
        if self.flag() {
            let (dtype, shape) = (self.of(&DType::ALL), self.of(&[vec![], vec![3], vec![5, 9], vec![0, 2]]));
            let rounds = matches!(dtype, DType::F32 | DType::F16 | DType::BF16) && self.flag();
            let layout = if rounds { ConstLayout::Rounded } else { ConstLayout::Plain };
            return ConstData { parts: vec![self.tensor(dtype, shape).into()], layout };
        }
        let (trans, k) = (self.flag(), 1 + self.below(4));
        let dtype = self.of(&[DType::F32, DType::F16, DType::BF16, DType::I32]);
        let mut columns = vec![16; self.below(3)];
        columns.push(1 + self.below(33));
        let shape = |n| if trans { vec![n, k] } else { vec![k, n] };
        let parts = columns.into_iter().map(|n| self.tensor(dtype, shape(n)).into()).collect();
        let pairs = dtype != DType::I32 && k % 2 == 0 && self.flag();
        let lane = if pairs { Lane::Bf16x2 } else { Lane::One };
        ConstData { parts, layout: ConstLayout::Packed { trans, lane } }
    }

    fn kernel(&mut self, i: usize) -> Kernel {
        let mut b = KernelBuilder::new(format!("{}{i}", self.of(&["linear_", "a kernel ", "7."])));
        for p in 0..1 + self.below(5) {
            let name = format!("{}{p}", self.of(&["p", "the \"p\" "]));
            let dtype = self.of(&[DType::F32, DType::I64, DType::F32]);
            match self.below(3) {
                0 => _ = b.input(name, dtype),
                1 => _ = b.int_param(name),
                _ => {
                    let y = b.output(name, DType::F32);
                    let (at, v) = (b.int(0), b.const_f(RegType::scalar(Elem::F32), 0.1));
                    b.store(y, at, 0, v);
                }
            }
        }
        b.finish()
    }

    /// A step of kernel `k`. `written`: the buffers so far, `sizes`: those of all buffers.
    fn step(
        &mut self,
        p: &Program,
        k: usize,
        written: &mut Vec<usize>,
        sizes: &mut Vec<Dim>,
        output: Option<usize>,
    ) -> Step {
        let params = &p.kernels[k].params;
        let mut args: Vec<Option<Arg>> = vec![None; params.len()];
        let mut new: Vec<usize> = Vec::new();
        let mut output = output;
        for (a, param) in args.iter_mut().zip(params) {
            *a = match param {
                Param::Int { .. } if self.flag() => Some(Arg::Int(self.dim(&p.symbols))),
                Param::Int { .. } => Some(Arg::Chunk(self.dim(&p.symbols), self.chunk())),
                Param::Ptr { write: false, .. } => None,
                Param::Ptr { .. } => Some(match (output.take(), self.below(4)) {
                    (Some(o), _) => Arg::Output(o),
                    (None, 0) => Arg::Scratch(64 * self.below(9) as u64),
                    (None, 1) if written.iter().any(|b| !new.contains(b)) => {
                        let old: Vec<usize> = written.iter().copied().filter(|b| !new.contains(b)).collect();
                        let b = self.of(&old);
                        new.push(b);
                        Arg::Buffer(b)
                    }
                    _ => {
                        // Few sizes, so that slots are shared.
                        sizes.push(if self.below(3) > 0 && !sizes.is_empty() {
                            sizes[0].clone()
                        } else {
                            self.dim(&p.symbols)
                        });
                        new.push(sizes.len() - 1);
                        Arg::Buffer(sizes.len() - 1)
                    }
                }),
            };
        }
        let mut readable: Vec<Arg> = written.iter().filter(|b| !new.contains(b)).map(|&b| Arg::Buffer(b)).collect();
        // Recent ones twice, so that others die.
        readable.extend(readable.last().cloned());
        readable.extend((0..p.inputs.len()).map(Arg::Input).chain((0..p.consts.len()).map(Arg::Const)));
        readable.push(Arg::Scratch(128));
        let args: Vec<Arg> = args.into_iter().map(|a| a.unwrap_or_else(|| self.of(&readable))).collect();
        let mut in_place = Vec::new();
        for (o, to) in params.iter().enumerate() {
            for (i, from) in params.iter().enumerate() {
                if let (Param::Ptr { dtype: a, write: true, .. }, Param::Ptr { dtype: b, write: false, .. }) =
                    (to, from)
                    && a.size() == b.size()
                    && self.flag()
                {
                    in_place.push((o, i));
                }
            }
        }
        for b in new {
            if !written.contains(&b) {
                written.push(b);
            }
        }
        let tasks = (0..self.below(3)).map(|_| (self.dim(&p.symbols), self.chunk())).collect();
        let source = self.of(&["", "linear (MatMul /layer.0/\"x\")", "a\nb"]).to_string();
        Step { kernel: k, args, tasks, fallible: false, in_place, source }
    }

    fn program(&mut self) -> Program {
        let mut symbols = Symbols::default();
        for s in ["batch", "max", "scratch", "by"] {
            if self.flag() {
                symbols.intern(s, self.below(2) as i64, 8);
            }
        }
        let mut port = |names: &[&str], symbols: &Symbols| {
            let ty = TensorType::new(self.of(&DType::ALL), (0..self.below(3)).map(|_| self.dim(symbols)).collect());
            PortSpec { name: self.of(names).to_string(), ty }
        };
        let inputs = ["ids", "c0", "input:1"].map(|n| port(&[n, "x", "s0"], &symbols)).into();
        let outputs = ["y", "b0"].map(|n| port(&[n, "x", "ü \"\\"], &symbols)).into();
        let mut kernels: Vec<Kernel> = (0..1 + self.below(4)).map(|i| self.kernel(i)).collect();
        let mut b = KernelBuilder::new("out");
        b.output("y", DType::F32);
        kernels.push(b.finish());
        let consts = (0..self.below(4)).map(|_| self.constant()).collect();
        let name = self.of(&["main", "a program", "7"]).to_string();
        let (buffers, slots, steps) = Default::default();
        let mut p = Program { name, symbols, inputs, outputs, kernels, consts, buffers, slots, steps };
        let (mut written, mut sizes) = (Vec::new(), Vec::new());
        for _ in 0..self.below(25) {
            let k = self.below(p.kernels.len());
            let mut step = self.step(&p, k, &mut written, &mut sizes, None);
            step.fallible = self.flag();
            p.steps.push(step);
        }
        for o in 0..p.outputs.len() {
            let step = self.step(&p, p.kernels.len() - 1, &mut written, &mut sizes, Some(o));
            p.steps.push(step);
        }
        // A size that no step uses.
        sizes.push(1.into());
        (p.buffers, p.slots) = arena::plan(&sizes, &p.steps, &p.symbols);
        p
    }
}

fn places(text: &str, errors: &[Diag]) -> Vec<(usize, String)> {
    let place = |d: &Diag| match d.loc {
        Loc::Text { start, .. } => (line_col(text, start).0, d.message.clone()),
        _ => panic!("{d:?} has no place"),
    };
    errors.iter().map(place).collect()
}

fn read(text: &str) -> Program {
    parse(text, &no_resources).unwrap_or_else(|e| panic!("{:#?}\n{text}", places(text, &e)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_round_trip(choices in prop::collection::vec(any::<u32>(), 0..600)) {
        let p = Choices(choices.iter()).program();
        let text = p.print();
        prop_assert_eq!(p.verify(), Ok(()), "{}", text);
        let back = read(&text);
        prop_assert!(back == p.canonical(), "{}", text);
        prop_assert_eq!(back.print(), p.canonical().print());
        // With the weights at hand nothing is elided.
        let parts = || p.consts.iter().flat_map(|c| &c.parts).filter_map(|p| p.tensor().ok());
        let full = parse(&text, &|key| parts().find(|t| resource_key(t) == key).cloned()).unwrap();
        let elided = full.consts.iter().flat_map(|c| &c.parts).any(|p| matches!(p, Part::Elided { .. }));
        prop_assert!(!elided && full == back);
    }

    #[test]
    fn damaged_text_does_not_panic(
        choices in prop::collection::vec(any::<u32>(), 0..300),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), ".{0,2}"), 1..4),
    ) {
        let mut text = Choices(choices.iter()).program().print();
        for (at, with) in cuts {
            let at = at.index(text.len() + 1);
            let at = (0..=at).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
            let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
            text.replace_range(at..end, &with);
        }
        match parse(&text, &no_resources) {
            Ok(p) => prop_assert!(p.verify().is_ok()),
            Err(e) => prop_assert!(!e.is_empty()),
        }
    }
}

/// The `sir` blocks with the line each starts on.
fn examples() -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines().enumerate();
    while let Some((i, line)) = lines.next() {
        if line == "```sir" {
            let body = lines.by_ref().map(|(_, l)| l).take_while(|l| *l != "```").collect::<Vec<_>>().join("\n");
            found.push((i + 2, body));
        }
    }
    found
}

#[test]
fn examples_parse_verify_and_print() {
    assert!(examples().len() >= 2);
    for (line, text) in examples() {
        let p = parse(&text, &no_resources).unwrap_or_else(|e| {
            let e: Vec<_> = places(&text, &e).into_iter().map(|(l, m)| (line - 1 + l, m)).collect();
            panic!("docs/scheduled-ir.md: {e:#?}");
        });
        let printed = p.print();
        let back = read(&printed);
        assert!(back == p.canonical(), "docs/scheduled-ir.md:{line}\n{printed}");
        assert_eq!(back.print(), p.canonical().print());
    }
}

/// The first example of the documentation with `from` replaced by `to`.
fn changed(from: &str, to: &str) -> String {
    let text = &examples()[0].1;
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

#[test]
fn errors_have_places_and_come_together() {
    let text = "\
kernel @k(%y: mut ptr<f32>) task %t {
}
dims n in 1..=9
program @p(%x: tensor<n x f32>) -> (%y: tensor<n x f32>) {
  const %c : packed<2 x 3 x f32> = dense<0.5> : tensor<2 x 4 x f32>
  const %d : packed<2 x 3 x f64> = dense<0.5> : tensor<2 x 3 x f64>
  slot %s : bytes<m>
  slot %s : bytes<n>
  buffer %b : bytes<n> in %x live 0..=0
  step 1 @k(%y)
  step @l(%c)
  step @k(%nothing)
  step @k(%s) tasks [n by share(3)]
  stop
}
";
    let found = places(text, &parse(text, &no_resources).unwrap_err());
    let found: Vec<(usize, &str)> = found.iter().map(|(l, m)| (*l, m.as_str())).collect();
    let want = [
        (5, "the type is packed<2 x 3 x f32>, the sources make packed<2 x 4 x f32>"),
        (6, "expected 'f32', 'i32', 'bf16' or 'i8', got 'f64'"),
        (7, "dim 'm' is not declared"),
        (8, "'%s' is defined twice"),
        (9, "expected a slot, got '%x'"),
        (10, "this is step 0"),
        (11, "there is no kernel '@l'"),
        (12, "'%nothing' is not defined"),
        (13, "a slot is no argument: name a buffer in it"),
        (14, "expected 'const', 'slot', 'buffer', 'step' or '}', got 'stop'"),
    ];
    assert_eq!(found, want);
    // What is wrong with a kernel doesn't hide the rest, and is reported once.
    let text = text.replace("%y: mut ptr<f32>", "%y: mut ptr<f33>");
    let found = places(&text, &parse(&text, &no_resources).unwrap_err());
    assert_eq!(found[0], (1, "'f33' is not an element type".to_string()));
    assert!(found.len() == want.len(), "{found:?}");
    for text in ["", "program", "kernel @k() task %t {", "program @p() -> () {", "program @p() -> () {} x", "dims"] {
        assert!(!places(text, &parse(text, &no_resources).unwrap_err()).is_empty());
    }
}

#[test]
fn each_broken_invariant_is_found() {
    for (from, to, line, message) in [
        ("@neg(%x, %b0, 768*seq)", "@neg(%x, %b0)", 21, "2 arguments for 3 parameters of 'neg'"),
        ("@neg(%x, %b0, 768*seq)", "@neg(%x, %b0, %x)", 21, "argument %x is memory, the parameter is an integer"),
        ("@neg(%x, %b0, 768*seq)", "@neg(7, %b0, 768*seq)", 21, "argument 7 is an integer, the parameter is a pointer"),
        ("@neg(%x, %b0, 768*seq)", "@neg(scratch<8>, %b0, 1)", 21, "is no multiple of the alignment"),
        ("@neg(%x, %b0, 768*seq)", "@neg(%x, %b0, chunk<seq by share(3, 9)>)", 21, "is an invalid chunk"),
        ("[768*seq by 1024]", "[768*seq by 0]", 21, "the chunk is invalid"),
        ("@neg(%b1, %y, ", "@neg(%y, %x, ", 23, "argument %x must not be written"),
        ("@neg(%b1, %y, ", "@neg(%y, %b1, ", 23, "%y is read before it is written"),
        ("@neg(%b1, %y, ", "@neg(%y, %b1, ", 16, "no step writes 'y'"),
        ("@neg(%x, %b0, ", "@neg(%b0, %b0, ", 21, "%b0 is written and bound twice"),
        ("@neg(%x, %b0, ", "@neg(%b1, %b0, ", 21, "%b1 is read before it is written"),
        ("live 0..=1", "live 0..=0", 18, "its lifetime is steps 0..=0, but steps 0..=1 name it"),
        ("bytes<3072*seq> in %s0 live 1", "bytes<3072> in %s0 live 1", 20, "does not fit slot 0"),
        ("tasks [768*seq by 1024] in_place [1 over 0]\n  step 2", "\n  step 2", 20, "overlaps buffer 0 in slot 0"),
        ("in_place [1 over 0]\n  step 2", "in_place [0 over 1]\n  step 2", 22, "can't be in place over 1"),
        ("in_place [1 over 0]\n  step 2", "in_place [1 over 2]\n  step 2", 22, "can't be in place over 2"),
        ("in_place [1 over 0]\n}", "may_fail\n}", 23, "can fail after an output was written"),
        ("  slot", "  const %c : packed<1 x 1 x f32> = dense<0> : tensor<2 x i8>\n  slot", 17, "can't be packed"),
    ] {
        let text = changed(from, to);
        let found = places(&text, &parse(&text, &no_resources).expect_err(to));
        assert!(found.iter().any(|(l, m)| *l == line && m.contains(message)), "{to}: {found:#?}");
    }
    // A buffer may not take the place of one that the step needs a second time.
    let twice = changed("%x: ptr<f32>, %y", "%x: ptr<f32>, %z: ptr<f32>, %y").replace("1 over 0", "2 over 0");
    let twice = twice.replace("@neg(%x, %b0", "@neg(%x, %x, %b0").replace("@neg(%b1, %y", "@neg(%b1, %b1, %y");
    let one = twice.replace("@neg(%b0, %b1", "@neg(%b0, %x, %b1");
    read(&one);
    let two = twice.replace("@neg(%b0, %b1", "@neg(%b0, %b0, %b1");
    assert!(parse(&two, &no_resources).unwrap_err()[0].message.contains("overlaps buffer 0"));
    read(&two.replace("[2 over 0]", "[2 over 0, 2 over 1]"));
}

#[test]
fn an_elided_constant_stops_the_object_writer_only() {
    let p = read(&examples()[1].1);
    let Part::Elided { dtype, shape, key } = &p.consts[1].parts[0] else { panic!("{:?}", p.consts[1]) };
    assert_eq!((*dtype, &shape[..], key.as_str()), (DType::F16, &[3, 2][..], "25bd8b6ff1c6fcd1"));
    assert_eq!(crate::pack::packed_size(&p.consts[1]).unwrap(), 4 * 2 * 16);
    let e = crate::pack::write_packed(&p.consts[1], &mut Vec::new()).unwrap_err();
    assert!(e.to_string().contains("25bd8b6ff1c6fcd1"), "{e}");
}
