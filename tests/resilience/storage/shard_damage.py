#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""shard_damage.py BIN --damager PROGRAM [--sample N]: shards that are damaged, missing, doubled, or of another kind.
`gidd-shard verify` names the file, and training refuses before step 1, naming it too. Then, always: with
data.on_bad_chunk=skip the documents of a damaged chunk are left out, counted, and the same whatever happens; and a
resume does not read again what was proven, unless it was touched."""
import json
import os
import re
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
    if run.code not in (65, 66, 69, 74):
        return tally.failed(name, f"training: exit {run.code}", run.text)
    if "first step done" in run.text or (bench.work / "hurt" / "metrics.jsonl").exists():
        return tally.failed(name, "training began", run.text)
    if not any(word in run.text for word in ("shard-0000", "index.json")):
        return tally.failed(name, "training did not name the file", run.text)
    tally.survived += 1
    return None


class Scene:
    """Many small shards, one of them with a damaged chunk; what has to hold is counted and told."""

    def __init__(self, bench, o, tally):
        self.bench, self.o, self.tally, self.folder = bench, o, tally, bench.work / "damaged"
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(bench.work / "shards", self.folder)
        shards = json.loads((self.folder / "index.json").read_text())["shards"]
        self.shard = next(s["file"] for s in shards[1:-1] if 1 < s["documents"] <= 4)  # of 40: no more than a tenth
        self.spoil()

    def spoil(self):
        """A bit of its chunk of ids, found by what verify says of the bytes tried."""
        path = self.folder / self.shard
        for at in range(path.stat().st_size - 1, 0, -61):
            flip(path, at)
            found = driver.start([self.o.bin / "gidd-shard", "verify", self.folder])
            damage = re.search(self.shard + r": dataset tokens is damaged .* chunk 0 of dataset tokens, with ids of "
                               r"documents (\d+) to (\d+)", found.text)
            if damage:
                self.documents = int(damage[2]) - int(damage[1]) + 1
                return
            flip(path, at)
        raise AssertionError("no byte of the shard is in a chunk of ids")

    def heal(self):
        shutil.copy(self.bench.work / "shards" / self.shard, self.folder)

    def train(self, name, *overrides, **more):
        return self.bench.train(name, f"data.dir={self.folder}", *overrides, **more)

    def expect(self, what, good, text=""):
        self.tally.cases += 1
        self.tally.injected += 1
        if good:
            self.tally.survived += 1
        else:
            self.tally.failed(what, "does not hold", text)

    def event(self, name):
        lines = [json.loads(line) for line in (self.bench.work / name / "journal.jsonl").read_text().splitlines()]
        return [line["text"] for line in lines if line["event"] == "bad_chunks"]


def check_skip(scene):
    """Stop is what happens unless skip is asked for, and skip is counted and deterministic."""
    bench, skip = scene.bench, "data.on_bad_chunk=skip"
    stop = scene.train("stop")
    scene.expect("stop: 65, told what can be done", stop.code == 65 and "data.on_bad_chunk=skip" in stop.text and
                 "documents" in stop.text and not (bench.work / "stop" / "metrics.jsonl").exists(), stop.text)
    one, two = scene.train("one", skip), scene.train("two", skip)
    counted = f"{scene.documents} of 40 documents touch damaged chunks and are left out"
    scene.expect("skip: trains", one.code == 0 and two.code == 0, one.text)
    scene.expect("skip: counted on the screen and in the journal",
                 counted in one.text and len(scene.event("one")) == 1 and counted in scene.event("one")[0], one.text)
    scene.expect("skip: the same twice", bench.result("one") == bench.result("two"))
    cut = scene.train("cut", skip, GIDD_FAULT="kill:rank=1,point=forward,step=8")
    again = scene.train("cut", skip)
    scene.expect("skip: the same after a kill", cut.code != 0 and again.code == 0 and
                 bench.result("cut") == bench.result("one"), again.text)
    whole = bench.train("whole")
    scene.expect("skip: not the run of whole data", whole.code == 0 and bench.result("whole") != bench.result("one"))
    never = scene.train("never", skip, "data.verify=never")
    scene.expect("skip has to verify", never.code == 78, never.text)
    scene.heal()
    healed = scene.train("healed", skip)
    scene.expect("skip of nothing is nothing", healed.code == 0 and not scene.event("healed") and
                 bench.result("healed") == bench.result("whole"), healed.text)
    late = scene.train("one", "training.steps=14", "--allow-change", "training.steps")
    scene.expect("skip: another run's key", late.code == 78 and "data.on_bad_chunk" in late.text, late.text)
    for kind in ("offset", "vocab"):
        driver.start([scene.o.damager, scene.folder / scene.shard, kind])
        run = scene.train("other", skip)
        scene.expect(f"skip does not cover {kind}", run.code == 65 and scene.shard in run.text, run.text)
        scene.heal()
    for shard in sorted(scene.folder.glob("shard-*.h5"))[:6]:
        driver.start([scene.o.damager, shard, "token"])
    run = scene.train("other", skip)
    scene.expect("skip does not cover a bad copy", run.code == 65 and "bad copy" in run.text, run.text)


def check_record(scene):
    """Proven once a run directory, and again when a file was touched."""
    def starts(*overrides):
        run = scene.train("record", "training.steps=12", *overrides)
        return run, "shards verified in" in run.text
    shard = scene.folder / scene.shard
    never, _ = starts("data.verify=never", "run.max_minutes=0.0001")
    scene.expect("never: does not look", never.code in (65, 75), never.text)
    scene.heal()
    scene.bench.drop("record")
    for what, expected, overrides in (("the first start", True, []), ("a resume", False, []),
                                      ("always", True, ["data.verify=always"]), ("a resume after always", False, [])):
        run, looked = starts(*overrides)
        scene.expect(f"{what} verifies: {expected}", run.code == 0 and looked == expected, run.text)
    os.utime(shard)
    run, looked = starts()
    scene.expect("a touched file is verified again", run.code == 0 and looked, run.text)
    driver.start([scene.o.damager, shard, "token"])
    os.utime(shard, ns=(0, 0))
    run, looked = starts()
    scene.expect("a changed file is found by a resume", run.code == 65 and scene.shard in run.text, run.text)


def main():
    global shard_path
    o = driver.options(__doc__, damager={"required": True})
    tally = driver.Tally("damaged shards")
    with driver.Bench(o, shard_bytes=2000) as bench:
        shard_path = bench.work / "shards" / "shard-00001.h5"
        for name, damage in driver.choose(damages("shard-00001.h5", o.damager), o):
            check(bench, o, tally, name, damage)
    with driver.Bench(o, shard_bytes=400) as bench:
        check_skip(Scene(bench, o, tally))
        check_record(Scene(bench, o, tally))
    tally.report()


if __name__ == "__main__":
    main()
