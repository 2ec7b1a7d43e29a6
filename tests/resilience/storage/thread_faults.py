#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""thread_faults.py BIN --shim liballocfault.so [--sample N]: the k-th thread that a program starts cannot be started, for
every k, once and from then on.

It ends with exit code 70 and a sentence that names the thread, or does without it: then its output is the usual one. What was
safe stays so: the next start, with threads, ends in the bytes of the run that always had them."""
import run_driver as driver

OUT_OF_MEMORY = 70
LIMIT_S = 120


class Programs:
    """Name -> (start it under the shim, what it must come to with all its threads)."""

    def __init__(self, bench, o):
        self.bench, self.o = bench, o

    def train(self, **environment):
        return self.bench.train("run", ranks=2, **environment)

    def trained(self):
        return self.bench.result("run")

    def shard(self, **environment):
        o, work = self.o, self.bench.work
        return driver.start([o.bin / "gidd-shard", "--config", work / "config.yaml", "--input", work / "texts", "--output",
                             work / "again", "--shard-bytes", 500, "device.threads=3"], LIMIT_S, **environment)

    def sharded(self):
        return sorted((p.name, p.read_bytes()) for p in (self.bench.work / "again").glob("*.h5"))

    def verify(self, **environment):
        return driver.start([self.o.bin / "gidd-checkpoint", "verify", self.bench.work / "whole"], LIMIT_S, **environment)

    def drop(self):
        self.bench.drop("run")
        self.bench.drop("again")


def main():
    o = driver.options(__doc__, shim={"required": True})
    tally = driver.Tally("threads that do not start")
    with driver.Bench(o) as bench:
        programs = Programs(bench, o)
        kinds = {"gidd-worker": (programs.train, programs.trained), "gidd-shard": (programs.shard, programs.sharded),
                 "gidd-checkpoint verify": (programs.verify, lambda: None)}
        assert bench.train("whole", ranks=2).code == 0
        cases, whole = [], {}
        for name, (start, result) in kinds.items():
            log = bench.work / "threads"
            log.unlink(missing_ok=True)
            plain = start(LD_PRELOAD=str(o.shim), ALLOCFAULT_LOG=str(log))
            assert plain.code == 0, f"{name}: {plain.code}\n{plain.text}"
            count = max(int(line.split()[2]) for line in log.read_text().splitlines())
            whole[name] = result()
            print(f"{name}: {count} threads", flush=True)
            cases += [(name, k, how) for k in range(1, count + 1) for how in ("", ",forever")]
            programs.drop()
        for name, k, how in driver.choose(cases, o):
            start, result = kinds[name]
            case = f"{name}, thread {k}{how}"
            tally.cases += 1
            tally.injected += 1
            ended = start(LD_PRELOAD=str(o.shim), ALLOCFAULT_THREADS=f"{k}{how}")
            if not (ended.code == OUT_OF_MEMORY and "thread" in ended.text or ended.code == 0):
                tally.failed(case, f"exit {ended.code}", ended.text)
            elif (again := start()).code != 0 or result() != whole[name]:
                tally.failed(case, f"the next start: exit {again.code}, or other bytes", again.text)
            else:
                tally.survived += 1
                tally.exact += 1
            programs.drop()
    tally.report()


if __name__ == "__main__":
    main()
