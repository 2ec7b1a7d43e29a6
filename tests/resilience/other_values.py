#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a program's --help, prints for every configuration key "key class value", the value another valid one.

usage: ARGP_HELP_FMT=rmargin=400 gidd-worker --help | other_values.py CONFIG       CONFIG: the resolved configuration (config.yaml of a run)
"""
import re
import sys

# Where a step away from the present value would break a rule about two keys, or mean something else entirely. None: a key
# that cannot change alone (model.type is tried by tests/tools/autoregressive).
CHOSEN = {
    "model.hidden_size": "64", "model.heads": "4", "model.cond_size": "24", "model.context": "32", "training.global_batch": "24",
    "training.micro_batch": "4", "loss.max_weight": "3", "optimizer.warmup_steps": "1", "device.kind": "auto",
    "model.type": None, "data.dir": None, "data.mix": None, "data.source": "nowhere", "run.end_time": "9999999999", "loss.skip_clean_rows": "off",
}


def present_values(path):
    values, section = {}, ""
    for line in open(path, encoding="utf-8"):
        if line[0] != " ":
            section = line.strip().rstrip(":")
        else:
            key, _, value = line.strip().partition(": ")
            values[f"{section}.{key}"] = value.strip('"')
    return values


def other_value(key, now, kind):
    if key in CHOSEN:
        return CHOSEN[key]
    if "|" in kind:
        return next(name for name in kind.split("|") if name != now)
    low, high = map(float, re.search(r" (\S+)\.\.(\S+)$", kind).groups()) if ".." in kind else (0, 0)
    if kind.startswith("whole number"):
        return str(int(now) + 1 if int(now) + 1 <= high else int(now) - 1)
    if kind.startswith("number"):
        other = float(now) * 1.5 if float(now) else min(high, max(low, 0.05))
        return repr(other if low <= other <= high else float(now) * 0.5)
    return "other"


def main():
    values = present_values(sys.argv[1])
    text = sys.stdin.read()
    found = re.findall(r"^  ([a-z]+\.[a-z_0-9]+) .*\n      (.*); default .*; (identity|semantic|free)$", text, re.M)
    assert {key for key, _, _ in found} == set(values), set(values) ^ {key for key, _, _ in found}
    for key, kind, klass in found:
        value = other_value(key, values[key], kind)
        if value is not None:
            print(key, klass, value)


main()
