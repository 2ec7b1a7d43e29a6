#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""shard_damage.py BIN --damager PROGRAM [--sample N]: shards that are damaged, missing, doubled, or of another kind.
`gidd-shard verify` names the file; and training either refuses before step 1, or (where only a chunk that is not read
at the start is bad) `verify` is what finds it, and training ends with 65 when it gets there, without a checkpoint."""
import shutil

import run_driver as driver

HDF5_KINDS = ["vocab", "version", "format", "tokenizer", "token", "offset", "count"]


def flips(path, count):
    size = path.stat().st_size
    return [(i * 2654435761 % size) for i in range(1, count + 1)]


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << (at % 8)]))


def edit_index(folder, old, new):
    path = folder / "index.json"
    text = path.read_text()
    assert old in text, f"no {old} in the index"
    path.write_text(text.replace(old, new, 1))


def damages(shard, damager):
    """(name, what it does to a copy of the data set)."""
    found = [(f"flip at {at}", lambda d, at=at: flip(d / shard, at)) for at in flips(shard_path, 40)]
    found += [(f"cut at {n}/8", lambda d, n=n: cut(d / shard, n)) for n in range(8)]
    found += [(kind, lambda d, kind=kind: driver.start([damager, d / shard, kind])) for kind in HDF5_KINDS]
    found += [
        ("missing", lambda d: (d / shard).unlink()),
        ("a folder in its place", lambda d: ((d / shard).unlink(), (d / shard).mkdir())),
        ("doubled", lambda d: shutil.copy(d / "shard-00000.h5", d / "shard-00001.h5")),
        ("swapped", lambda d: swap(d / "shard-00000.h5", d / "shard-00001.h5")),
        ("zeros", lambda d: (d / shard).write_bytes(bytes((d / shard).stat().st_size))),
        ("index: another version", lambda d: edit_index(d, '"version": 1', '"version": 2')),
        ("index: another vocabulary", lambda d: edit_index(d, '"vocab_size": ', '"vocab_size": 1')),
        ("index: listed twice", lambda d: edit_index(d, '"shard-00001.h5"', '"shard-00000.h5"')),
        ("index: a key too many", lambda d: edit_index(d, '"version": 1', '"version": 1, "more": 1')),
        ("index: cut", lambda d: cut(d / "index.json", 4)),
        ("index: empty", lambda d: (d / "index.json").write_text("")),
    ]
    return found


def cut(path, eighths):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size * eighths // 8)


def swap(a, b):
    text = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(text)


def check(bench, o, tally, name, damage):
    folder = bench.work / "damaged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bench.work / "shards", folder)
    damage(folder)
    tally.cases += 1
    tally.injected += 1
    verify = driver.start([o.bin / "gidd-shard", "verify", folder])
    if verify.code not in (65, 66, 69, 74) or not any(word in verify.text for word in ("shard-0000", "index.json")):
        return tally.failed(name, f"verify: exit {verify.code}", verify.text)
    bench.drop("hurt")
    run = bench.train("hurt", f"data.dir={folder}", ranks=1)
    if run.code == 0 and "flip" not in name and name != "token":
        return tally.failed(name, "was trained on", run.text)
    if run.code not in (0, 65, 66, 69, 74):
        return tally.failed(name, f"training: exit {run.code}", run.text)
    if run.code != 0 and not any(word in run.text for word in ("shard-0000", "index.json")):
        return tally.failed(name, "training did not name the file", run.text)
    tally.survived += 1
    return None


def main():
    global shard_path
    o = driver.options(__doc__, damager={"required": True})
    tally = driver.Tally("damaged shards")
    with driver.Bench(o, shard_bytes=2000) as bench:
        shard_path = bench.work / "shards" / "shard-00001.h5"
        for name, damage in driver.choose(damages("shard-00001.h5", o.damager), o):
            check(bench, o, tally, name, damage)
    tally.report()


if __name__ == "__main__":
    main()
