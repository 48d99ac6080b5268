"""What ways of quantising the left operands of a model's products cost: signal to noise of each, in dB.

    python ways.py --model MODEL.onnx --tokenizer tokenizer.json --pairs sts-dev.csv

All products with constant matrices are computed in numpy from the operands that ONNX Runtime gives, with symmetric 8-bit
weights of one unit a column. Ranges and factors come from 32 sentences, and errors from 100 others. The ways are
- dynamic: 256 steps over the range of each row, as decision 11 has it;
- smooth: the same behind factors of channels, as decision 12 has it;
- static: 256 steps over one range for all rows, the best of three (all of the sample, and without 0.01% or 0.1% at each end);
- static smooth: the same behind the factors.
Needs numpy, onnx, onnxruntime and tokenizers.
"""

import argparse
import csv
import random

import numpy
import onnx
import onnxruntime
from tokenizers import Tokenizer

CALIBRATION, TEST = 32, 100


def operands(model, products, tokenizer, sentences):
    """The rows of each product's left operand over all sentences, one run each."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = sorted({p.input[0] for p in products})
    known = {i.name for i in session.get_inputs()}
    rows = {name: [] for name in names}
    for sentence in sentences:
        ids = tokenizer.encode(sentence).ids
        given = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}
        given = {k: numpy.array([v], numpy.int64) for k, v in given.items() if k in known}
        for name, value in zip(names, session.run(names, given)):
            rows[name].append(value.reshape(-1, value.shape[-1]).astype(numpy.float64))
    return {name: numpy.concatenate(all) for name, all in rows.items()}


def weights(w):
    unit = numpy.abs(w).max(0) / 127
    unit[unit == 0] = 1
    return numpy.round(w / unit) * unit


def rows(x, low=None, high=None):
    """The nearest of 256 steps between the bounds, of each row if there are none."""
    low = x.min(1, keepdims=True) if low is None else low
    high = x.max(1, keepdims=True) if high is None else high
    unit = (high - low) / 255
    return numpy.clip(numpy.round((x - low) / unit), 0, 255) * unit + low


def factors(x, w):
    """As passes/src/use_int8/plan.rs has them."""
    x, w = numpy.abs(x).max(0), numpy.abs(w).max(1)
    x, w = (numpy.maximum(a, a.mean() / 10) for a in (x, w))
    return numpy.sqrt(w / x)


def ratio(true, other):
    return 10 * numpy.log10((true**2).sum() / ((true - other) ** 2).sum())


def main():
    parser = argparse.ArgumentParser()
    for name in ("model", "tokenizer", "pairs"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    model = onnx.load(args.model)
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    products = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in constants]
    for name in sorted({p.input[0] for p in products}):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    tokenizer = Tokenizer.from_file(args.tokenizer)
    tokenizer.no_padding()
    with open(args.pairs, newline="") as f:
        sentences = [line[5] for line in csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE)]
    random.Random(1).shuffle(sentences)
    known = operands(model, products, tokenizer, sentences[:CALIBRATION])
    tested = operands(model, products, tokenizer, sentences[CALIBRATION : CALIBRATION + TEST])
    print(f"| {'product':46} | dynamic | smooth | static | static smooth |\n|---|---|---|---|---|")
    all_ratios = []
    for p in products:
        w = constants[p.input[1]].astype(numpy.float64)
        c, x = known[p.input[0]], tested[p.input[0]]
        f = factors(c, w)

        def static(c, x, w):
            ends = [numpy.percentile(c, [part, 100 - part]) for part in (0, 0.01, 0.1)]
            return max(ratio(true, rows(x, *end) @ weights(w)) for end in ends)

        true = x @ w
        ratios = [
            ratio(true, rows(x) @ weights(w)),
            ratio(true, rows(x * f) @ weights(w / f[:, None])),
            static(c, x, w),
            static(c * f, x * f, w / f[:, None]),
        ]
        all_ratios.append(ratios)
        print(f"| {p.name[-46:]:46} | " + " | ".join(f"{r:.1f}" for r in ratios) + " |")
    all_ratios = numpy.array(all_ratios)
    print(f"| {'mean':46} | " + " | ".join(f"{r:.1f}" for r in all_ratios.mean(0)) + " |")
    better = (all_ratios[:, 2:].max(1) >= all_ratios[:, :2].max(1)).sum()
    print(f"\na static way is the best of {better} of {len(products)} products")


if __name__ == "__main__":
    main()
