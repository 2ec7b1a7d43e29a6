#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the training step of the PyTorch reference of GIDD on the CPU, alone or side by side with gidd-bench.

    reference_step.py --reference CHECKOUT [--bench build/bin/gidd-bench]

CHECKOUT is a working copy of github.com/dvruette/gidd; nothing of it is kept here. Its own model, noise and loss are
called (sample_t, HybridDiffusion, DIT, GiddLoss), then backward, clipping and torch's AdamW, as it trains. Six blocks, D = 512, H = 8, T = 512, V = 50259, two sequences of random tokens.

With --bench each round times the reference, then `gidd-bench step` in fp32, then in bf16, so that a change of the
machine's load meets all of them. Where other work runs on the machine, --quiet 0.1 waits for a pause of it before
each measurement and leaves out of the medians those during which it still took more than a tenth of the processors;
with --threads 1 processor time is a fair measure in any company.
The last line of standard output is JSON with medians over the steps of the reference, and over the rounds' medians of
ours. Exit code 77: skipped, because torch or the checkout is not there.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
import types

D, H, L, T, C, V = 512, 8, 6, 512, 128, 50259
PAD, MASK, BATCH = 50257, 50258, 2


def skip(why):
    print(f"reference_step.py: skipped: {why}", file=sys.stderr)
    sys.exit(77)


def say(text):
    print(text, file=sys.stderr, flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, metavar="CHECKOUT", help="folder that holds gidd/models/dit.py")
    parser.add_argument("--bench", metavar="PROGRAM", help="gidd-bench, to be timed in the same rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="of the reference in a round")
    parser.add_argument("--warmup", type=int, default=3, help="steps of the reference before the first round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quiet", type=float, metavar="SHARE", help="largest share of the processors for others")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32", help="of the reference")
    parser.add_argument("--compile", action="store_true", help="torch.compile, as the reference does by default")
    return parser.parse_args()


def stand_in_for_missing_modules(torch, checkout):
    """The reference imports three libraries of which its model needs next to nothing."""

    def missing(name):
        try:
            __import__(name)
            return False
        except ImportError:
            sys.modules[name] = types.ModuleType(name)
            return True

    if missing("huggingface_hub"):
        sys.modules["huggingface_hub"].PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})
    if missing("omegaconf"):
        sys.modules["omegaconf"].OmegaConf = None
    if missing("einops"):

        def rearrange(x, pattern, **sizes):
            if "three" in sizes:  # b s (three h d) -> b s three h d
                return x.reshape(*x.shape[:2], sizes["three"], sizes["h"], -1)
            return x.transpose(1, 2).flatten(2)  # b h s d -> b s (h d)

        sys.modules["einops"].rearrange = rearrange
    # the package's own __init__ wants libraries for downloading models: its modules are imported without it
    package = types.ModuleType("gidd")
    package.__path__ = [os.path.join(checkout, "gidd")]
    sys.modules["gidd"] = package
    functional = torch.nn.functional
    if not hasattr(functional, "scaled_dot_product_attention"):  # torch before 2.0
        functional.scaled_dot_product_attention = (
            lambda q, k, v: torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v)


class Tokenizer:
    """What the reference asks of GPT-2's tokenizer."""
    pad_token_id, mask_token_id = PAD, MASK

    def __len__(self):
        return V


