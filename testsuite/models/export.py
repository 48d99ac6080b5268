"""Models that `bertc --emit onnx` wrote, in ONNX Runtime: checked, loaded, and run against goldens.

usage:  python export.py BERTC MODEL.onnx … [--flags=-O0 "--flags=-O2 --int8" …]
        each MODEL.onnx has its goldens in MODEL.npz beside it (keys c0/in:NAME, c0/out:NAME); without them it is checked,
        loaded, and compared with the model itself on random words
needs   pip install -r minilm/requirements.txt
"""
import argparse, os, shlex, subprocess, sys, tempfile
import numpy as np
import onnx
import onnxruntime


def tolerance(model, flags):
    """Of the largest difference to goldens, relative to the largest value; narrow types lose the most of random weights."""
    if '--int8' in flags or '--bf16' in flags:
        return 1.5e-1
    variant = model.partition('+')[2]
    return {'fp16': 5e-3, 'dyn8': 1e-2, 'qdq': 1e-2, 'qdqall': 5e-2}.get(variant, 1e-4)


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])


def made_up(path):
    """A case for a model without goldens."""
    s, rng = session(path), np.random.default_rng(0)
    feed = {}
    for i in s.get_inputs():
        shape = [d if isinstance(d, int) else (2 if k == 0 else 24) for k, d in enumerate(i.shape)]
        low, high = (1, 2) if 'mask' in i.name else (0, 1) if 'type' in i.name else (1000, 20000)
        feed[i.name] = rng.integers(low, high, shape)
    return [(feed, dict(zip([o.name for o in s.get_outputs()], s.run(None, feed))))]


def cases(path):
    golden = path[:-len('.onnx')] + '.npz'
    if not os.path.exists(golden):
        return made_up(path)
    data, found = np.load(golden), {}
    for key in data.files:
        case, kind, name = key.partition('/')[0], key.partition('/')[2][:4], key.partition(':')[2]
        found.setdefault(case, ({}, {}))[kind.startswith('out')][name] = data[key]
    return list(found.values())


def check(bertc, path, flags, folder):
    name = os.path.basename(path)[:-len('.onnx')]
    out = os.path.join(folder, 'out.onnx')
    subprocess.check_call([bertc, path, *shlex.split(flags), '--emit', 'onnx', '-q', '-o', out])
    onnx.checker.check_model(out, full_check=True)
    model, own = session(out), onnx.load(path, load_external_data=False).graph
    for ours, theirs in ((model.get_inputs(), own.input), (model.get_outputs(), own.output)):
        weights = {t.name for t in own.initializer}
        if [p.name for p in ours] != [p.name for p in theirs if p.name not in weights]:
            raise SystemExit(f'{name} {flags}: inputs or outputs have other names')
    worst = cosine = None
    # Nobody reads what a model makes of padding, and it may be far off where types are narrow, or 0 by `--skip-padding`.
    per_token = next(([i.name, i.shape] for i in model.get_inputs() if 'mask' in i.name), None)
    if not any(f in flags for f in ('int8', 'bf16', 'skip-padding')):
        per_token = None
    for feed, want in cases(path):
        for port, y in zip(model.get_outputs(), model.run(None, feed)):
            x = want[port.name]
            if per_token is not None and port.shape[:2] == per_token[1]:
                tokens = feed[per_token[0]].astype(bool)
                x, y = x[tokens], y[tokens]
            x, y = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
            worst = max(worst or 0, np.abs(x - y).max() / np.abs(x).max())
            cosine = min(cosine or 1, x @ y / np.sqrt((x @ x) * (y @ y)))
    fine = worst <= tolerance(name, flags)
    print(f'{name:24} {flags:24} {os.path.getsize(out) / 1e6:8.2f} MB  difference {worst:.2e}  cosine {cosine:.6f}'
          + ('' if fine else '  TOO MUCH'), flush=True)
    return fine


parser = argparse.ArgumentParser()
parser.add_argument('bertc')
parser.add_argument('models', nargs='+')
parser.add_argument('--flags', action='append')
args = parser.parse_args()
flags = args.flags or ['-O0', '-O2', '--int8', '--bf16']
with tempfile.TemporaryDirectory() as folder:
    done = [check(args.bertc, m, f, folder) for m in args.models for f in flags]
sys.exit(0 if all(done) else 1)
