"""How much of a sentence encoder's quality compiled code keeps: STS-B pairs through bertc and through ONNX Runtime.

    python sts.py --bertc BERTC --model MODEL.onnx --tokenizer tokenizer.json --pairs sts-dev.csv -- --int8 [flags of bertc…]

Prints Spearman's rank correlation (x 100) of the cosines of the pairs' embeddings with the scores, of the f32 model and of
the compiled one, and the cosines (mean and least) between both models' embeddings of each sentence. An embedding is the
mean of the first output over the tokens of the sentence. Needs numpy and tokenizers, and
onnxruntime for --peer.

The pairs are tab-separated: column 5 the score, columns 6 and 7 the sentences. One sentence is one run: nothing is padded.
"""

import argparse
import csv
import ctypes
import pathlib
import subprocess
import tempfile

import numpy
from tokenizers import Tokenizer


class Model:
    """A compiled model of int64 inputs [batch, sequence] whose first output is f32 [batch, sequence, width]."""

    def __init__(self, bertc, model, flags, folder, name):
        path = pathlib.Path(folder) / f"{name}.so"
        subprocess.run([bertc, model, *flags, "--emit", "sharedlib", "-o", path], check=True)
        header = path.with_suffix(".h").read_text()
        lines = [line.split() for line in header.splitlines() if line.startswith(" *   ")]
        self.inputs = [line[2] for line in lines if line[1] == "input"]
        outputs = [line for line in lines if line[1] == "output"]
        self.width = int(outputs[0][-1].rstrip("]"))
        self.sizes = [[part.strip("[],") for part in line[4:]] for line in outputs]
        lib = ctypes.CDLL(str(path))
        self.run = getattr(lib, f"{name}_run")
        self.workspace_size = getattr(lib, f"{name}_workspace_size")
        self.workspace_size.restype = ctypes.c_size_t

    def embed(self, ids):
        """The mean of the first output's rows, of length 1."""
        length = len(ids)
        of = {"input_ids": ids, "attention_mask": [1] * length, "token_type_ids": [0] * length}
        inputs = [numpy.array(of[name], dtype=numpy.int64) for name in self.inputs]
        sizes = {"batch": 1, "sequence": length}
        outputs = [
            numpy.empty([sizes[n] if n in sizes else int(n) for n in shape], dtype=numpy.float32) for shape in self.sizes
        ]
        pointers = lambda arrays: (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
        dims = (ctypes.c_int64 * 2)(1, length)
        bytes_ = self.workspace_size(dims, ctypes.c_uint32(1))
        memory = numpy.empty(bytes_ + 64, dtype=numpy.uint8)
        at = ctypes.c_void_p(memory.ctypes.data + -memory.ctypes.data % 64)
        code = self.run(pointers(inputs), dims, pointers(outputs), at, ctypes.c_size_t(bytes_), None, None)
        if code:
            raise SystemExit(f"the model returned {code}")
        mean = outputs[0][0].mean(0)
        return mean / numpy.linalg.norm(mean)


class OnnxRuntime:
    """An ONNX model of the same kind, run by ONNX Runtime."""

    def __init__(self, path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def embed(self, ids):
        of = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}
        inputs = {i.name: numpy.array([of[i.name]], dtype=numpy.int64) for i in self.session.get_inputs()}
        mean = self.session.run(None, inputs)[0][0].mean(0)
        return mean / numpy.linalg.norm(mean)


def ranks(x):
    """Ranks from 1 on, of equals the mean."""
    order = numpy.argsort(x, kind="stable")
    sorted_ = numpy.asarray(x)[order]
    first = numpy.searchsorted(sorted_, sorted_, "left")
    last = numpy.searchsorted(sorted_, sorted_, "right")
    result = numpy.empty(len(order))
    result[order] = (first + last + 1) / 2
    return result


def spearman(x, y):
    return 100 * numpy.corrcoef(ranks(x), ranks(y))[0, 1]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bertc", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--pairs", required=True)
    p.add_argument("--limit", type=int, help="this many pairs only")
    p.add_argument("--peer", help="an ONNX model that ONNX Runtime runs, instead of bertc with flags")
    p.add_argument("flags", nargs="*", help="flags of bertc for the model that is compared with f32")
    a = p.parse_args()
    tokenizer = Tokenizer.from_file(a.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    with open(a.pairs, newline="", encoding="utf-8") as f:
        rows = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))[: a.limit]
    scores = [float(row[4]) for row in rows]
    sentences = [tokenizer.encode(row[i]).ids for row in rows for i in (5, 6)]
    with tempfile.TemporaryDirectory() as folder:
        models = [Model(a.bertc, a.model, [], folder, "dense")]
        models.append(OnnxRuntime(a.peer) if a.peer else Model(a.bertc, a.model, a.flags, folder, "other"))
        both = [numpy.array([m.embed(ids) for ids in sentences]) for m in models]
    for name, e in zip(["f32", a.peer or " ".join(a.flags) or "again"], both):
        print(f"{name}: Spearman {spearman((e[0::2] * e[1::2]).sum(1), scores):.2f}")
    cosines = (both[0] * both[1]).sum(1)
    print(f"sentence cosine: mean {cosines.mean():.5f}, least {cosines.min():.5f}, of {len(cosines)} sentences")


if __name__ == "__main__":
    main()
