"""Tiny models of encoder families, written by PyTorch's exporters, with golden outputs of ONNX Runtime.

    python export.py OUT [NAME...]

Needs torch, transformers, onnx, onnxscript, onnxruntime, numpy; the models here are of torch 2.15 and transformers 5.23. Each NAME.npz has inputs and outputs of two cases: batch 1,
length 11, and batch 3, length 17, rows padded to lengths of 17, 9 and 2.
"""

import pathlib
import sys
import warnings

import numpy
import onnx
import onnxruntime
import torch
import transformers as hf

warnings.filterwarnings("ignore")

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 200}
COMMON = SIZES | {"initializer_range": 0.15, "max_position_embeddings": 64}


def model(kind, head="Model", attention="eager", **more):
    """A model of a family with a head; weights are random, but the same every time."""
    torch.manual_seed(7)
    config = getattr(hf, f"{kind}Config")(**(COMMON | more), attn_implementation=attention)
    made = getattr(hf, f"{kind}{head}")(config).eval()
    with torch.no_grad():
        for name, p in made.named_parameters():
            if name.endswith("bias") or "norm" in name.lower():
                p.add_(torch.randn_like(p) * 0.1)
    return made


DEBERTA = {
    "relative_attention": True, "max_relative_positions": -1, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0,
    "position_biased_input": False, "pad_token_id": 0,
}
MODERN = {
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
    "global_attn_every_n_layers": 2, "local_attention": 8, "num_hidden_layers": 4,
}
# Name: the model, whether it is torch.export's (opset 20) or TorchScript's (opset 17).
MODELS = {
    "xlm-roberta-ner": (lambda: model("XLMRoberta", "ForTokenClassification", num_labels=5, pad_token_id=1), False),
    "camembert-mlm-dynamo": (lambda: model("Camembert", "ForMaskedLM", "sdpa", pad_token_id=1), True),
    "mobilebert": (
        lambda: model("MobileBert", embedding_size=32, intra_bottleneck_size=32, intermediate_size=64), False),
    "mobilebert-dynamo": (
        lambda: model("MobileBert", embedding_size=32, intra_bottleneck_size=32, intermediate_size=64), True),
    "mpnet": (lambda: model("MPNet"), False),
    "mpnet-dynamo": (lambda: model("MPNet"), True),
    "deberta": (lambda: model("Deberta", **DEBERTA), False),
    "deberta-v2": (lambda: model("DebertaV2", **DEBERTA, conv_kernel_size=3, conv_act="gelu"), False),
    "deberta-v3-dynamo": (
        lambda: model("DebertaV2", **DEBERTA, position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm"), True),
    "modernbert": (lambda: model("ModernBert", **MODERN), False),
    "modernbert-dynamo": (lambda: model("ModernBert", "ForMaskedLM", "sdpa", **MODERN), True),
    "roformer": (lambda: model("RoFormer", embedding_size=64), False),
    "roformer-dynamo": (lambda: model("RoFormer", embedding_size=64), True),
    "t5-encoder": (
        lambda: model("T5", "EncoderModel", d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
                      relative_attention_num_buckets=8, relative_attention_max_distance=16), False),
    "t5-gated-encoder-dynamo": (
        lambda: model("T5", "EncoderModel", d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
                      relative_attention_num_buckets=8, relative_attention_max_distance=16,
                      feed_forward_proj="gated-gelu"), True),
    "nomic-bert": (lambda: model("NomicBert"), False),
    "nomic-bert-dynamo": (lambda: model("NomicBert", attention="sdpa"), True),
}


class Wrapped(torch.nn.Module):
    """One output, so that all families look alike."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, attention_mask):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask, return_dict=True)[0]


def inputs(batch, length):
    random = numpy.random.default_rng(batch)
    ids = random.integers(5, 200, (batch, length))
    mask = numpy.ones_like(ids)
    for row, n in enumerate([length, 9, 2][:batch]):
        mask[row, n:] = 0
        ids[row, n:] = 1
    return {"input_ids": ids, "attention_mask": mask}


def export(made, path, dynamo):
    sample = tuple(torch.from_numpy(x) for x in inputs(2, 13).values())
    names = {"input_names": ["input_ids", "attention_mask"], "output_names": ["output"]}
    if dynamo:
        dims = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("sequence", min=2, max=64)}
        torch.onnx.export(made, sample, path, dynamo=True, dynamic_shapes=(dims, dims), opset_version=20,
                          external_data=False, verbose=False, **names)
    else:
        axes = {name: {0: "batch", 1: "sequence"} for name in ["input_ids", "attention_mask", "output"]}
        torch.onnx.export(made, sample, path, dynamo=False, dynamic_axes=axes, opset_version=17, **names)


def main(out, wanted):
    out.mkdir(parents=True, exist_ok=True)
    for name, (make, dynamo) in MODELS.items():
        if wanted and name not in wanted:
            continue
        made = Wrapped(make()).eval()
        path = out / f"{name}.onnx"
        export(made, path, dynamo)
        session = onnxruntime.InferenceSession(path)
        golden = {}
        for case, (batch, length) in enumerate([(1, 11), (3, 17)]):
            given = inputs(batch, length)
            [result] = session.run(None, given)
            golden |= {f"c{case}/in:{k}": v for k, v in given.items()} | {f"c{case}/out:output": result}
            with torch.no_grad():
                torch_result = made(*[torch.from_numpy(x) for x in given.values()]).numpy()
            seen = given["attention_mask"] == 1 if result.ndim == 3 else ...
            error = abs(result - torch_result)[seen]
            print(name, case, result.shape, "off from PyTorch by", error.max(), "of", abs(result).max(), flush=True)
        numpy.savez(out / f"{name}.npz", **golden)


main(pathlib.Path(sys.argv[1]), sys.argv[2:])
