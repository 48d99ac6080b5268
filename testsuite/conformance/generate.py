"""ONNX's own backend node tests, from the generator in the `onnx` package, as files that the runner reads.

    python generate.py OUT

For each test of an operator in OPERATORS: OUT/NAME.onnx, and OUT/NAME.npz with `in:INPUT` and `out:OUTPUT`. A function of the
standard is tested twice, as an operator and expanded to its body. OUT/tests.tsv has a line for each test: its name, the
operator, the tolerances, and the inputs that became constants.

bertc compiles shapes ahead of time, so what decides a shape can't be an input of the compiled code. Where a test has it as one
(COMPILE_TIME), its value moves into the model as an initializer, which is how exporters write it.

bfloat16 is written as its bits in uint16, floats of 8 and 4 bits as their codes in uint8, integers of 4 and 2 bits in 8. Types that
NumPy files can't say have no NAME.npz; compiling such a model fails, which is the test's result.
"""

import pathlib
import sys

import numpy
import onnx
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case import node

OPERATORS = """
Abs Add And ArgMax ArgMin Attention BitShift Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum DequantizeLinear
Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool Greater GreaterOrEqual HardSigmoid HardSwish Identity If IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual
Log LogSoftmax LpNormalization MatMul MatMulInteger Max Mean Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow QLinearMatMul
QuantizeLinear RMSNormalization Range Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
ReduceSum ReduceSumSquare Relu Reshape RotaryEmbedding Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice
Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Swish Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
""".split()

# Inputs that decide shapes, or how elements move.
COMPILE_TIME = {
    "ConstantOfShape": [0],
    "CumSum": [1],
    "Dropout": [1, 2],
    "Expand": [1],
    "If": [0],
    "NonZero": [0],
    "OneHot": [1],
    "Pad": [1, 3],
    "Range": [0, 1, 2],
    "Reshape": [1],
    "Slice": [1, 2, 3, 4],
    "Split": [1],
    "Squeeze": [1],
    "Tile": [1],
    "TopK": [1],
    "Trilu": [1],
    "Unsqueeze": [1],
} | {f"Reduce{kind}": [1] for kind in "L1 L2 LogSumExp Max Mean Min Prod Sum SumSquare".split()}

PLAIN = {numpy.dtype(t) for t in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 ?".split()}


def array(value):
    """What an npz file holds of a value, if it can."""
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    value = numpy.array(value, order="C")
    if value.dtype.name == "bfloat16":
        return value.view(numpy.uint16)
    if value.dtype.name.startswith(("float8", "float4")):
        return value.view(numpy.uint8)
    if value.dtype.name in ("int4", "int2"):
        return value.astype(numpy.int8)
    if value.dtype.name in ("uint4", "uint2"):
        return value.astype(numpy.uint8)
    return value if value.dtype in PLAIN else None


def freeze(model, operator, origin, inputs):
    """Makes constants of the inputs that decide shapes; their names, and the other inputs."""
    names = {origin.input[i] for i in COMPILE_TIME.get(operator, []) if i < len(origin.input)}
    ports = list(model.graph.input)
    kept, frozen = [], []
    for port, value in zip(ports, inputs, strict=True):
        if port.name not in names:
            kept.append((port, value))
            continue
        tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(numpy.asarray(value))
        tensor.name = port.name
        model.graph.initializer.append(tensor)
        frozen.append(port.name)
    del model.graph.input[:]
    model.graph.input.extend(port for port, _ in kept)
    return frozen, [(port.name, value) for port, value in kept]


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    cases = node.collect_testcases(None)
    for case in cases:
        whole = case.name if case.name in node._existing_names else case.name[: case.name.rindex("_expanded")]
        origin = node._existing_names[whole]
        if origin.op_type not in OPERATORS or origin.domain:
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        [(inputs, outputs)] = case.data_sets
        frozen, inputs = freeze(model, origin.op_type, origin, inputs)
        onnx.save(model, out / f"{case.name}.onnx")
        data = {f"in:{name}": array(value) for name, value in inputs}
        data |= {f"out:{port.name}": array(v) for port, v in zip(model.graph.output, outputs, strict=True)}
        if all(value is not None for value in data.values()):
            numpy.savez(out / f"{case.name}.npz", **data)
        lines.append([case.name, origin.op_type, str(case.rtol), str(case.atol), ",".join(frozen)])
    lines.sort()
    (out / "tests.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    print(f"{len(lines)} tests")


main(pathlib.Path(sys.argv[1]))
