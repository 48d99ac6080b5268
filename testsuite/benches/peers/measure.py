"""Measures what run.py has prepared, and prints the tables.

usage:  python measure.py CONFIG.json
"""
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import report
import runtimes

ROUNDS = 3, 40
WARM_UP = 0.1


def timed(session):
    # Untimed runs are for the caches, and outlast the threads of the runtime before: some spin for milliseconds after a run.
    start = time.perf_counter()
    session.run()
    while time.perf_counter() - start < WARM_UP:
        session.run()
    start = time.perf_counter()
    session.run()
    return time.perf_counter() - start


def size(path):
    """Bytes of a model's file, with those that hold its weights."""
    path = Path(path)
    parts = {path, path.with_name(path.name + '.data'), path.with_suffix('.bin') if path.suffix == '.xml' else path}
    return sum(p.stat().st_size for p in parts if p.exists())


def difference(outputs, reference):
    """The largest difference, as a part of the largest value of the output."""
    if [o.shape for o in outputs] != [r.shape for r in reference]:
        raise ValueError('outputs of other shapes than ONNX Runtime has')
    return max(float(np.abs(o - r).max() / np.abs(r).max()) for o, r in zip(outputs, reference))


def latency(config, files, batch, sequence, threads):
    """Seconds by runtime: all are loaded in this process and run by turns."""
    sessions, line = {}, {'batch': batch, 'sequence': sequence, 'threads': threads, 'seconds': {}, 'difference': {}, 'failed': {}}
    for runtime in runtimes.ALL:
        try:
            sessions[runtime.name] = runtime(files, batch, sequence, threads)
            sessions[runtime.name].run()
        except Exception as error:  # a peer that can't is left out by name
            if runtime in (runtimes.Bertc, runtimes.OnnxRuntime):
                raise
            sessions.pop(runtime.name, None)
            line['failed'][runtime.name] = f'{type(error).__name__}: {error}'
    reference = sessions['ONNX Runtime'].outputs()
    line['difference'] = {name: difference(s.outputs(), reference) for name, s in sessions.items()}
    rounds, start = [], time.perf_counter()
    while len(rounds) < ROUNDS[0] or len(rounds) < ROUNDS[1] and time.perf_counter() - start < config['seconds']:
        rounds.append({name: timed(s) for name, s in sessions.items()})
    line['rounds'] = len(rounds)
    line['seconds'] = {name: statistics.median(r[name] for r in rounds) for name in sessions}
    # Peers against bertc round by round: what disturbs the machine disturbs both.
    line['ratio'] = {n: statistics.median(r[n] / r['bertc'] for r in rounds) for n in sessions}
    return line


def program(files, batch, sequence):
    start = time.perf_counter()
    done = subprocess.run([files['cold'], files['so'], str(batch), str(sequence)], check=True, capture_output=True, text=True)
    return {'seconds': time.perf_counter() - start, 'peak': int(done.stdout) * 1024, 'libraries': 0}


def cold(config, files, batch, sequence, rounds=7):
    """Start and memory of fresh processes, one thread, by turns. The first round is for the page cache."""
    def process(name):
        command = [sys.executable, 'cold.py', name, json.dumps(files), str(batch), str(sequence)]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None

    starts = {'bertc, from C': lambda: program(files, batch, sequence)}
    starts |= {name: lambda name=name: process(name) for name in runtimes.BY_NAME}
    results = [{name: start() for name, start in starts.items()} for _ in range(rounds)][1:]
    model = {'bertc, from C': files['so'], 'bertc': files['so'], 'OpenVINO': files['openvino'], 'LiteRT': files.get(f'tflite-{batch}-{sequence}')}
    figures = {}
    for name in starts:
        if all(r[name] for r in results):
            disk = size(model.get(name) or files['onnx']) + results[0][name]['libraries']
            figures[name] = {k: statistics.median(r[name][k] for r in results) for k in ('seconds', 'peak')} | {'disk': disk}
    return {'batch': batch, 'sequence': sequence, 'weights': size(files['onnx']), 'figures': figures}


def main():
    config = json.loads(Path(sys.argv[1]).read_text())
    result = {'machine': report.machine(), 'load before': os.getloadavg()[0], 'models': {}}
    for key, files in config['files'].items():
        lines = []
        for batch, sequence in config['shapes']:
            for threads in config['threads']:
                lines.append(latency(config, files, batch, sequence, threads))
                print(files['title'], json.dumps(lines[-1]), file=sys.stderr)
        shape = [1, 128] if [1, 128] in config['shapes'] else config['shapes'][0]
        result['models'][key] = {'title': files['title'], 'latency': lines, 'cold': cold(config, files, *shape)}
    text = report.markdown(config, result)
    if config['out']:
        Path(config['out']).write_text(text)
    else:
        print(text)
    if config['json']:
        Path(config['json']).write_text(json.dumps({'config': config} | result, indent=1))


main()
