"""Writes a model of BERT-base's size (12 layers, hidden 768, 435 MB) with random weights, for timings.

usage:  python bert_base.py OUT.onnx
needs   pip install numpy onnx
"""
import sys
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

rng, nodes, weights = np.random.default_rng(0), [], []
LAYERS, HIDDEN, HEADS, INNER = 12, 768, 12, 3072


def constant(name, value):
    weights.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def weight(name, *shape):
    return constant(name, rng.standard_normal(shape, np.float32) * np.float32(0.02))


def op(kind, *inputs, **attributes):
    out = f'{kind}_{len(nodes)}'
    nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
    return out


def linear(x, name, k, n):
    return op('Add', op('MatMul', x, weight(name + '.weight', k, n)), weight(name + '.bias', n))


def norm(x, name):
    ones = constant(name + '.weight', np.ones(HIDDEN, np.float32))
    return op('LayerNormalization', x, ones, weight(name + '.bias', HIDDEN), axis=-1, epsilon=1e-12)


def heads(x, perm):
    return op('Transpose', op('Reshape', x, split), perm=perm)


split, merge = constant('split', [0, 0, HEADS, HIDDEN // HEADS]), constant('merge', [0, 0, HIDDEN])
seq = op('Gather', op('Shape', 'input_ids'), constant('one', 1))
positions = op('Range', constant('zero', 0), seq, 'one')
x = op('Add', op('Gather', weight('words', 30522, HIDDEN), 'input_ids'), op('Gather', weight('types', 2, HIDDEN), 'token_type_ids'))
x = norm(op('Add', x, op('Gather', weight('positions', 512, HIDDEN), positions)), 'embeddings.norm')
mask = op('Cast', op('Unsqueeze', 'attention_mask', constant('axes', [1, 2])), to=TensorProto.FLOAT)
mask = op('Mul', op('Sub', constant('one.f', np.float32(1)), mask), constant('low', np.float32(-1e9)))
for i in range(LAYERS):
    q, k, v = (linear(x, f'{i}.{n}', HIDDEN, HIDDEN) for n in ('query', 'key', 'value'))
    scores = op('MatMul', heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1]))
    scores = op('Add', op('Div', scores, constant(f'{i}.scale', np.float32(8))), mask)
    context = op('MatMul', op('Softmax', scores, axis=-1), heads(v, [0, 2, 1, 3]))
    context = op('Reshape', op('Transpose', context, perm=[0, 2, 1, 3]), merge)
    x = norm(op('Add', linear(context, f'{i}.output', HIDDEN, HIDDEN), x), f'{i}.norm1')
    h = linear(x, f'{i}.up', HIDDEN, INNER)
    erf = op('Erf', op('Div', h, constant(f'{i}.root', np.float32(2 ** 0.5))))
    h = op('Mul', op('Mul', h, op('Add', erf, 'one.f')), constant(f'{i}.half', np.float32(0.5)))
    x = norm(op('Add', linear(h, f'{i}.down', INNER, HIDDEN), x), f'{i}.norm2')
nodes.append(helper.make_node('Identity', [x], ['last_hidden_state']))
port = lambda name, kind, *shape: helper.make_tensor_value_info(name, kind, ['batch', 'sequence', *shape])
graph = helper.make_graph(
    nodes, 'bert_base', [port(n, TensorProto.INT64) for n in ('input_ids', 'attention_mask', 'token_type_ids')],
    [port('last_hidden_state', TensorProto.FLOAT, HIDDEN)], weights)
save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8), sys.argv[1])
