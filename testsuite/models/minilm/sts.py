"""Scores a compiled all-MiniLM-L6-v2 on the STS benchmark: Spearman of embedding cosines against the scores.

usage:  python sts.py LIBRARY.so PREFIX TOKENIZER.json STS.csv
        LIBRARY is made by  bertc minilm.onnx --emit sharedlib --name PREFIX -o LIBRARY.so
        STS.csv is tab-separated: column 5 is the score, columns 6 and 7 the sentences
needs   pip install numpy tokenizers
"""
import csv, ctypes, sys
import numpy as np
from tokenizers import Tokenizer

library, prefix, tokenizer, data = sys.argv[1:]
lib = ctypes.CDLL(library)
run, size = getattr(lib, prefix + '_run'), getattr(lib, prefix + '_workspace_size')
size.restype, run.argtypes = ctypes.c_size_t, [ctypes.c_void_p] * 4 + [ctypes.c_size_t] + [ctypes.c_void_p] * 2
tokenizer = Tokenizer.from_file(tokenizer)
tokenizer.enable_truncation(256)
tokenizer.no_padding()


def embed(rows):
    """Sentence embeddings of equally long rows of token ids: no padding, so the mask is all ones."""
    ids = np.ascontiguousarray(rows, np.int64)
    batch, seq = ids.shape
    feed = [ids, np.ones_like(ids), np.zeros_like(ids)]
    hidden, pooled = np.empty((batch, seq, 384), np.float32), np.empty((batch, 384), np.float32)
    pointers = lambda arrays: (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])
    dims = (ctypes.c_int64 * 2)(batch, seq)
    n = size(dims, ctypes.c_uint32(1))
    space = np.empty(n + 64, np.uint8)
    at = (space.ctypes.data + 63) // 64 * 64
    code = run(pointers(feed), dims, pointers([hidden, pooled]), at, n, None, None)
    assert code == 0, code
    e = hidden.mean(1)
    return e / np.linalg.norm(e, axis=1, keepdims=True)


def ranks(v):
    """Ranks with ties averaged."""
    _, inverse, count = np.unique(v, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse]


with open(data, encoding='utf-8') as f:
    rows = [r for r in csv.reader(f, delimiter='\t', quoting=csv.QUOTE_NONE) if len(r) >= 7]
sentences = sorted({s for r in rows for s in r[5:7]})
tokens = [tokenizer.encode(s).ids for s in sentences]
vectors = {}
for length in sorted({len(t) for t in tokens}):
    same = [i for i, t in enumerate(tokens) if len(t) == length]
    for part in (same[i:i + 32] for i in range(0, len(same), 32)):
        vectors |= {sentences[i]: v for i, v in zip(part, embed([tokens[i] for i in part]))}
cosine = np.array([vectors[r[5]] @ vectors[r[6]] for r in rows])
score = np.array([float(r[4]) for r in rows])
print(f'{len(rows)} pairs, Spearman {100 * np.corrcoef(ranks(cosine), ranks(score))[0, 1]:.2f}')
