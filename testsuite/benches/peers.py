"""Times a compiled model against ONNX Runtime, run by run in turns, on one thread each.

usage:  python peers.py MODEL.onnx LIBRARY.so PREFIX BATCH SEQUENCE [REPEAT]
        LIBRARY is made by  bertc MODEL.onnx --cpu native --emit sharedlib --name PREFIX -o LIBRARY.so
needs   pip install numpy onnxruntime
"""
import ctypes
import statistics
import sys
import time

import numpy as np
import onnxruntime as ort

model, library, prefix, batch, seq, *rest = sys.argv[1:]
batch, seq, repeat = int(batch), int(seq), int(rest[0]) if rest else 20

options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(model, options, providers=['CPUExecutionProvider'])
rng = np.random.default_rng(0)
feed = {}
for i in session.get_inputs():
    shape = (batch, seq)
    feed[i.name] = np.ones(shape, np.int64) if 'mask' in i.name else np.zeros(shape, np.int64)
    if i.name == 'input_ids':
        feed[i.name] = rng.integers(100, 20000, shape)

lib = ctypes.CDLL(library)
run, size = getattr(lib, prefix + '_run'), getattr(lib, prefix + '_workspace_size')
size.restype, run.argtypes = ctypes.c_size_t, [ctypes.c_void_p] * 4 + [ctypes.c_size_t] + [ctypes.c_void_p] * 2
dims = (ctypes.c_int64 * 2)(batch, seq)
bytes_ = size(dims, ctypes.c_uint32(1))
space = np.empty(bytes_ + 64, np.uint8)
workspace = (space.ctypes.data + 63) // 64 * 64
reference = session.run(None, feed)
results = [np.empty_like(r) for r in reference]


def pointers(arrays):
    return (ctypes.c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])


inputs, outputs = pointers(list(feed.values())), pointers(results)


def ours():
    code = run(inputs, dims, outputs, workspace, bytes_, None, None)
    assert code == 0, code


def timed(f):
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


ours()
error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(results, reference))
pairs = [(timed(lambda: session.run(None, feed)), timed(ours)) for _ in range(repeat)]
peer, own = (statistics.median(t) for t in zip(*pairs))
ratio = statistics.median(a / b for a, b in pairs)
print(f'ONNX Runtime {ort.__version__}: {1e3 * peer:.2f} ms; bertc: {1e3 * own:.2f} ms; ratio {ratio:.2f}; '
      f'largest difference {error:.1e} of the largest value')
