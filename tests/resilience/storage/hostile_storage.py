#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""hostile_storage.py BIN [--sample N]: training and sharding where storage is full, limited, read-only or oddly named.

Before step 1: a clear sentence and a documented exit code. While training: the checkpoints there are stay whole, a full
disk is told with the bytes needed and free, training goes on and saves again when there is room."""
import json
import os
import pathlib
import shlex

import run_driver as driver


def worker(bench, o, run, *overrides):
    return [o.mpirun, "-np", 2, o.bin / "gidd-worker", "--config", bench.work / "config.yaml", f"run.dir={run}", *overrides]


def shell(script, command, **environment):
    """The command behind a line of shell: limits and umasks are inherited."""
    words = " ".join(shlex.quote(str(word)) for word in command)
    return driver.start(["bash", "-c", f"{script}\nexec {words}"], **environment)


def has_namespaces():
    return driver.start(["unshare", "-Urm", "true"]).code == 0


class Cases:
    def __init__(self, bench, o, tally):
        self.bench, self.o, self.tally = bench, o, tally

    def expect(self, case, ended, codes, *words):
        missing = [word for word in words if word not in ended.text]
        if ended.code not in codes or missing:
            self.tally.failed(case, f"exit {ended.code}, not {codes}; not said: {missing}", ended.text)
            return False
        return True

    def verify(self, case, run):
        ended = driver.start([self.o.bin / "gidd-checkpoint", "verify", run])
        return self.expect(case + ", verify", ended, (0,), "intact")

    # ---- full

    def full_disk_while_training(self):
        """A tmpfs with room for two checkpoints of 12 MiB, then another file takes it; with that gone the run ends well."""
        if not has_namespaces():
            print("full_disk_while_training: skipped: no user namespaces here")
            return True
        bench, o = self.bench, self.o
        disk = bench.work / "disk"
        disk.mkdir()
        train = " ".join(shlex.quote(str(word)) for word in worker(bench, o, disk / "run", "checkpoint.keep_last=1"))
        script = f"""set -u
            mount -t tmpfs -o size=40m none {disk} || exit 99
            {train} training.steps=4 checkpoint.every_steps=3 --allow-change training.steps || exit 98
            room=$(df --output=avail -B1 {disk} | tail -n 1)
            head -c $((room - 4000000)) /dev/zero >{disk}/ballast # for small files, not for a checkpoint
            {train} training.steps=8 --allow-change training.steps >{bench.work}/full.log 2>&1
            echo "full: exit $?"; cat {bench.work}/full.log
            {o.bin}/gidd-checkpoint verify {disk}/run || exit 97
            rm {disk}/ballast
            {train} --allow-change training.steps || exit 96
            {o.bin}/gidd-checkpoint verify {disk}/run"""
        ended = driver.start(["unshare", "-Urm", "bash", "-c", script])
        return self.expect("full disk", ended, (0,), "No space left on device", "free", "full: exit 74",
                           "step-000000004: intact", "step-000000012: intact")

    def full_disk_in_between(self):
        """No room for the checkpoints in the middle: training goes on, and the last one, with room again, is there."""
        run = self.bench.work / "between"
        ended = driver.start(worker(self.bench, self.o, run, "training.steps=40"), LD_PRELOAD=str(self.o.shim),
                             IOFAULT=f"path={run}/checkpoints,op=write+fallocate,k=1,error=ENOSPC,rank=0")
        return self.expect("no room once", ended, (0,), "not written, training goes on", "No space left on device",
                           "step 40 is safe") and self.verify("no room once", run)

    def file_size_limit(self):
        """RLIMIT_FSIZE below a checkpoint's size: told, and no death by SIGXFSZ."""
        run = self.bench.work / "limited"
        ended = shell("ulimit -f 6000", worker(self.bench, self.o, run))
        return self.expect("file size limit", ended, (74,), "File too large", "12582912")

    def slow_disk(self):
        """Every fsync takes a second: the loop does not wait for it, one checkpoint is in flight at a time, and those that
        come due meanwhile are left out instead of piling up."""
        run = self.bench.work / "slow"
        ended = driver.start(worker(self.bench, self.o, run, "training.steps=120", "log.every_steps=1"),
                             LD_PRELOAD=str(self.o.shim), IOFAULT=f"path={run}/checkpoints,op=fsync,k=1,error=slow,forever")
        good = self.expect("slow disk", ended, (0,), "step 120 is safe") and self.verify("slow disk", run)
        steps = [json.loads(line)["slowest_step_ms"] for line in (run / "timings.jsonl").read_text().splitlines()]
        saved = ended.text.count("is safe")
        if max(steps) > driver.patience(900.0) or saved > 12:
            self.tally.failed("slow disk", f"slowest step {max(steps):.0f} ms, {saved} checkpoints")
            return False
        return good

    def no_inodes(self):
        """Bytes are left, but nothing can be created: told before step 1 where a file of the run is missing, and while
        training as any checkpoint that has no room; never a crash, and what is there is whole."""
        if not has_namespaces():
            print("no_inodes: skipped: no user namespaces here")
            return True
        bench, o, good = self.bench, self.o, True
        for inodes in (3, 6, 9, 12, 14):
            disk = bench.work / f"inodes{inodes}"
            disk.mkdir()
            train = " ".join(shlex.quote(str(word)) for word in worker(bench, o, disk / "run"))
            ended = driver.start(["unshare", "-Urm", "bash", "-c", f"""
                mount -t tmpfs -o size=100m,nr_inodes={inodes} none {disk} || exit 99
                {train}; code=$?
                if compgen -G "{disk}/run/checkpoints/step-?????????" >/dev/null; then
                    {o.bin}/gidd-checkpoint verify {disk}/run || exit 97
                fi
                exit $code"""])
            good &= self.expect(f"{inodes} inodes", ended, (73, 74), "No space left on device")
        return good

    # ---- before step 1

    def read_only(self):
        folder = self.bench.work / "locked"
        folder.mkdir()
        if os.getuid() == 0:  # root may write anywhere but where nobody can
            folder = pathlib.Path("/proc/self")
        else:
            folder.chmod(0o555)
        ended = driver.start(worker(self.bench, self.o, folder / "run"))
        return self.expect("read-only", ended, (73,), "cannot make the folder")

    def a_file_in_the_way(self):
        (self.bench.work / "file").write_text("")
        ended = driver.start(worker(self.bench, self.o, self.bench.work / "file" / "run"))
        good = self.expect("a file in the way", ended, (73,), "file")
        (self.bench.work / "blocked").mkdir()
        (self.bench.work / "blocked" / "checkpoints").write_text("")
        ended = driver.start(worker(self.bench, self.o, self.bench.work / "blocked"))
        return self.expect("a file called checkpoints", ended, (73, 74), "checkpoints") and good

    def few_descriptors(self):
        """Too few open files: MPI or the program says so; never a hang or a crash."""
        good = True
        for limit in (16, 20, 24, 32):
            run = self.bench.work / f"files{limit}"
            ended = shell(f"ulimit -n {limit}", [self.o.bin / "gidd-worker", "--config", self.bench.work / "config.yaml",
                                                 f"run.dir={run}"])
            if ended.code < 0 or ended.code >= 128:
                good = self.expect(f"{limit} descriptors", ended, (0, 1, 73, 74))
            elif ended.code == 0:
                good &= self.verify(f"{limit} descriptors", run)
        return good

    def strict_umask(self):
        run = self.bench.work / "umask"
        ended = shell("umask 077", worker(self.bench, self.o, run))
        good = self.expect("umask 077", ended, (0,)) and self.verify("umask 077", run)
        state = sorted((run / "checkpoints").glob("step-*"))[-1] / "state.bin"
        if state.stat().st_mode & 0o077:
            self.tally.failed("umask 077", f"others may read {state}: {state.stat().st_mode:o}")
            return False
        return good

    def odd_names(self):
        good = True
        for name in ("with spaces and 'quotes'", "größer-文字-🙂", "a,b=c", "-leading-dash", "n" * 200, "x/" * 100 + "deep"):
            run = self.bench.work / "odd" / name
            ended = driver.start(worker(self.bench, self.o, run, "training.steps=4"))
            good &= self.expect(name[:40], ended, (0,)) and self.verify(name[:40], run)
            again = driver.start(worker(self.bench, self.o, run, "training.steps=4"))
            good &= self.expect(name[:40] + ", again", again, (0,), "is finished")
        return good

    def too_long_names(self):
        good = True
        for name in ("n" * 300, "y" * 4090, "/".join(["z" * 200] * 25)):
            ended = driver.start(worker(self.bench, self.o, self.bench.work / name))
            good &= self.expect(f"{len(name)} letters", ended, (73, 78), "run.dir" if len(name) > 900 else "name too long")
        return good


def main():
    o = driver.options(__doc__, shim={"required": True})
    tally = driver.Tally("hostile storage")
    with driver.Bench(o) as bench:
        cases = Cases(bench, o, tally)
        names = [name for name in vars(Cases) if not name.startswith("_") and name not in ("expect", "verify")]
        for name in driver.choose(names, o):
            tally.cases += 1
            tally.injected += 1
            tally.survived += bool(getattr(cases, name)())
    tally.report()


if __name__ == "__main__":
    main()
