//! How fast the machine reads memory, as a program: what no kernel can be faster than that has to fetch its operands.
//!
//! Each task adds up a piece of one large input of its own, from its start to its end, in as many independent sums as keep
//! the loads from waiting for additions. Several places at once, as the panels of a matrix, are read more slowly: on a Zen 4,
//! one gave 32 GB a second, two 30, four 29 and eight 27.

use bertc_ir::kernel::{Elem, Kernel, KernelBuilder, RegType};
use bertc_ir::{DType, Dim, Symbols, TensorType};

use crate::peak::{Width, store_sum};
use crate::plan::{Arg, Chunk, PortSpec, Program, Step};

/// Bytes that a task reads, over and over or once.
pub const CHUNK: i64 = 1 << 17;

/// Most tasks of a run: 8 GB.
pub const MAX_TASKS: i64 = 1 << 16;

/// Registers read in an iteration, each into a sum of its own.
const UNROLL: i64 = 8;

/// A program that does nothing but read. Its symbols start with `name`, its one dim is the number of tasks, 1 to
/// [`MAX_TASKS`]; its input has [`CHUNK`] bytes for each, which the task reads `passes` times.
pub fn bandwidth(name: &str, Width { lanes, .. }: Width, passes: u32) -> Program {
    let mut symbols = Symbols::default();
    let tasks = Dim::symbol(symbols.intern("tasks", 1, MAX_TASKS));
    let port = |name: &str, row: i64| PortSpec {
        name: name.into(),
        ty: TensorType::new(DType::F32, vec![tasks.clone(), row.into()]),
    };
    Program {
        name: name.to_string(),
        inputs: vec![port("data", CHUNK / 4)],
        outputs: vec![port("sums", lanes.into())],
        kernels: vec![kernel(lanes, passes)],
        consts: Vec::new(),
        buffers: Vec::new(),
        slots: Vec::new(),
        steps: vec![Step {
            kernel: 0,
            args: vec![Arg::Input(0), Arg::Output(0)],
            tasks: vec![(tasks.clone(), Chunk::Fixed(1))],
            fallible: false,
            in_place: Vec::new(),
            source: "bandwidth".into(),
        }],
        symbols,
    }
}

fn kernel(lanes: u8, passes: u32) -> Kernel {
    let mut b = KernelBuilder::new("reads");
    let (x, y) = (b.input("data", DType::F32), b.output("sums", DType::F32));
    let ty = RegType::vector(Elem::F32, lanes);
    let width = i64::from(lanes);
    let elements = b.int(CHUNK / 4);
    let task = b.task();
    let first = b.mul(task, elements);
    let (zero, passes) = (b.int(0), b.int(passes.into()));
    let init: Vec<_> = (0..UNROLL).map(|_| b.const_f(ty, 0.0)).collect();
    let all = b.for_loop(zero, passes, 1, &init, |b, _, carried| {
        b.for_loop(zero, elements, UNROLL * width, carried, |b, i, carried| {
            let at = b.add(first, i);
            let sum = |(k, &sum)| {
                let loaded = b.load(x, at, k as i64 * width, lanes);
                b.add(sum, loaded)
            };
            carried.iter().enumerate().map(sum).collect()
        })
    });
    store_sum(&mut b, y, &all, lanes);
    b.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object;
    use crate::target::Target;

    #[test]
    fn the_loop_is_loads_that_are_added() {
        for (arch, cpu, load, lanes) in [
            ("x86_64", "x86-64-v3", "vaddps ymm", 8),
            ("x86_64", "x86-64-v4", "vaddps zmm", 16),
            ("aarch64", "generic", "ldr q", 4),
        ] {
            let target = Target::parse(arch, cpu).unwrap();
            let width = Width::all(&target).into_iter().find(|w| w.lanes == lanes).unwrap();
            let p = bandwidth("read", width, 3);
            p.verify().unwrap();
            let asm = object::emit_asm(&[object::Variant { program: &p, target: &target }]).unwrap();
            let kernel = asm.split("\n\n").next().unwrap();
            let loads = kernel.lines().filter(|l| l.contains(load) && l.contains('[')).count();
            assert_eq!(loads as i64, UNROLL, "{kernel}");
            // The sums stay in registers: nothing but the result is written.
            let stores = kernel.lines().filter(|l| l.contains("movups") || l.contains("str q"));
            assert!(stores.filter(|l| !l.contains(load)).count() <= 2, "{kernel}");
        }
    }
}
