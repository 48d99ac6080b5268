"""The runtimes that are compared. Each is a class: made, it has loaded a model for given extents and threads; `run` runs it;
`outputs` are the last run's, in the model's order.

A runtime is imported when the object is made, so that a process which times the start sees the whole of it.
"""
import ctypes
import os
from ctypes import POINTER, Structure, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_void_p

import numpy as np


def inputs(names, batch, sequence):
    """The inputs of a text encoder: token ids, no padding, one segment."""
    ids = np.random.default_rng(0).integers(100, 20000, (batch, sequence), np.int64)
    other = {'attention_mask': np.ones_like(ids), 'token_type_ids': np.zeros_like(ids)}
    return {name: ids if name == 'input_ids' else other[name] for name in names}


class OnnxRuntime:
    name, package = 'ONNX Runtime', 'onnxruntime'

    def __init__(self, files, batch, sequence, threads):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = ort.InferenceSession(files['onnx'], options, providers=['CPUExecutionProvider'])
        self.feed = inputs([i.name for i in self.session.get_inputs()], batch, sequence)

    def run(self):
        self.results = self.session.run(None, self.feed)

    def outputs(self):
        return self.results


class OpenVino:
    name, package = 'OpenVINO', 'openvino'

    def __init__(self, files, batch, sequence, threads):
        import openvino as ov

        core = ov.Core()
        model = core.read_model(files['openvino'])
        # Fixed extents are what it is fastest with.
        model.reshape({i.any_name: [batch, sequence] for i in model.inputs})
        self.model = core.compile_model(model, 'CPU', {
            'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_NUM_THREADS': threads, 'NUM_STREAMS': 1,
            'INFERENCE_PRECISION_HINT': files['precision']})
        self.request = self.model.create_infer_request()
        # Copied here once, not in every run.
        for name, value in inputs([i.any_name for i in model.inputs], batch, sequence).items():
            self.request.set_tensor(name, ov.Tensor(value))

    def run(self):
        self.request.infer()

    def outputs(self):
        return [self.request.get_tensor(o).data for o in self.model.outputs]


class LiteRt:
    name, package = 'LiteRT', 'ai_edge_litert'

    def __init__(self, files, batch, sequence, threads):
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(files[f'tflite-{batch}-{sequence}'], num_threads=threads)
        self.interpreter.allocate_tensors()
        details = {d['name']: d for d in self.interpreter.get_input_details()}
        for name, value in inputs(details, batch, sequence).items():
            self.interpreter.set_tensor(details[name]['index'], value.astype(details[name]['dtype']))

    def run(self):
        self.interpreter.invoke()

    def outputs(self):
        return [self.interpreter.get_tensor(d['index']) for d in self.interpreter.get_output_details()]


class Symbol(Structure):
    _fields_ = [('name', c_char_p), ('min', c_int64), ('max', c_int64)]


class Port(Structure):
    _fields_ = [('name', c_char_p), ('dtype', c_int32), ('rank', c_int32), ('dims', c_void_p)]


class Model(Structure):
    """bertc_model of bertc.h."""
    _fields_ = [
        ('abi_version', c_uint32), ('struct_size', c_uint32), ('name', c_char_p), ('hash', c_char_p),
        ('n_symbols', c_uint32), ('n_inputs', c_uint32), ('n_outputs', c_uint32), ('reserved', c_uint32),
        ('symbols', POINTER(Symbol)), ('inputs', POINTER(Port)), ('outputs', POINTER(Port)),
        ('workspace_size', ctypes.CFUNCTYPE(c_size_t, c_void_p, c_uint32)),
        ('run', ctypes.CFUNCTYPE(c_int32, *[c_void_p] * 4, c_size_t, c_void_p, c_void_p)),
        ('strerror', ctypes.CFUNCTYPE(c_char_p, c_int32)),
        ('output_shape', ctypes.CFUNCTYPE(c_int32, c_void_p, c_uint32, c_void_p))]


def pointers(arrays):
    return (c_void_p * len(arrays))(*[a.ctypes.data for a in arrays])


class Bertc:
    name, package = 'bertc', None

    def __init__(self, files, batch, sequence, threads):
        self.library = ctypes.CDLL(files['so'])
        self.model = model = Model.in_dll(self.library, 'peer_model')
        assert model.abi_version == 1
        extents = {b'batch': batch, b'sequence': sequence}
        self.dims = (c_int64 * model.n_symbols)(*[extents[model.symbols[i].name] for i in range(model.n_symbols)])
        self.feed = inputs([model.inputs[i].name.decode() for i in range(model.n_inputs)], batch, sequence)
        self.results = []
        for i in range(model.n_outputs):
            shape = (c_int64 * model.outputs[i].rank)()
            assert model.output_shape(self.dims, i, shape) == 0
            self.results.append(np.empty(tuple(shape), np.float32))
        self.parallel = None
        if threads > 1:
            stub = ctypes.CDLL(files['rt'])
            stub.bertc_pool_create.restype = stub.bertc_pool_parallel.restype = c_void_p
            self.parallel = c_void_p(stub.bertc_pool_parallel(c_void_p(stub.bertc_pool_create(c_uint32(threads)))))
        size = model.workspace_size(self.dims, threads)
        self.space = np.empty(size + 64, np.uint8)
        workspace = (self.space.ctypes.data + 63) // 64 * 64
        self.arguments = (pointers(self.feed.values()), self.dims, pointers(self.results), workspace, size,
                          self.parallel, None)

    def run(self):
        code = self.model.run(*self.arguments)
        if code:
            raise RuntimeError(self.model.strerror(code).decode())

    def outputs(self):
        return self.results


ALL = [Bertc, OnnxRuntime, OpenVino, LiteRt]
BY_NAME = {r.name: r for r in ALL}


def libraries(package):
    """Bytes of a package's shared libraries that this process has loaded: what an app would have to carry."""
    with open('/proc/self/maps') as maps:
        mapped = {line.split(None, 5)[5].strip() for line in maps if line.count('/')}
    return sum(os.path.getsize(path) for path in mapped if f'/site-packages/{package}/' in path and '.so' in path)
