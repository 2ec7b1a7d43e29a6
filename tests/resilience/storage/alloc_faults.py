#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""alloc_faults.py BIN --shim liballocfault.so [--sample N]: the k-th allocation of a tool fails, for every k (or N of
them). It must end with a documented exit code and one sentence, or not have needed the memory: then its output is the
usual one. No crash, no hang."""
import run_driver as driver

LIMIT_S = 60
OUT_OF_MEMORY = 70


def commands(bench, o):
    checkpoint, shards = bench.work / "whole", bench.work / "shards"
    config = ["--config", bench.work / "config.yaml"]
    return {
        "checkpoint list": [o.bin / "gidd-checkpoint", "list", checkpoint],
        "checkpoint inspect": [o.bin / "gidd-checkpoint", "inspect", checkpoint],
        "checkpoint verify": [o.bin / "gidd-checkpoint", "verify", checkpoint],
        "shard verify": [o.bin / "gidd-shard", "verify", shards],
        "shard info": [o.bin / "gidd-shard", "info", shards],
        "shard build": [o.bin / "gidd-shard", *config, "--input", bench.work / "texts", "--output", bench.work / "again"],
        "worker --dry-run": [o.bin / "gidd-worker", *config, "--dry-run"],
        "tokenize": [o.bin / "gidd-tokenize", "--tokenizer", driver.ROOT / "tests/fixtures/tokenizer"],
        "plot": [o.bin / "gidd-plot", "--output", bench.work / "plot.svg", checkpoint],
    }


def usual(text):
    """Output without the times that change from run to run."""
    return [line for line in text.splitlines() if not any(c.isdigit() and "." in line[:8] for c in line[:8])
            and "MB/s" not in line and " s" not in line]


def count_allocations(bench, o, command):
    log = bench.work / "allocations"
    log.unlink(missing_ok=True)
    plain = driver.start(command, LIMIT_S, LD_PRELOAD=str(o.shim), ALLOCFAULT="0", ALLOCFAULT_LOG=str(log))
    assert plain.code == 0, f"{command}: {plain.code}\n{plain.text}"
    return int(log.read_text().split()[0]), plain


def main():
    o = driver.options(__doc__, shim={"required": True})
    tally = driver.Tally("failed allocations")
    with driver.Bench(o, steps=4, interval=2) as bench:
        made = bench.train("whole", ranks=1)
        assert made.code == 0, made.text
        cases, plain = [], {}
        for name, command in commands(bench, o).items():
            count, plain[name] = count_allocations(bench, o, command)
            # all of the first, then fewer and fewer: loops allocate the same over and over
            chosen = sorted({k for k in range(1, count + 1) if k <= 60 or k % (1 + k // 60) == 0})
            cases += [(name, command, k, how) for k in chosen for how in ("", ",forever")]
            print(f"{name}: {count} allocations", flush=True)
        for name, command, k, how in driver.choose(cases, o):
            bench.drop("again")
            case = f"{name}, allocation {k}{how}"
            tally.cases += 1
            tally.injected += 1
            ended = driver.start(command, LIMIT_S, LD_PRELOAD=str(o.shim), ALLOCFAULT=f"{k}{how}")
            if ended.code == OUT_OF_MEMORY and "memory" in ended.text:
                tally.survived += 1
            elif ended.code == 0 and usual(ended.text) == usual(plain[name].text):
                tally.survived += 1
                tally.exact += 1
            else:
                tally.failed(case, f"exit {ended.code}", ended.text)
    tally.report()


if __name__ == "__main__":
    main()
