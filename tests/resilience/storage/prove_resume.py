#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""prove_resume.py BIN: gidd-worker --prove-resume says bit-exact where it is, names the first difference where one life
was disturbed, and leaves the run directory alone; also with a coordinator of its own."""
import run_driver as driver


def main():
    o = driver.options(__doc__)
    tally = driver.Tally("proofs of resuming")
    with driver.Bench(o) as bench:
        def check(case, run, code, *words):
            tally.cases += 1
            missing = [word for word in words if word not in run.text]
            if run.code != code or missing:
                tally.failed(case, f"exit {run.code}, not {code}; not said: {missing}", run.text)
            else:
                tally.survived += 1

        def left():
            return sorted(path.name for path in bench.work.iterdir() if "prove" in path.name or path.name == "run")

        check("plain", bench.train("run", "--prove-resume"), 0, "bit-exact: 6 steps")
        tally.exact += 1
        config = bench.work / "config.yaml"
        dedicated = driver.start([o.mpirun, "-np", 1, o.bin / "gidd-coordinator", "--config", config, "--prove-resume", ":",
                                  "-np", 2, o.bin / "gidd-worker", "--config", config, "--prove-resume"])
        check("a coordinator of its own", dedicated, 0, "bit-exact: 6 steps")
        tally.exact += 1
        if left():
            tally.failed("folders", f"left behind: {left()}")
        # the 6th step of a life is poisoned and skipped: only the run in one go has so many
        tally.injected += 1
        check("another update", bench.train("run", "--prove-resume", ranks=1,
                                            GIDD_FAULT="nan:rank=0,point=gradient,count=6"), 65,
              "not bit-exact: first difference in", "of tensor", "index", "in one go", "resumed")
        if len(left()) != 1:
            tally.failed("folders", f"the evidence is not there: {left()}")
        check("too few steps", bench.train("run", "--prove-resume", "training.steps=5"), 78, "training.steps")
    tally.report()


if __name__ == "__main__":
    main()
