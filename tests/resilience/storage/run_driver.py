# SPDX-License-Identifier: Apache-2.0
"""What the matrices share: a tiny data set and configuration, starts of the programs with a fault, and the
comparison of what they leave with an uninterrupted run."""
import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
INTERVAL, STEPS = 3, 12
CONFIG = """\
run: {{dir: {work}/run, seed: 7}}
data: {{dir: {work}/shards, tokenizer: {root}/tests/fixtures/tokenizer, suffixes: txt, valid_documents: 4}}
model: {{hidden_size: 16, blocks: 1, heads: 2, cond_size: 8, context: 32, p_uniform: 0.1}}
optimizer: {{lr: 3.0e-3, warmup_steps: 2}}
training: {{steps: {steps}, global_batch: 12, precision: fp32}}
checkpoint: {{every_steps: {interval}, keep_last: 1}}
eval: {{every_steps: 4, documents: 4}}
comm: {{bucket_mib: 0.02}}
log: {{every_steps: 2, tensorboard: off}}
"""


def options(description, **more):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("bin", type=pathlib.Path, help="folder of the programs")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--sample", type=int, default=0, help="so many seeded cases (0: all)")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("GIDD_TEST_SEED", "1")))
    for name, how in more.items():
        parser.add_argument("--" + name, **how)
    return parser.parse_args()


def choose(cases, o):
    """All cases, or the seeded sample, in their order."""
    if not 0 < o.sample < len(cases):
        return cases
    return [cases[i] for i in sorted(random.Random(o.seed).sample(range(len(cases)), o.sample))]


def fault_points():
    """(name, group, where) of src/base/fault_points.inl."""
    text = (ROOT / "src/base/fault_points.inl").read_text()
    return re.findall(r"^ *X\((\w+), (\w+), (\w+), ", text, re.M)


def patience(seconds):
    """Seconds of a machine of our own, stretched where others use it too."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Finished:
    """One start of a program: its exit code, what it said, and how long it took to end after a fault struck."""

    def __init__(self, code, text, ended_after):
        self.code, self.text, self.ended_after = code, text, ended_after

    @property
    def resumed(self):
        found = re.findall(r"resuming \S+ at step (\d+)", self.text)
        return int(found[-1]) if found else 0

    @property
    def safe(self):
        return max([int(step) for step in re.findall(r"step (\d+) is safe", self.text)], default=0)

    @property
    def struck(self):
        return "fault strikes" in self.text


def start(command, limit_s=120, **environment):
    """Runs a command to its end, noting when a fault struck."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env={**os.environ, **environment}, errors="replace")
    lines, struck = [], []

    def listen():
        for line in process.stdout:
            if "fault strikes" in line:
                struck.append(time.monotonic())
            lines.append(line)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        code = process.wait(patience(limit_s))
    except subprocess.TimeoutExpired:
        process.kill()
        code = -1
    ended = time.monotonic()
    listener.join()
    return Finished(code, "".join(lines), ended - struck[0] if struck else 0.0)


class Bench:
    """A working folder with shards and a configuration, and the uninterrupted run to compare with."""

    def __init__(self, o, steps=STEPS, interval=INTERVAL, shard_bytes=1 << 20):
        self.o = o
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 1 << 29 else None
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="gidd-matrix-", dir=place))
        (self.work / "config.yaml").write_text(CONFIG.format(work=self.work, root=ROOT, steps=steps, interval=interval))
        texts = self.work / "texts"
        texts.mkdir()
        for i in range(40):
            (texts / f"{i:02}.txt").write_text(f"document {i} " + "a tiny text of no importance, " * (1 + i % 7))
        made = self.run([o.bin / "gidd-shard", "--config", self.work / "config.yaml", "--input", texts,
                         "--output", self.work / "shards", "--shard-bytes", shard_bytes])
        assert made.code == 0, made.text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.work, ignore_errors=True)

    @staticmethod
    def run(command, **environment):
        return start(command, **environment)

    def train(self, name, *overrides, ranks=None, **environment):
        return start([self.o.mpirun, "-np", ranks or self.o.ranks, self.o.bin / "gidd-worker", "--config",
                      self.work / "config.yaml", f"run.dir={self.work / name}", *overrides], **environment)

    def result(self, name):
        """Digests of everything that must be bit-exact, and the leftovers that must not be there."""
        run = self.work / name
        folder = run / "checkpoints"
        names = sorted(p.name for p in folder.iterdir()) if folder.exists() else []
        steps = [n for n in names if re.fullmatch(r"step-\d{9}", n)]
        digest = hashlib.sha256()
        digest.update((run / "metrics.jsonl").read_bytes())
        if steps:
            digest.update((folder / steps[-1] / "state.bin").read_bytes())
            manifest = json.loads((folder / steps[-1] / "manifest.json").read_text())
            digest.update(json.dumps([manifest["counters"], manifest["state"]]).encode())
        return steps[-1:], digest.hexdigest(), [n for n in names if n not in steps]

    def drop(self, name):
        shutil.rmtree(self.work / name, ignore_errors=True)


class Tally:
    """Counts cases; `failed` says what was wrong and goes on."""

    def __init__(self, what):
        self.what, self.cases, self.injected, self.survived, self.exact, self.failures = what, 0, 0, 0, 0, []

    def failed(self, case, why, text=""):
        tail = "".join("\n    " + line for line in text.splitlines()[-12:])
        self.failures.append(case)
        print(f"FAIL {case}: {why}{tail}", flush=True)

    def report(self, more=""):
        print(f"{self.what}: {self.cases} cases, {self.injected} faults injected, {self.survived} survived, "
              f"{self.exact} bit-exact{more}")
        sys.exit(1 if self.failures or self.cases == 0 else 0)
