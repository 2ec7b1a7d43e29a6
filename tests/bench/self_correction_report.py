#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The table of self_correction.sh, in Markdown.

usage: self_correction_report.py FOLDER RUN...

FOLDER holds, for each run, its samples as they were drawn and corrected (RUN.drawn.jsonl, RUN.corrected.jsonl), its
validation ELBO (RUN.valid.json), and the ELBO of the samples under every run's model (RUN.drawn.by.MODEL.json ...).
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


def print_run(folder, run, runs):
    drawn, corrected = (lines(f"{folder}/{run}.{kind}.jsonl") for kind in ("drawn", "corrected"))
    other = next(model for model in runs if model != run)
    for kind, samples, which in (("drawn", drawn, "initial"), ("corrected", corrected, "final")):
        own, by_other = (load(f"{folder}/{run}.{kind}.by.{model}.json") for model in (run, other))
        judge = f"{folder}/{run}.{kind}.judge.json"
        row = [run, kind, accuracy(corrected, which), elbo(own), elbo(by_other), f"{unigram_entropy(samples):.3f}",
               f"{distinct_pairs(samples):.3f}"]
        if os.path.exists(judge):
            row.append(f"{load(judge)['ppl']:.1f}")
        print("| " + " | ".join(row) + " |")


def main():
    folder, runs = sys.argv[1], sys.argv[2:]
    judged = os.path.exists(f"{folder}/{runs[0]}.drawn.judge.json")
    print("| model | steps | validation ELBO, nats a token |\n| --- | --- | --- |")
    for run in runs:
        valid = load(f"{folder}/{run}.valid.json")
        print(f"| {run} | {valid['step']} | {elbo(valid)} (unigram entropy {valid['unigram_entropy']:.3f}) |")
    head = ["samples of", "", "self-accuracy", "ELBO, own model", "ELBO, other model", "unigram entropy", "distinct pairs"]
    head += ["judge's perplexity"] if judged else []
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
