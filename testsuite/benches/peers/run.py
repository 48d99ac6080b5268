"""Times ONNX Runtime, OpenVINO and LiteRT against bertc, in turns, and writes a table in Markdown.

usage:  python run.py [--quick] [--models minilm,bert-base] [--json OUT] [--out OUT.md] ...       (--help tells all)
needs   Python 3.11 or later (LiteRT's converter: 3.12), Linux, cc, and cargo unless --bertc is given

Everything is set up in --work, once: environments with the pinned versions of requirements*.txt, the models, what is
compiled or converted from them. What can't be set up is left out, and the output says so.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MODELS = {
    'minilm': ('all-MiniLM-L6-v2', [ROOT / 'testsuite/models/minilm/build.py', '{folder}']),
    'bert-base': ('BERT-base size', [ROOT / 'testsuite/benches/bert_base.py', '{folder}/bert-base.onnx']),
}


def call(*command, **options):
    command = [str(c) for c in command]
    print('+', shlex.join(command), file=sys.stderr)
    subprocess.run(command, check=True, stdout=sys.stderr, **options)


def environment(python, folder, requirements):
    """The Python of a virtual environment with these packages, made or brought up to date if need be."""
    text, done = (HERE / requirements).read_text(), folder / 'done.txt'
    if not done.exists() or done.read_text() != text:
        call(python, '-m', 'venv', '--clear', folder)
        call(folder / 'bin/python', '-m', 'pip', 'install', '-q', '-r', HERE / requirements)
        done.write_text(text)
    return folder / 'bin/python'


def compiler(path, work):
    """bertc and, beside it, the runtime stub as a shared library in `work`."""
    if path is None:
        call('cargo', 'build', '--release', '--workspace', '--bin', 'bertc', cwd=ROOT)
        path = Path(os.environ.get('CARGO_TARGET_DIR', ROOT / 'target')) / 'release/bertc'
    stub = work / 'libbertc_rt.so'
    call('cc', '-shared', '-o', stub, '-Wl,--whole-archive', path.parent / 'libbertc_rt.a', '-Wl,--no-whole-archive', '-pthread')
    call('cc', '-O2', '-I', ROOT / 'runtime-stub/include', HERE / 'cold.c', '-o', work / 'cold', '-ldl')
    return path, stub


def prepare(args, work, python, converter, quantizers, missing):
    """The files that the runtimes load, by model."""
    bertc, stub = compiler(args.bertc, work)
    files = {}
    for key in args.models:
        title, (script, target) = MODELS[key]
        onnx = work / f'{key}.onnx'
        if not onnx.exists():
            call(python, script, target.format(folder=work))
        flags = shlex.split(args.flags) + ['--bf16'] * args.bf16 + ['--int8'] * args.int8
        so = work / f'{key}{"-bf16" * args.bf16}{"-int8" * args.int8}.so'
        call(bertc, onnx, '--emit', 'sharedlib', '--name', 'peer', '-o', so, *flags)
        files[key] = {'title': title, 'onnx': str(onnx), 'openvino': str(onnx), 'so': str(so), 'rt': str(stub),
                      'cold': str(work / 'cold'), 'precision': 'bf16' if args.bf16 else 'f32'}
        if args.int8:
            names = [work / f'{key}-ort-int8.onnx', work / f'{key}-openvino-int8.xml']
            if not names[1].exists():
                call(quantizers[0], HERE / 'quantize.py', onnx, *names)
            files[key]['onnx'], files[key]['openvino'] = map(str, names)
        for batch, sequence in args.shapes if converter else []:
            out = work / f'{key}-{batch}-{sequence}.tflite'
            try:
                if not out.exists():
                    call(converter, HERE / 'convert.py', onnx, out, batch, sequence)
                if args.int8:
                    dense, out = out, out.with_stem(out.stem + '-int8')
                    if not out.exists():
                        call(quantizers[1], HERE / 'quantize_litert.py', dense, out)
                files[key][f'tflite-{batch}-{sequence}'] = str(out)
            except subprocess.CalledProcessError:
                missing.append(f'LiteRT, {title}, batch {batch}, length {sequence}: the conversion failed')
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(n) for n in text.split(',')]  # noqa: E731
    parser.add_argument('--quick', action='store_true', help='all-MiniLM-L6-v2, batch 1, short measurements')
    parser.add_argument('--models', type=lambda t: t.split(','), help=f'of {", ".join(MODELS)}; default: all')
    parser.add_argument('--batch', type=numbers, help='default: 1,8')
    parser.add_argument('--sequence', type=numbers, default=[16, 128, 384], help='default: 16,128,384')
    parser.add_argument('--threads', type=numbers, default=[1, 2], help='default: 1,2')
    parser.add_argument('--seconds', type=float, help='to measure a line of the table, in 3 rounds or more; default: 20, quick: 4')
    parser.add_argument('--bertc', type=Path, help='the program, libbertc_rt.a beside it; default: built by cargo')
    parser.add_argument('--flags', default='--cpu native', help='for bertc; default: --cpu native')
    parser.add_argument('--bf16', action='store_true', help='bertc and OpenVINO compute in bf16; the others have none')
    parser.add_argument('--int8', action='store_true', help='8-bit integers in all: as ONNX Runtime\'s dynamic quantisation, '
                        'OpenVINO\'s NNCF and LiteRT\'s dynamic range make them')
    parser.add_argument('--python', default=sys.executable, help='makes the environments; default: this one')
    parser.add_argument('--work', type=Path, default=ROOT / 'target/peers', help='default: target/peers')
    parser.add_argument('--json', type=Path, help='file for all figures')
    parser.add_argument('--out', type=Path, help='file for the tables; default: standard output')
    args = parser.parse_args()
    args.models = args.models or (['minilm'] if args.quick else list(MODELS))
    args.batch = args.batch or ([1] if args.quick else [1, 8])
    args.seconds = args.seconds or (4 if args.quick else 20)
    args.shapes = [(b, s) for b in args.batch for s in args.sequence]
    if unknown := set(args.models) - set(MODELS):
        parser.error(f'unknown model: {", ".join(unknown)}')

    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    missing = []
    python = environment(args.python, work / 'venv', 'requirements.txt')
    try:
        converter = environment(args.python, work / 'venv-convert', 'requirements-convert.txt')
    except subprocess.CalledProcessError:
        converter = None
        missing.append('LiteRT: its converter could not be installed (it needs Python 3.12: --python)')
    quantizers = [environment(args.python, work / f'venv-{name}', f'requirements-{name}.txt')
                  for name in ('quantize', 'quantize-litert') if args.int8]
    config = {
        'files': prepare(args, work, python, converter, quantizers, missing), 'shapes': args.shapes, 'threads': args.threads,
        'seconds': args.seconds, 'flags': args.flags + ' --bf16' * args.bf16 + ' --int8' * args.int8,
        'missing': missing,
        'precision': 'int8 everywhere' if args.int8 else
        'bf16 in bertc and OpenVINO, f32 in the others' if args.bf16 else 'f32 everywhere',
        'command': shlex.join(['python', 'testsuite/benches/peers/run.py', *sys.argv[1:]]),
        'json': str(args.json.resolve()) if args.json else None, 'out': str(args.out.resolve()) if args.out else None,
    }
    (work / 'config.json').write_text(json.dumps(config, indent=1))
    subprocess.run([python, HERE / 'measure.py', work / 'config.json'], check=True)


if __name__ == '__main__':
    try:
        main()
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f'error: {error}')
