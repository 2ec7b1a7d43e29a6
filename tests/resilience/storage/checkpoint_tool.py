#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""checkpoint_tool.py BIN: gidd-checkpoint's verify and prune on checkpoints of a real run, whole and damaged."""
import run_driver as driver


def spoil(step, at=200):
    with open(step / "state.bin", "r+b") as file:
        file.seek(at)
        file.write(b"#")


def main():
    o = driver.options(__doc__)
    tally = driver.Tally("gidd-checkpoint")
    tool = o.bin / "gidd-checkpoint"
    with driver.Bench(o, steps=12, interval=2) as bench:
        run, folder = bench.work / "run", bench.work / "run" / "checkpoints"

        def fresh():
            """A run with several checkpoints: each start leaves one or more."""
            bench.drop("run")
            for steps in (4, 8, 12):
                made = bench.train("run", "checkpoint.keep_last=9", f"training.steps={steps}",
                                   "--allow-change", "training.steps")
                assert made.code == 0, made.text
            return sorted(folder.glob("step-?????????"))

        def check(case, command, code, *words, ranks=1):
            tally.cases += 1
            ended = driver.start([o.mpirun, "-np", ranks, *command])
            missing = [word for word in words if word not in ended.text]
            if ended.code != code or missing:
                tally.failed(case, f"exit {ended.code}, not {code}; not said: {missing}", ended.text)
            else:
                tally.survived += 1

        def expect(case, steps):
            if sorted(folder.glob("step-*")) != sorted(steps):
                tally.failed(case, f"there is {[p.name for p in sorted(folder.iterdir())]}")

        steps = fresh()
        assert len(steps) >= 3, steps
        for ranks in (1, 3):
            check("verify whole", [tool, "verify", run, "--threads", 3], 0, steps[0].name + ": intact",
                  steps[-1].name + ": intact", ranks=ranks)
        spoil(steps[-1], 200)
        tally.injected += 1
        check("verify damaged", [tool, "verify", run, "--threads", 2], 65, "damaged block 0 (bytes 0 to ",
              "section master", "tensors ", "(found by rank 0)", ranks=2)
        spoil(steps[-1], 2 * (4 << 20) + 77)
        check("verify, last rank", [tool, "verify", steps[-1]], 65, "damaged block 2", "section adam_v", "(found by rank 2)",
              ranks=3)
        # the newest is damaged: one that would go is whole and stays
        check("prune, dry", [tool, "prune", run, "--keep-last", 1, "--dry-run"], 0, steps[-2].name + " is whole and stays",
              steps[0].name + " would be deleted")
        expect("prune, dry", steps)
        check("prune", [tool, "prune", run, "--keep-last", 1], 0, steps[0].name + " deleted")
        expect("prune", [steps[-2], steps[-1]])
        spoil(steps[-2])
        check("prune, nothing whole", [tool, "prune", run, "--keep-last", 1], 65, "nothing was deleted")
        expect("prune, nothing whole", [steps[-2], steps[-1]])
        steps = fresh()
        (folder / "step-000000099.tmp-x-1").mkdir()
        check("prune by rules", [tool, "prune", run, "--keep-last", 1, "--keep-every", 4], 0, "step-000000099.tmp-x-1 deleted")
        expect("prune by rules", [s for s in steps if int(s.name[5:]) % 4 == 0 or s == steps[-1]])
        (steps[-1] / "manifest.json").unlink()
        check("verify, no manifest", [tool, "verify", run], 65, steps[-1].name + ": damaged", "manifest.json")
        check("prune, no run", [tool, "prune", bench.work / "texts", "--dry-run"], 66, "no checkpoint in")
    tally.report()


if __name__ == "__main__":
    main()
