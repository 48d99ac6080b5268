"""What pruning costs and what it brings: accuracy and latency of a sentence encoder by sparsity, blocks and method.

    python curves.py run --bertc BERTC --model MODEL.onnx --tokenizer tokenizer.json --pairs sts-dev.csv --limit 600 \\
        --calibrate texts.npz --out curves.tsv
    python curves.py draw curves.tsv --accuracy accuracy.svg --latency latency.svg

`run` appends a line for each way that OUT doesn't have yet: sparsity in percent, block, method, type, Spearman's rank
correlation (x 100, as sts.py has it), and the median of 15 runs of one text of 128 tokens in ms. A pruned model is written as ONNX
once, and compiled from there in f32 and with --int8. `draw` needs matplotlib.
"""

import argparse
import csv
import itertools
import pathlib
import statistics
import subprocess
import tempfile
import time

SPARSITIES = [30, 50, 60, 70, 80, 90]
BLOCKS = ["1x4", "4x4", "16x1", "16x4", "4x1"]
TYPES = {"f32": [], "int8": ["--int8"]}
FIELDS = ["sparsity", "block", "method", "type", "spearman", "milliseconds"]


def run(o):
    import numpy
    from tokenizers import Tokenizer

    from sts import Model, spearman

    done = set()
    if o.out.exists():
        done = {tuple(line.split("\t")[:4]) for line in o.out.read_text().splitlines()[1:]}
    else:
        o.out.write_text("\t".join(FIELDS) + "\n")
    tokenizer = Tokenizer.from_file(o.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    with open(o.pairs, newline="", encoding="utf-8") as f:
        rows = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))[: o.limit]
    scores = [float(row[4]) for row in rows]
    sentences = [tokenizer.encode(row[i]).ids for row in rows for i in (5, 6)]
    ways = [(0, "none", "none")]
    ways += itertools.product(SPARSITIES, BLOCKS, ["magnitude", "calibrated"])
    for sparsity, block, method in ways:
        missing = [t for t in TYPES if (str(sparsity), block, method, t) not in done]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = o.model
            if sparsity:
                model = pathlib.Path(folder) / "pruned.onnx"
                flags = ["--prune", str(sparsity / 100), "--block", block, "--emit", "onnx", "--quiet"]
                flags += ["--calibrate", o.calibrate] if method == "calibrated" else []
                subprocess.run([o.bertc, o.model, *flags, "-o", model], check=True)
            for name in missing:
                compiled = Model(o.bertc, model, [*TYPES[name], "--quiet"], folder, name)
                e = numpy.array([compiled.embed(ids) for ids in sentences])
                result = spearman((e[0::2] * e[1::2]).sum(1), scores)
                text = ([101] + [2003 + i for i in range(126)] + [102])[:128]
                times = []
                for _ in range(17):
                    start = time.perf_counter()
                    compiled.embed(text)
                    times.append(time.perf_counter() - start)
                line = [sparsity, block, method, name, f"{result:.2f}", f"{1e3 * statistics.median(times[2:]):.2f}"]
                with o.out.open("a") as f:
                    f.write("\t".join(map(str, line)) + "\n")


def draw(o):
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "curves"
    from matplotlib import pyplot

    lines = list(csv.DictReader(o.table.open(), delimiter="\t"))
    colours = dict(zip(BLOCKS, ["tab:blue", "tab:green", "tab:red", "tab:purple", "tab:orange"]))
    dense = {l["type"]: l for l in lines if l["sparsity"] == "0"}
    save = lambda figure, path: figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, name in zip(axes, TYPES):
        for block, (method, style) in itertools.product(BLOCKS, [("magnitude", ":"), ("calibrated", "-")]):
            of = [l for l in lines if (l["block"], l["method"], l["type"]) == (block, method, name)]
            of = sorted([dense[name], *of], key=lambda l: int(l["sparsity"]))
            x, y = [int(l["sparsity"]) for l in of], [float(l["spearman"]) for l in of]
            axis.plot(x, y, style, color=colours[block], marker=".", label=f"{block}, {method}")
        axis.set(title=name, xlabel="sparsity, %", ylim=(0, 95))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("Spearman x 100")
    axes[0].legend(fontsize=8)
    save(figure, o.accuracy)
    figure, axis = pyplot.subplots(figsize=(8, 5))
    for block, (name, marker) in itertools.product(BLOCKS, [("f32", "o"), ("int8", "^")]):
        of = [l for l in lines if (l["block"], l["method"], l["type"]) == (block, "calibrated", name)]
        x, y = [float(l["milliseconds"]) for l in of], [float(l["spearman"]) for l in of]
        axis.plot(x, y, marker, color=colours[block], label=f"{block}, {name}")
    for name, l in dense.items():
        axis.plot(float(l["milliseconds"]), float(l["spearman"]), "k*", markersize=10)
        axis.annotate(f"dense {name}", (float(l["milliseconds"]), float(l["spearman"])), fontsize=8)
    front, best = [], 0.0
    for l in sorted(lines, key=lambda l: float(l["milliseconds"])):
        if float(l["spearman"]) > best:
            best = float(l["spearman"])
            front.append((float(l["milliseconds"]), best))
    axis.step(*zip(*front), where="post", color="gray", linewidth=1, label="front")
    axis.set(xlabel="ms for 128 tokens, one thread", ylabel="Spearman x 100", xscale="log", ylim=(60, 95))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save(figure, o.latency)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("run")
    for flag in ["--bertc", "--model", "--tokenizer", "--pairs", "--calibrate"]:
        p.add_argument(flag, required=True)
    p.add_argument("--limit", type=int, help="this many pairs only")
    p.add_argument("--out", type=pathlib.Path, required=True)
    p.set_defaults(do=run)
    p = commands.add_parser("draw")
    p.add_argument("table", type=pathlib.Path)
    p.add_argument("--accuracy", type=pathlib.Path, required=True)
    p.add_argument("--latency", type=pathlib.Path, required=True)
    p.set_defaults(do=draw)
    o = parser.parse_args()
    o.do(o)


main()
