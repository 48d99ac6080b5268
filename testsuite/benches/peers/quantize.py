"""Writes the 8-bit forms of an ONNX model that ONNX Runtime and OpenVINO's users would make. Runs in an environment of its
own, of requirements-quantize.txt.

usage:  python quantize.py MODEL.onnx OUT-ort.onnx OUT-openvino.xml

ONNX Runtime: dynamic quantisation, as its guide has it for transformers. OpenVINO: NNCF's post-training quantisation for
transformers, calibrated with random token ids, since only the time counts here.
"""
import sys
import warnings

import nncf
import numpy as np
import openvino as ov
from onnxruntime.quantization import QuantType, quantize_dynamic

warnings.filterwarnings('ignore')
source, for_ort, for_openvino = sys.argv[1:]
quantize_dynamic(source, for_ort, weight_type=QuantType.QInt8, use_external_data_format=True)

model = ov.Core().read_model(source)
random = np.random.default_rng(1)


def sample(length):
    ids = random.integers(100, 20000, (1, length), np.int64)
    other = {'attention_mask': np.ones_like(ids), 'token_type_ids': np.zeros_like(ids)}
    return {i.any_name: ids if i.any_name == 'input_ids' else other[i.any_name] for i in model.inputs}


data = nncf.Dataset([sample(length) for length in (16, 64, 128)] * 4)
ov.save_model(nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=12), for_openvino)
