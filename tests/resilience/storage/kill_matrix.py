#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kill_matrix.py BIN [--sample N]: SIGKILL of each of three ranks at every point of src/base/fault_points.inl, at two
steps or checkpoints each; and a second kill while the start after it recovers.

Each time: the job ends within 5 s and not with 0; the next start goes on from no earlier than what was called safe;
the finished run has the bytes of the uninterrupted one; nothing unfinished is left."""
import run_driver as driver

FIRST, LAST = driver.INTERVAL, driver.STEPS  # the checkpoints that are always written, however slow the disk is


def step_faults(name):
    """The two moments of a point of the loop; `eval` and `save` are passed at some steps only."""
    if name == "eval":
        return ["step=3", "step=7"]
    if name == "save":
        return ["count=1", f"step={driver.INTERVAL - 1}"]
    return ["step=4", "step=8"]


def commit_faults(name):
    if name == "ckpt_prune":  # its step is the loop's
        return ["count=1"]
    return [f"step={FIRST}", f"step={LAST}"]


def single_kills(ranks):
    moments = {"STEP": step_faults, "COMMIT": commit_faults}
    return [(f"kill:rank={rank},point={name},{moment}", None)
            for name, group, where in driver.fault_points() if group in moments
            for rank in (range(ranks) if where == "ALL" else [0])
            for moment in moments[group](name)]


def overrides(kill):
    """Blocks of several ranks are there only where ranks hold pieces; rank 0 has the beginning of each, and seals it."""
    return ["comm.zero=on"] if "ckpt_seal" in kill else []


def double_kills(ranks):
    """A kill, then one at each point of the start that follows. `ckpt_quarantine` finds the newest damaged."""
    first = ["kill:rank=1,point=forward,step=8", "kill:rank=0,point=ckpt_rename,step=12", "kill:rank=2,point=ckpt_write,step=12"]
    starts = [(name, where) for name, group, where in driver.fault_points() if group == "START" or name == "ckpt_prune"]
    return [(first[i % len(first)], f"kill:rank={rank},point={name}")
            for i, (name, where) in enumerate(starts)
            for rank in (range(ranks) if where == "ALL" else [0])]


def damage_newest(bench, name):
    """Spoils the newest checkpoint if there is an older one to fall back to."""
    folder = bench.work / name / "checkpoints"
    steps = sorted(folder.glob("step-?????????"))
    if len(steps) > 1:
        with open(steps[-1] / "state.bin", "r+b") as file:
            file.seek(77)
            file.write(b"!")


def run_case(bench, tally, whole, case):
    kill, again = case
    name, words, keep = "run", f"{kill}{' then ' + again if again else ''}", overrides(kill)
    quarantine = again is not None and "quarantine" in again
    if quarantine:  # two checkpoints are needed; the last commit of the run is killed
        keep = ["checkpoint.keep_last=3"]
        kill = "kill:rank=0,point=ckpt_manifest,step=12"
    bench.drop(name)
    tally.cases += 1
    first = bench.train(name, *keep, GIDD_FAULT=kill)
    if not first.struck or first.code == 0:
        return tally.failed(words, f"exit {first.code}: the fault did not strike", first.text)
    tally.injected += 1
    if first.ended_after > driver.patience(5.0):
        tally.failed(words, f"took {first.ended_after:.1f} s to end", first.text)
    safe = first.safe
    if quarantine:
        damage_newest(bench, name)
        safe = 0
    if again is not None:
        second = bench.train(name, *keep, GIDD_FAULT=again)
        tally.injected += second.struck
        if second.code != 0 and not second.struck:
            return tally.failed(words, f"the second start ended with {second.code}", second.text)
        safe = max(safe, second.safe)
    last = bench.train(name, *overrides(kill))
    if last.code != 0:
        return tally.failed(words, f"the next start ended with {last.code}", last.text)
    if "resuming" in last.text and last.resumed < safe:
        return tally.failed(words, f"resumed at {last.resumed}, though {safe} was safe", last.text)
    tally.survived += 1
    steps, digest, leftovers = bench.result(name)
    leftovers = [entry for entry in leftovers if not (quarantine and ".damaged-" in entry)]
    if leftovers:
        return tally.failed(words, f"left behind: {leftovers}", last.text)
    if (steps, digest) != whole:
        return tally.failed(words, "not the bytes of the uninterrupted run", last.text)
    tally.exact += 1
    return None


def main():
    o = driver.options(__doc__)
    tally = driver.Tally("kills")
    with driver.Bench(o) as bench:
        plain = bench.train("whole")
        assert plain.code == 0, plain.text
        whole = bench.result("whole")[:2]
        for case in driver.choose(single_kills(o.ranks) + double_kills(o.ranks), o):
            run_case(bench, tally, whole, case)
    tally.report()


if __name__ == "__main__":
    main()
