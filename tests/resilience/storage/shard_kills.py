#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""shard_kills.py BIN --shim libiofault.so [--sample N]: gidd-shard on three ranks is killed at each of its fault points
and before its k-th file operation, and its k-th file operation fails. The same command again then leaves the bytes of an
undisturbed build; no index.json vouches for less than the whole before that."""
import filecmp

import run_driver as driver


def same_tree(a, b):
    """None, or the first difference of two folders."""
    compared = filecmp.dircmp(a, b, ignore=["build.lock"])
    if compared.left_only or compared.right_only:
        return f"only in one: {compared.left_only + compared.right_only}"
    _, different, broken = filecmp.cmpfiles(a, b, compared.common_files, shallow=False)
    if different or broken:
        return f"differs: {different + broken}"
    return next((found for found in (same_tree(a / name, b / name) for name in compared.common_dirs) if found), None)


def all_cases(o):
    """(what it is called, environment, whether the build may succeed all the same)."""
    cases = []
    for name, group, where in driver.fault_points():
        if group == "SHARD":
            for rank in (range(o.ranks) if where == "ALL" else [0]):
                for count in ((1, 2) if where == "ALL" else (1,)):
                    cases.append((f"kill at {name}, rank {rank}, {count}", {"GIDD_FAULT": f"kill:rank={rank},point={name},count={count}"}))
    for rank in range(o.ranks):
        for k in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89):
            for error in ("kill", "EIO", "ENOSPC", "EINTR", "short", "late"):
                cases.append((f"{error} at operation {k} of rank {rank}",
                              {"LD_PRELOAD": str(o.shim), "IOFAULT": f"path=OUTPUT,op=any,k={k},error={error},rank={rank}"}))
    for op in ("write", "fsync", "rename", "close", "open", "unlink"):
        for error in ("EIO", "ENOSPC", "short", "late"):
            cases.append((f"{error} of every {op}", {"LD_PRELOAD": str(o.shim),
                                                     "IOFAULT": f"path=OUTPUT,op={op},k=1,error={error},forever"}))
    return cases


def run_case(bench, o, tally, case, environment):
    output = bench.work / "built"
    bench.drop("built")
    environment = {key: value.replace("OUTPUT", str(output)) for key, value in environment.items()}
    command = [o.mpirun, "-np", o.ranks, o.bin / "gidd-shard", "--config", bench.work / "config.yaml", "--input",
               bench.work / "texts", "--output", output, "--shard-bytes", 500]
    tally.cases += 1
    tally.injected += 1
    first = driver.start(command, **environment)
    if "GIDD_FAULT" in environment and (first.code == 0 or not first.struck):
        return tally.failed(case, f"exit {first.code}: the fault did not strike", first.text)
    if first.code not in (0, 65, 73, 74, 76, 137):
        return tally.failed(case, f"exit {first.code}", first.text)
    if first.code in (73, 74) and str(output) not in first.text:
        return tally.failed(case, "the story names no path", first.text)
    if (output / "index.json").exists():
        verified = driver.start([o.bin / "gidd-shard", "verify", output])
        if verified.code != 0:
            return tally.failed(case, "an index vouches for damage", verified.text)
    tally.survived += 1
    second = driver.start([o.mpirun, "-np", 1 + tally.cases % 3, *command[3:]])
    if second.code != 0:
        return tally.failed(case, f"the second build ended with {second.code}", second.text)
    difference = same_tree(bench.work / "shards", output)
    if difference:
        return tally.failed(case, difference)
    tally.exact += 1
    return None


def main():
    o = driver.options(__doc__, shim={"required": True})
    tally = driver.Tally("shard builds")
    with driver.Bench(o, shard_bytes=500) as bench:
        for case, environment in driver.choose(all_cases(o), o):
            run_case(bench, o, tally, case, environment)
    tally.report()


if __name__ == "__main__":
    main()
