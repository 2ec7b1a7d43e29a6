#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares gidd-tokenize with tiktoken, id for id.

    compare_tiktoken.py --program build/bin/gidd-tokenize --tokenizer DIR [--max-mb N] [PATH ...]
    compare_tiktoken.py ... --random N [--seed S]
    compare_tiktoken.py --tokenizer DIR --golden > gpt2_golden.txt

PATH: files, or folders whose regular files are taken in sorted order. Invalid UTF-8 is replaced by
U+FFFD first, as tiktoken takes only text; --random adds N random Unicode strings of every script, and
N random byte strings, for which decode(encode(x)) == x is checked. DIR holds vocab.bpe and
encoder.json. Exit code: 0 equal, 1 different, 77 (skipped) when tiktoken is absent.
"""
import argparse
import array
import os
import random
import subprocess
import sys

PIECE_BYTES = 4 << 20
EDGES = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "''", "'", " ", "  ", "\n", "\r\n", "\t",
         "\x00", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\xa0", "\u1680", "\u180e", "\u2000",
         "\u2009", "\u200b", "\u2028", "\u202f", "\u205f", "\u3000", "\ufeff", "<|endoftext|>", "a",
         "Z", "0", "9", "\u0661", "\u00b2", "\u4e00", "\u0436", "e\u0301", "\U0001f600", "\U00010400",
         ".", "...", "-", "\u2019s", "\u201c", "the", " the", " 12", "\x7f", "\U0010ffff")


def reference(folder):
    from tiktoken import Encoding
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str
    ranks = data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=os.path.join(folder, "vocab.bpe"),
                                            encoder_json_file=os.path.join(folder, "encoder.json"))
    return Encoding(name="gpt2", pat_str=r50k_pat_str, mergeable_ranks=ranks, special_tokens={})


def run(arguments, options, data):
    command = [options.program, "--tokenizer", options.tokenizer, "--format", "u16"] + arguments
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def encode(options, data):
    ids = array.array("H")
    ids.frombytes(run([], options, data))
    if sys.byteorder == "big":
        ids.byteswap()
    return ids


def differs(options, encoding, text, name):
    """Whether the ids of `text` differ; prints where."""
    data = text.encode()
    ours = encode(options, data)
    theirs = array.array("H", encoding.encode_ordinary(text))
    if ours == theirs:
        return False
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    print(f"{name}: id {at} of {len(ours)}/{len(theirs)} differs: {list(ours[at:at + 8])} for "
          f"{encoding.decode_bytes(ours[at:at + 8])!r}, expected {list(theirs[at:at + 8])}")
    return True


def files_of(paths):
    for path in paths:
        if os.path.isfile(path):
            yield path
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                full = os.path.join(folder, name)
                if os.path.isfile(full) and not os.path.islink(full):
                    yield full


def pieces_of(paths, limit):
    """Texts of about PIECE_BYTES: small files are joined, large ones cut anywhere."""
    text, bytes_left, first = "", limit, None
    for path in files_of(paths):
        with open(path, "rb") as stream:
            while bytes_left > 0:
                data = stream.read(min(PIECE_BYTES, bytes_left))
                if not data:
                    break
                bytes_left -= len(data)
                first = first or path
                text += data.decode("utf-8", "replace")
                if len(text) >= PIECE_BYTES:
                    yield first, text
                    text, first = "", None
    if text:
        yield first, text


def random_character(draw):
    """A character of any plane, more often of the lower ones; no surrogate."""
    point = draw.randrange(draw.choice((0x80, 0x250, 0x800, 0x3100, 0x10000, 0x20000, 0x110000)))
    return chr(point) if not 0xD800 <= point < 0xE000 else " "


def random_text(draw, characters):
    parts = []
    while len(parts) < characters:
        kind = draw.random()
        if kind < 0.4:
            parts.append(draw.choice(EDGES) * draw.choice((1, 1, 1, 2, 3, 17)))
        elif kind < 0.6:
            base = draw.randrange(0x20, 0x20000)
            parts.extend(chr(p) for p in range(base, base + draw.randrange(1, 30))
                         if not 0xD800 <= p < 0xE000)
        else:
            parts.append(random_character(draw))
    return "".join(parts)


def compare_random(options, encoding):
    draw, failures, bytes_total = random.Random(options.seed), 0, 0
    for number in range(options.random):
        text = random_text(draw, draw.choice((1, 7, 63, 64, 65, 1000, 20000)))
        failures += differs(options, encoding, text, f"random string {number} of seed {options.seed}")
        bytes_total += len(text.encode())
    round_trips = 0
    for number in range(options.random):
        data = draw.randbytes(draw.choice((1, 5, 63, 64, 65, 4096, 100000)))
        if draw.random() < 0.5:  # valid text with damage in it
            text = bytearray(random_text(draw, 500).encode())
            for _ in range(20):
                text[draw.randrange(len(text))] = draw.randrange(256)
            data = bytes(text)
        if run(["--decode"], options, encode(options, data).tobytes()) != data:
            print(f"random bytes {number} of seed {options.seed} do not survive the round trip")
            failures += 1
        round_trips += 1
    print(f"{options.random} random strings ({bytes_total} bytes), {round_trips} round trips: "
          f"{failures} failures")
    return failures


def write_golden(encoding):
    """What test_bpe_gpt2 reads: prose, each edge in a setting, and random texts."""
    draw = random.Random(1)
    texts = ["", "Hello world, don't you'll  think   so?\n I've 123 things",
             "It was the best of times, it was the worst of times, it was the age of wisdom.",
             "def f(x):\n        return x  # tab\there\r\n", "a" * 300, " " * 100 + "x", "\n" * 50,
             "=" * 77 + "\n", "0123456789" * 10, "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
             "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440", "He said \u201cI\u2019m\u201d."]
    texts += ["a" + edge + "b " + edge + "  " + edge for edge in EDGES]
    texts += [random_text(draw, 40) for _ in range(20)]
    for text in texts:
        ids = "".join(f" {i}" for i in encoding.encode_ordinary(text))
        print(f"{text.encode().hex()}:{ids}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="gidd-tokenize")
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--tokenizer", default=os.environ.get("GIDD_TOKENIZER_DIR", "data/tokenizer"))
    parser.add_argument("--max-mb", type=int, default=1 << 20)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("paths", nargs="*", metavar="PATH")
    options = parser.parse_args()
    try:
        encoding = reference(options.tokenizer)
    except ImportError as error:
        print(f"skipped: {error} (python3 -m pip install tiktoken)")
        return 77
    if options.golden:
        write_golden(encoding)
        return 0
    failures, bytes_total, pieces = 0, 0, 0
    for name, text in pieces_of(options.paths, options.max_mb * 1000000):
        failures += differs(options, encoding, text, name)
        bytes_total += len(text.encode())
        pieces += 1
    if options.paths:
        print(f"{bytes_total} bytes in {pieces} texts: {failures} differ")
    if options.random:
        failures += compare_random(options, encoding)
    return 1 if failures else 0


sys.exit(main())
