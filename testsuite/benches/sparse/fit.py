"""What blocks cost: products with sparse matrices against those with packed ones, run by run in turns.

    python fit.py --bertc BERTC [--cpu native,x86-64-v3,x86-64] [--types f32,bf16,int8] [--rows 16,128,384]

The model is two products, 768 x 3072 and 3072 x 768, with a ReLU between. Blocks are not zero by chance. For each CPU, type,
size of blocks and part of them that is kept: the time with `--sparse always` in those with `--sparse never`, the median of
runs in turns, for each number of rows. `backends/src/lower/sparse.rs` has lines fitted to these. Needs numpy and onnx.
"""

import argparse
import ctypes
import itertools
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

K, N = 768, 3072
FLAGS = {"f32": [], "bf16": ["--bf16"], "int8": ["--int8", "--int8-budget", "0"]}
BLOCKS = {
    "f32": [(16, 1), (4, 1), (1, 4), (1, 1)],
    "bf16": [(16, 2), (4, 2), (1, 4), (1, 2)],
    "int8": [(16, 4), (4, 4), (1, 4)],
}
RUNS = {16: 24, 128: 8}
FEW = 5


def write_model(path, block, kept):
    """The model; every weight of it is kept if there is no block."""
    random = numpy.random.default_rng(0)

    def weights(k, n):
        w = random.standard_normal((k, n)).astype(numpy.float32)
        if block:
            outputs, inputs = block
            mask = random.random((k // inputs, n // outputs)) < kept
            w *= numpy.repeat(numpy.repeat(mask, inputs, 0), outputs, 1)
        return w

    constants = {"w1": weights(K, N), "b1": numpy.zeros(N), "w2": weights(N, K), "b2": numpy.zeros(K)}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["up"]),
        helper.make_node("Add", ["up", "b1"], ["biased"]),
        helper.make_node("Relu", ["biased"], ["active"]),
        helper.make_node("MatMul", ["active", "w2"], ["down"]),
        helper.make_node("Add", ["down", "b2"], ["y"]),
    ]
    port = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", K])
    initializers = [numpy_helper.from_array(v.astype(numpy.float32), name) for name, v in constants.items()]
    graph = helper.make_graph(nodes, "two_products", [port("x")], [port("y")], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Compiled:
    """The model as a shared library."""

    count = itertools.count()

    def __init__(self, bertc, folder, flags):
        name = f"m{next(self.count)}"
        path = folder / f"{name}.so"
        command = [bertc, folder / "model.onnx", *flags, "--quiet", "--emit", "sharedlib", "-o", path]
        subprocess.run(command, check=True)
        library = ctypes.CDLL(str(path))
        self.call = getattr(library, f"{name}_run")
        self.workspace_size = getattr(library, f"{name}_workspace_size")
        self.workspace_size.restype = ctypes.c_size_t

    def prepare(self, rows):
        self.x = numpy.random.default_rng(1).standard_normal((rows, K)).astype(numpy.float32)
        self.y = numpy.empty_like(self.x)
        self.dims = (ctypes.c_int64 * 1)(rows)
        self.bytes = self.workspace_size(self.dims, ctypes.c_uint32(1))
        self.memory = numpy.empty(self.bytes + 64, numpy.uint8)

    def time(self):
        pointers = [(ctypes.c_void_p * 1)(a.ctypes.data) for a in (self.x, self.y)]
        at = ctypes.c_void_p(self.memory.ctypes.data + -self.memory.ctypes.data % 64)
        start = time.perf_counter()
        code = self.call(pointers[0], self.dims, pointers[1], at, ctypes.c_size_t(self.bytes), None, None)
        if code:
            raise SystemExit(f"the model returned {code}")
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bertc", required=True)
    parser.add_argument("--cpu", default="native,x86-64-v3,x86-64")
    parser.add_argument("--types", default="f32,bf16,int8")
    parser.add_argument("--rows", default="16,128,384")
    options = parser.parse_args()
    rows = [int(n) for n in options.rows.split(",")]
    print("cpu", "type", "block", "kept", *(f"{n} rows" for n in rows), sep="\t")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for cpu, dtype in itertools.product(options.cpu.split(","), options.types.split(",")):
            flags = ["--cpu", cpu, *FLAGS[dtype]]
            write_model(folder / "model.onnx", None, 1)
            packed = Compiled(options.bertc, folder, [*flags, "--sparse", "never"])
            for block, kept in itertools.product(BLOCKS[dtype], [0.05, 0.1, 0.2, 0.3, 0.5]):
                write_model(folder / "model.onnx", block, kept)
                sparse = Compiled(options.bertc, folder, [*flags, "--sparse", "always"])
                ratios = []
                for n in rows:
                    packed.prepare(n), sparse.prepare(n)
                    pairs = [(packed.time(), sparse.time()) for _ in range(RUNS.get(n, FEW))]
                    ratios.append(statistics.median(s / p for p, s in pairs))
                print(cpu, dtype, "x".join(map(str, block)), kept, *(f"{r:.3f}" for r in ratios), sep="\t", flush=True)


main()
