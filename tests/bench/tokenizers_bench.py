#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times gidd's tokenizer, tiktoken and Hugging Face's tokenizers on the same texts, in turns, one thread each.

    tokenizers_bench.py --bench build/bin/gidd-bench --tokenizer DIR [--rounds 5] FOLDER|FILE...

DIR holds GPT-2's vocab.bpe and encoder.json, from which all three are built. Texts are read into memory first and
encoded one after another; their numbers of tokens must agree. "cold" is a new encoder's first pass over the texts,
"warm" a later one; the others keep no cache worth the name, their passes are alike. Each turn measures all three, so
that a machine with other work on it slows them alike: then look at the ratios, not at the MB/s. A turn is the best
of three passes for each.
Packages: python3 -m pip install tiktoken tokenizers. Exit code 77 where they are absent, 1 if the counts differ.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"


def texts_of(paths):
    for path in paths:
        if os.path.isfile(path):
            yield path
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                yield os.path.join(folder, name)


def read_texts(paths):
    for path in texts_of(paths):
        with open(path, encoding="utf-8") as stream:
            yield stream.read()


def load_tiktoken(folder):
    from tiktoken import Encoding
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str
    ranks = data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=os.path.join(folder, "vocab.bpe"),
                                            encoder_json_file=os.path.join(folder, "encoder.json"))
    encoding = Encoding(name="gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})
    return lambda text: len(encoding.encode_ordinary(text))


def load_tokenizers(folder):
    from tokenizers import ByteLevelBPETokenizer
    encoder = ByteLevelBPETokenizer(os.path.join(folder, "encoder.json"), os.path.join(folder, "vocab.bpe"))
    return lambda text: len(encoder.encode(text).ids)


def time_python(encode, texts, size):
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        tokens = sum(encode(text) for text in texts)
        best = min(best, time.perf_counter() - start)
    return tokens, size / 1e6 / best


def time_ours(options):
    command = [options.bench, "tokenizer", "--repeats", "3", "--warmup", "1", *options.paths]
    environment = {**os.environ, "GIDD_TOKENIZER_DIR": options.tokenizer}
    output = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout.decode()
    report = json.loads(output.strip().splitlines()[-1])
    return report["tokens"], report["text_bytes"], report["cold_mb_per_s"]["max"], report["mb_per_s"]["max"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default="gidd-bench")
    parser.add_argument("--tokenizer", default=os.environ.get("GIDD_TOKENIZER_DIR", "data/tokenizer"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("paths", nargs="+", metavar="PATH")
    options = parser.parse_args()
    try:
        others = {"tiktoken": load_tiktoken(options.tokenizer), "tokenizers": load_tokenizers(options.tokenizer)}
    except ImportError as error:
        print(f"skipped: {error} (python3 -m pip install tiktoken tokenizers)")
        return 77
    texts = list(read_texts(options.paths))
    size = sum(len(text.encode()) for text in texts)
    speeds, tokens = {}, set()
    for _ in range(options.rounds):
        count, our_size, cold, warm = time_ours(options)
        if our_size != size:
            print(f"gidd-bench read {our_size} bytes, not {size}: give texts that data.suffixes takes")
            return 1
        tokens.add(count)
        speeds.setdefault("gidd, cold", []).append(cold)
        speeds.setdefault("gidd, warm", []).append(warm)
        for name, encode in others.items():
            count, speed = time_python(encode, texts, size)
            tokens.add(count)
            speeds.setdefault(name, []).append(speed)
    if len(tokens) != 1:
        print(f"the numbers of tokens differ: {sorted(tokens)}")
        return 1
    print(f"{len(texts)} texts, {size} bytes, {tokens.pop()} tokens, {options.rounds} rounds, 1 thread each; MB/s")
    slowest = statistics.median(speeds["tiktoken"])
    for name, values in speeds.items():
        print(f"  {name:12s} {statistics.median(values):8.1f}   ({min(values):.1f} .. {max(values):.1f})"
              f"   {statistics.median(values) / slowest:6.1f} x tiktoken")
    return 0


sys.exit(main())