class Reference:
    def __init__(self, torch, dtype, compiled):
        from gidd.diffusion_process import HybridDiffusion, sample_t
        from gidd.loss import GiddLoss
        from gidd.models.dit import DIT

        space = types.SimpleNamespace
        config = space(
            model=space(type="diffusion", hidden_size=D, n_heads=H, n_blocks=L, cond_dim=C, dropout=0.0, max_seq_len=T,
                        p_uniform=0.0, t_eps=1e-4),
            training=space(low_discrepancy_sampling=True),
            loss=space(loss_weighting="dynamic", min_loss_weight=0.0, max_loss_weight=2.0, reduction="tokenmean"))
        torch.manual_seed(1)
        tokenizer = Tokenizer()
        number = torch.bfloat16 if dtype == "bf16" else torch.float32
        model = DIT(config, V).to(dtype=number)
        noise = HybridDiffusion(tokenizer, p_uniform=0.0)
        loss_of = GiddLoss(config, tokenizer, noise)

        def forward(ids, attention_mask):
            t = sample_t(config, ids.size(0))
            z = noise.sample_zt(ids, t)
            return loss_of(logits=model(z, t), input_ids=ids, attention_mask=attention_mask, z_t=z, t=t)

        def forward_bf16(ids, attention_mask):
            with torch.autocast(device_type="cpu", dtype=number):
                return forward(ids, attention_mask)

        chosen = forward_bf16 if dtype == "bf16" else forward
        self.torch = torch
        self.model = model
        self.forward = torch.compile(chosen) if compiled else chosen
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.99), eps=1e-9, weight_decay=0.02)

    def step(self):
        torch = self.torch
        ids = torch.randint(0, PAD - 1, (BATCH, T))
        attention_mask = torch.ones((BATCH, T), dtype=torch.long)
        start, start_cpu = time.perf_counter(), time.process_time()
        loss, _, _ = self.forward(ids, attention_mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        value = loss.item()
        return (time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3, value


class Watch:
    """What other processes take of the processors while something is measured."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        own = 0.0
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            usage = resource.getrusage(who)
            own += usage.ru_utime + usage.ru_stime
        hertz = os.sysconf("SC_CLK_TCK")
        return sum(ticks) / hertz, (ticks[3] + ticks[4]) / hertz, own

    def others(self):
        total, idle, own = (after - before for before, after in zip(self.start, self.now()))
        return max(0.0, (total - idle - own) / total) if total > 0.0 else 0.0


def wait_for_quiet(share, limit_s=120.0):
    end = time.monotonic() + limit_s
    while share is not None and time.monotonic() < end:
        watch = Watch()
        time.sleep(1.0)
        if watch.others() <= share:
            return


def time_ours(program, precision, threads):
    """One run of gidd-bench step: its own medians of wall and processor time, in milliseconds."""
    command = [program, "step", "--repeats", "3", "--warmup", "3", f"training.precision={precision}", "device.kind=cpu"]
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
                          text=True)
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return said["step_ms"]["median"], said["step_cpu_ms"]["median"]


def summary(samples, quiet):
    """samples: (milliseconds, milliseconds of the processors, share of the others)."""
    kept = [sample for sample in samples if quiet is None or sample[2] <= quiet]
    if len(kept) < 3:
        kept = samples
    walls = [sample[0] for sample in kept]
    wall, cpu = statistics.median(walls), statistics.median(sample[1] for sample in samples)
    return {"step_ms": wall, "step_ms_min": min(walls), "step_ms_max": max(walls), "tokens_per_s": BATCH * T * 1e3 / wall,
            "step_cpu_ms": cpu, "tokens_per_cpu_s": BATCH * T * 1e3 / cpu, "count": len(kept),
            "left_out": len(samples) - len(kept)}


def run_rounds(args, reference):
    samples = {"reference": [], "ours_fp32": [], "ours_bf16": []}

    def measure(name, run):
        wait_for_quiet(args.quiet)
        watch = Watch()
        wall, cpu = run()
        samples[name].append((wall, cpu, watch.others()))

    for number in range(args.rounds):
        for _ in range(args.steps):
            measure("reference", lambda: reference.step()[:2])
        for precision in ("fp32", "bf16") if args.bench else ():
            measure(f"ours_{precision}", lambda chosen=precision: time_ours(args.bench, chosen, args.threads))
        latest = ", ".join(f"{name} {series[-1][0]:.0f} ms (cpu {series[-1][1]:.0f}, others {series[-1][2]:.0%})"
                           for name, series in samples.items() if series)
        say(f"round {number + 1} of {args.rounds}: {latest}")
    return samples


def processor():
    with open("/proc/cpuinfo", encoding="ascii") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")


def main():
    args = parse()
    try:
        import torch
    except ImportError:
        skip("torch is not installed")
    if not os.path.isfile(os.path.join(args.reference, "gidd", "models", "dit.py")):
        skip(f"{args.reference} holds no gidd/models/dit.py")
    torch.set_num_threads(args.threads)
    stand_in_for_missing_modules(torch, args.reference)
    reference = Reference(torch, args.dtype, args.compile)
    for _ in range(args.warmup):
        wall, _, value = reference.step()
        say(f"warm-up: {wall:.0f} ms, loss {value:.4f}")
    samples = run_rounds(args, reference)
    result = {"bench": "reference_step", "processor": processor(), "threads": args.threads, "torch": torch.__version__,
              "reference_dtype": args.dtype, "compiled": args.compile}
    for name, series in samples.items():
        if series:
            result[name] = summary(series, args.quiet)
    base = result["reference"]["tokens_per_s"]
    for name in ("reference", "ours_fp32", "ours_bf16"):
        if name in result:
            print(f"{name:10}  {result[name]['tokens_per_s']:8.1f} tokens/s  {result[name]['step_ms']:8.1f} ms  "
                  f"({result[name]['step_ms_min']:.1f} .. {result[name]['step_ms_max']:.1f})  "
                  f"{result[name]['tokens_per_s'] / base:5.2f} x;  processor time {result[name]['step_cpu_ms']:8.1f} ms  "
                  f"{result['reference']['step_cpu_ms'] / result[name]['step_cpu_ms']:5.2f} x")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
