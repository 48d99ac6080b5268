"""Sparse int8 models against DeepSparse 1.8.0, run by run in turns, on one thread.

    python against_deepsparse.py --bertc BERTC MODEL.onnx [--sparsity 0.8] [--blocks 16x4,4x4,1x4] [--length 128] [--runs 40]

DeepSparse gets the model with its matrices pruned by magnitude in blocks of one output by four inputs, each by the same part,
and products as QuantizeLinear, MatMulInteger, Add, Cast, Mul at opset 14 with constant scales: the form that it makes its
fast kernels of. bertc gets the model itself and `--int8 --prune SPARSITY --block BLOCK`. Weights are not trained for this, so
that outputs say nothing; times do. Needs numpy, onnx and deepsparse==1.8.0, which is there for CPython up to 3.11.
"""

import argparse
import ctypes
import pathlib
import statistics
import subprocess
import tempfile
import time

import deepsparse
import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

SCALE = numpy.float32(0.05)


def pruned(w, sparsity):
    """A matrix [inputs, outputs] without its least blocks."""
    k, n = w.shape
    energy = (w.reshape(k // 4, 4, n) ** 2).sum(1)
    return w * numpy.repeat(energy > numpy.quantile(energy, sparsity), 4, 0)


def rewrite(model, sparsity, length):
    """The model as DeepSparse likes it, for one text of a length."""
    graph = model.graph
    constants = {t.name: t for t in graph.initializer}
    users = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    nodes, added, gone, fused, quantised = [], [], set(), set(), {}

    def constant(name, value):
        added.append(numpy_helper.from_array(numpy.asarray(value), name))
        return name

    def emit(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def product(node, i):
        w = pruned(numpy_helper.to_array(constants[node.input[1]]), sparsity)
        gone.add(node.input[1])
        unit = numpy.float32(abs(w).max() / 127)
        integers = numpy.clip(numpy.round(w / unit), -127, 127).astype(numpy.int8)
        x = node.input[0]
        if x not in quantised:
            scale, zero = constant(f"x_scale_{i}", SCALE), constant(f"x_zero_{i}", numpy.uint8(128))
            quantised[x] = emit("QuantizeLinear", [x, scale, zero], f"x_{i}"), zero
        x, zero = quantised[x]
        operands = [x, constant(f"w_{i}", integers), zero, constant(f"w_zero_{i}", numpy.int8(0))]
        y, output = emit("MatMulInteger", operands, f"sums_{i}"), node.output[0]
        after = users[output]
        bias = [n for n in after[0].input if n in constants] if [n.op_type for n in after] == ["Add"] else []
        if bias:
            b = numpy.round(numpy_helper.to_array(constants[bias[0]]) / (SCALE * unit)).astype(numpy.int32)
            y, output = emit("Add", [y, constant(f"b_{i}", b)], f"biased_{i}"), after[0].output[0]
            fused.add(id(after[0]))
        y = emit("Cast", [y], f"floats_{i}", to=TensorProto.FLOAT)
        emit("Mul", [y, constant(f"unit_{i}", SCALE * unit)], output)

    def norm(node, i):
        x, gamma, beta = node.input[:3]
        eps = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        mean = emit("ReduceMean", [x], f"mean_{i}", axes=[-1], keepdims=1)
        rest = emit("Sub", [x, mean], f"rest_{i}")
        square = emit("Pow", [rest, constant(f"two_{i}", numpy.float32(2))], f"square_{i}")
        variance = emit("ReduceMean", [square], f"variance_{i}", axes=[-1], keepdims=1)
        variance = emit("Add", [variance, constant(f"eps_{i}", numpy.float32(eps))], f"positive_{i}")
        y = emit("Div", [rest, emit("Sqrt", [variance], f"deviation_{i}")], f"normal_{i}")
        emit("Add", [emit("Mul", [y, gamma], f"scaled_{i}"), beta], node.output[0])

    for i, node in enumerate(graph.node):
        if id(node) in fused:
            continue
        matrix = constants.get(node.input[1]) if len(node.input) > 1 else None
        if node.op_type == "MatMul" and matrix is not None and len(matrix.dims) == 2:
            product(node, i)
        elif node.op_type == "LayerNormalization":
            norm(node, i)
        else:
            nodes.append(node)
    kept = [t for t in graph.initializer if t.name not in gone]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept + added)
    model.ir_version = 7
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = 14
    for port in [*graph.input, *graph.output]:
        for dim, size in zip(port.type.tensor_type.shape.dim, [1, length]):
            dim.dim_value = size
    onnx.checker.check_model(model)


class Compiled:
    """A compiled model of int64 inputs [batch, sequence]."""

    def __init__(self, bertc, model, flags, path, inputs, length):
        subprocess.run([bertc, model, *flags, "--cpu", "native", "-q", "--emit", "sharedlib", "-o", path], check=True)
        library = ctypes.CDLL(str(path))
        header = [line.split() for line in path.with_suffix(".h").read_text().splitlines() if line.startswith(" *   ")]
        self.call = getattr(library, f"{path.stem}_run")
        size = getattr(library, f"{path.stem}_workspace_size")
        size.restype = ctypes.c_size_t
        dims = {"batch": 1, "sequence": length}
        shape = lambda words: [dims.get(w.strip("[],"), w.strip("[],")) for w in words]
        outputs = [numpy.empty([int(n) for n in shape(line[4:])], numpy.float32) for line in header if line[1] == "output"]
        pointers = lambda arrays: (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        named = [inputs[line[2]] for line in header if line[1] == "input"]
        d = (ctypes.c_int64 * 2)(1, length)
        n = size(d, ctypes.c_uint32(1))
        self.memory = numpy.empty(n + 64, numpy.uint8), named, outputs
        at = ctypes.c_void_p(self.memory[0].ctypes.data + -self.memory[0].ctypes.data % 64)
        self.arguments = pointers(named), d, pointers(outputs), at, ctypes.c_size_t(n), None, None

    def __call__(self):
        if code := self.call(*self.arguments):
            raise SystemExit(f"the model returned {code}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--bertc", required=True)
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--blocks", default="16x4,4x4,1x4")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--runs", type=int, default=40)
    o = parser.parse_args()
    ids = numpy.random.default_rng(0).integers(1000, 30000, (1, o.length))
    inputs = {"input_ids": ids, "attention_mask": numpy.ones_like(ids), "token_type_ids": numpy.zeros_like(ids)}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = onnx.load(o.model)
        rewrite(model, o.sparsity, o.length)
        onnx.save(model, folder / "deepsparse.onnx")
        arrays = [inputs[port.name] for port in model.graph.input]
        start = time.perf_counter()
        engine = deepsparse.compile_model(str(folder / "deepsparse.onnx"), batch_size=1, num_cores=1)
        print(f"DeepSparse took {time.perf_counter() - start:.1f} s to prepare the model")
        ways = {"DeepSparse, 1x4": lambda: engine.run(arrays)}
        for i, block in enumerate(o.blocks.split(",")):
            flags = ["--int8", "--int8-budget", "0", "--prune", str(o.sparsity), "--block", block]
            ways[f"bertc, {block}"] = Compiled(o.bertc, o.model, flags, folder / f"m{i}.so", inputs, o.length)
        times = {name: [] for name in ways}
        for _ in range(o.runs):
            for name, run in ways.items():
                # The second run finds its own weights in the caches.
                run()
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    theirs = times["DeepSparse, 1x4"]
    for name, own in times.items():
        ratio = statistics.median(a / b for a, b in zip(theirs, own))
        print(f"{name:18} {1e3 * statistics.median(own):7.2f} ms, least {1e3 * min(own):7.2f}, {ratio:.2f} times as fast")


main()
