"""Writes an ONNX model for LiteRT, with fixed extents. Runs in an environment of its own, of requirements-convert.txt.

usage:  python convert.py MODEL.onnx OUT.tflite BATCH SEQUENCE
"""
import os
import sys
import tempfile

import onnx2tf
import onnxruntime as ort

source, out, *extents = sys.argv[1:]
with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(out))) as folder:
    # onnx2tf gets shape arithmetic wrong, so ONNX Runtime folds it. More than the basic level would leave ONNX's own operators.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = os.path.join(folder, 'fixed.onnx')
    for name, extent in zip(('batch', 'sequence'), extents, strict=True):
        options.add_free_dimension_override_by_name(name, int(extent))
    ort.InferenceSession(source, options, providers=['CPUExecutionProvider'])
    # It writes to its input too, so never give it the model itself.
    onnx2tf.convert(options.optimized_model_filepath, output_folder_path=folder,
                    copy_onnx_input_output_names_to_tflite=True, verbosity='error')
    os.replace(os.path.join(folder, 'fixed_float32.tflite'), out)
