"""Writes the dynamic-range form of a LiteRT model: 8-bit weights, and products that quantise what they are multiplied by.
Runs in an environment of its own, of requirements-quantize-litert.txt.

usage:  python quantize_litert.py MODEL.tflite OUT.tflite
"""
import sys

from ai_edge_quantizer import quantizer, recipe

source, out = sys.argv[1:]
q = quantizer.Quantizer(source)
q.load_quantization_recipe(recipe.dynamic_wi8_afp32())
q.quantize().export_model(out)
