#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The table of self_correction.sh, in Markdown.

usage: self_correction_report.py FOLDER RUN...

FOLDER holds, for each run, its samples as they were drawn and corrected (RUN.drawn.jsonl, RUN.corrected.jsonl), its
validation ELBO (RUN.valid.json), the ELBO of the samples under every run's model (RUN.drawn.by.MODEL.json ...), their
likelihood under an autoregressive model (RUN.drawn.by.autoregressive.json) and GPT-2's (RUN.drawn.judge.json) if there.
"""
import json
import math
import os
import statistics
import sys


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def unigram_entropy(samples):
    """Nats a token, over all samples."""
    counts = {}
    for sample in samples:
        for token in sample["ids"]:
            counts[token] = counts.get(token, 0) + 1
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values())


def distinct_pairs(samples):
    """Share of neighbouring pairs of tokens that are different ones: 1 is no repetition at all."""
    pairs = [pair for sample in samples for pair in zip(sample["ids"], sample["ids"][1:])]
    return len(set(pairs)) / len(pairs)


def elbo(report):
    return f"{report['elbo']:.3f} ± {report['standard_error']:.3f}"


def accuracy(samples, which):
    values = [sample[f"{which}_accuracy"] for sample in samples]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} ± {error:.4f}"


JUDGES = (("by.autoregressive", "nll", "judge: nats a token"), ("judge", "generative_nll", "GPT-2: nats a token"))


def judges_of(folder, runs):
    return [judge for judge in JUDGES if os.path.exists(f"{folder}/{runs[0]}.drawn.{judge[0]}.json")]


def judged(path, key):
    report = load(path)
    error = report.get("standard_error")
    return f"{report[key]:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def print_run(folder, run, runs):
    drawn, corrected = (lines(f"{folder}/{run}.{kind}.jsonl") for kind in ("drawn", "corrected"))
    other = next(model for model in runs if model != run)
    for kind, samples, which in (("drawn", drawn, "initial"), ("corrected", corrected, "final")):
        own, by_other = (load(f"{folder}/{run}.{kind}.by.{model}.json") for model in (run, other))
        row = [run, kind, accuracy(corrected, which), elbo(own), elbo(by_other), f"{unigram_entropy(samples):.3f}",
               f"{distinct_pairs(samples):.3f}"]
        row += [judged(f"{folder}/{run}.{kind}.{judge}.json", key) for judge, key, _ in judges_of(folder, runs)]
        print("| " + " | ".join(row) + " |")


def main():
    folder, runs = sys.argv[1], sys.argv[2:]
    print("| model | steps | validation ELBO, nats a token |\n| --- | --- | --- |")
    for run in runs:
        valid = load(f"{folder}/{run}.valid.json")
        print(f"| {run} | {valid['step']} | {elbo(valid)} (unigram entropy {valid['unigram_entropy']:.3f}) |")
    head = ["samples of", "", "self-accuracy", "ELBO, own model", "ELBO, other model", "unigram entropy", "distinct pairs"]
    head += [title for _, _, title in judges_of(folder, runs)]
    print("\n| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    for run in runs:
        print_run(folder, run, runs)
    print("\n| self-correction of | tokens changed | steps | converged | out of patience | at the limit |\n|" + " --- |" * 6)
    for run in runs:
        corrected = lines(f"{folder}/{run}.corrected.jsonl")
        endings = [sum(sample["ended"] == how for sample in corrected) for how in ("converged", "patience", "limit")]
        changed, steps = (statistics.mean(sample[key] for sample in corrected) for key in ("changed", "steps"))
        print(f"| {run} | {changed:.1f} of {len(corrected[0]['ids'])} | {steps:.1f} | "
              + " | ".join(str(count) for count in endings) + f" of {len(corrected)} |")


main()
