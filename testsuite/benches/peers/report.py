"""The figures of measure.py as Markdown."""
import os
import platform
from importlib.metadata import version

import runtimes

DISTRIBUTIONS = {'ONNX Runtime': 'onnxruntime', 'OpenVINO': 'openvino', 'LiteRT': 'ai-edge-litert'}


def machine():
    with open('/proc/cpuinfo') as info:
        name = next((line.split(':')[1].strip() for line in info if line.startswith('model name')), platform.machine())
    policy = {0: '', 1: ', real-time priority', 2: ', real-time priority'}.get(os.sched_getscheduler(0), '')
    return f'{name}, {len(os.sched_getaffinity(0))} CPUs, Linux {platform.release()}{policy}'


def table(head, rows):
    lines = ['| ' + ' | '.join(map(str, row)) + ' |' for row in [head, *rows]]
    return '\n'.join([lines[0], '|---' * len(head) + '|', *lines[1:]])


def milliseconds(seconds):
    return f'{1e3 * seconds:.3g} ms' if abs(seconds) < 0.9995 else f'{1e3 * seconds:.0f} ms'


def latencies(models):
    names = list(runtimes.BY_NAME)
    for model in models.values():
        for line in model['latency']:
            peers = {n: r for n, r in line['ratio'].items() if n != 'bertc'}
            ratio = min(peers.values())
            what = [model['title'], line['batch'], line['sequence'], line['threads']]
            times = [milliseconds(line['seconds'][n]) if n in line['seconds'] else '–' for n in names]
            yield [*what, *times, f'{ratio:.2f}', f'{line["difference"]["bertc"]:.0e}']


def starts(models):
    for model in models.values():
        cold = model['cold']
        shape = cold['batch'], cold['sequence']
        warm = next((l['seconds'] for l in model['latency'] if (l['batch'], l['sequence'], l['threads']) == (*shape, 1)), {})
        for name, f in cold['figures'].items():
            run = warm.get(name.split(',')[0])
            more = [milliseconds(run), milliseconds(f['seconds'] - run)] if run else ['–', '–']
            yield [model['title'], name, milliseconds(f['seconds']), *more, f'{f["peak"] / 1e6:.0f} MB', f'{f["disk"] / 1e6:.0f} MB']


def markdown(config, result):
    models = result['models']
    lines = [l for m in models.values() for l in m['latency']]
    versions = ', '.join(f'{n} {version(d)}' for n, d in DISTRIBUTIONS.items())
    largest = {n: max(l['difference'].get(n, 0) for l in lines) for n in runtimes.BY_NAME if n != 'ONNX Runtime'}
    failed = dict.fromkeys(f'{n}, {m["title"]}, batch {l["batch"]}, length {l["sequence"]}: {e}'
                           for m in models.values() for l in m['latency'] for n, e in l['failed'].items())
    left_out = ''.join(f'- left out: {m}\n' for m in [*config['missing'], *failed])
    first = next(iter(models.values()))['cold']
    head = ['model', 'batch', 'length', 'threads', *runtimes.BY_NAME, 'best peer / bertc', 'difference']
    return f'''\
- machine: {result['machine']}; load before: {result['load before']:.1f}
- versions: {versions}; bertc {config['flags']}; {config['precision']}
- command: `{config['command']}`
- {min(l['rounds'] for l in lines)} to {max(l['rounds'] for l in lines)} rounds; largest difference to ONNX Runtime's outputs: \
{', '.join(f'{n} {d:.0e}' for n, d in largest.items())} of the largest value
{left_out}
{table(head, latencies(models))}

A fresh process, one thread, batch {first['batch']}, length {first['sequence']}:

{table(['model', 'runtime', 'to the first result', 'warm run', 'more than that', 'peak memory', 'on disk'], starts(models))}
'''
