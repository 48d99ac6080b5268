"""Makes a file for --calibrate out of sentences.

    python calibration.py --tokenizer tokenizer.json --texts FILE -o calibration.npz [--column 5] [--skip 600] [--count 256]

FILE has a sentence a line, or with --column tab-separated columns of which one or several (repeat the flag) are sentences,
as STS-B has them in columns 5 and 6 from 0. Sentences of the first --skip lines are left out wherever they stand again, so
that what is tuned on them is not measured on them. The chosen sentences are those that a generator with --seed gives.
Needs numpy and tokenizers.
"""

import argparse
import random

import numpy
from tokenizers import Tokenizer


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--texts", required=True)
    p.add_argument("-o", "--output", required=True)
    p.add_argument("--column", type=int, action="append")
    p.add_argument("--skip", type=int, default=0)
    p.add_argument("--count", type=int, default=256)
    p.add_argument("--length", type=int, default=128, help="tokens that are kept of a sentence")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    tokenizer = Tokenizer.from_file(a.tokenizer)
    tokenizer.no_padding()
    tokenizer.enable_truncation(a.length)
    with open(a.texts, encoding="utf-8") as f:
        lines = [line.rstrip("\n") for line in f]
    split = [[line.split("\t")[c] for c in a.column] if a.column else [line] for line in lines]
    taken = {s for line in split[: a.skip] for s in line}
    sentences = sorted({s for line in split[a.skip :] for s in line if s.strip()} - taken)
    random.Random(a.seed).shuffle(sentences)
    all_ids = [tokenizer.encode(s).ids for s in sentences[: a.count]]
    width = max(map(len, all_ids))
    ids, mask = (numpy.zeros((len(all_ids), width), numpy.int64) for _ in range(2))
    for row, known in enumerate(all_ids):
        ids[row, : len(known)] = known
        mask[row, : len(known)] = 1
    numpy.savez(a.output, input_ids=ids, attention_mask=mask, token_type_ids=numpy.zeros_like(ids))
    print(f"{len(all_ids)} sentences of at most {width} tokens, {mask.sum()} in all")


if __name__ == "__main__":
    main()
