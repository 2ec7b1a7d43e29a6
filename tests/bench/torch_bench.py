# SPDX-License-Identifier: Apache-2.0
"""What the scripts of this folder that time PyTorch share: devices, clocks, ours in the same rounds, the report.

A bar is something with .step(), one training step without waiting for the device, which returns the loss. A round
measures each bar once and then gidd-bench, so that a change of the machine's load meets all of them.
"""
import json
import os
import resource
import statistics
import subprocess
import sys
import time

V, PAD, MASK = 50259, 50257, 50258  # GPT-2's ids with PAD and MASK behind them
C = 128

# hidden size, heads, blocks, sequences a step: the published comparison's, then the configurations'
MODELS = {"bench": (512, 8, 6, 2), "tiny": (64, 2, 2, 4), "small": (768, 12, 12, 64), "base": (1024, 16, 24, 64)}


def say(text):
    print(text, file=sys.stderr, flush=True)


def skip(why):
    say(f"{os.path.basename(sys.argv[0])}: skipped: {why}")
    sys.exit(77)


def import_torch(args):
    """torch, made ready for --device and --threads; skips where it or the GPU is missing."""
    try:
        import torch
    except ImportError:
        skip("torch is not installed")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        skip("torch sees no GPU")
    if args.compile and not hasattr(torch, "compile"):
        skip(f"torch {torch.__version__} cannot compile")
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    functional = torch.nn.functional
    if not hasattr(functional, "scaled_dot_product_attention"):  # torch before 2.0
        functional.scaled_dot_product_attention = (
            lambda q, k, v: torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1) @ v)
    return torch


def add_options(parser):
    """Those of every script."""
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: of both sides")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), help="of PyTorch's side; on the CPU fp32 unless said, else bf16")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--compile-mode", metavar="MODE", help="its mode, such as max-autotune-no-cudagraphs")
    parser.add_argument("--ours", help="precisions of ours, with commas; on the CPU fp32,bf16 unless said, else bf16")
    parser.add_argument("--quiet", type=float, metavar="SHARE", help="largest share of the processors for others")


def add_step_options(parser):
    """Those of the scripts that time training steps."""
    add_options(parser)
    parser.add_argument("--bench", metavar="PROGRAM", help="gidd-bench, to be timed in the same rounds")
    parser.add_argument("--model", choices=sorted(MODELS), default="bench")
    parser.add_argument("--batch", type=int, help="sequences a step; bench 2, tiny 4, small and base 64 unless said")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--p-uniform", type=float, default=0.0)
    parser.add_argument("--steps", type=int, help="of PyTorch's side in a round; 2 on the CPU, 10 elsewhere unless said")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the first round")


def complete(args):
    """What depends on the device, where the command line says nothing."""
    on_cpu = args.device == "cpu"
    args.dtype = args.dtype or ("fp32" if on_cpu else "bf16")
    args.ours = (args.ours or ("fp32,bf16" if on_cpu else "bf16")).split(",")
    if hasattr(args, "model"):
        args.hidden, args.heads, args.blocks, batch = MODELS[args.model]
        args.batch = args.batch or batch
        args.steps = args.steps or (2 if on_cpu else 10)
    return args


def autocast(torch, args):
    """bf16 where it is asked for; a context to run in."""
    return torch.autocast(device_type=args.device.split(":")[0], dtype=torch.bfloat16, enabled=args.dtype == "bf16")


def compiled(torch, args, function):
    return torch.compile(function, mode=args.compile_mode) if args.compile else function


def synchronize(torch, args):
    if args.device.startswith("cuda"):
        torch.cuda.synchronize()


def describe(torch, args):
    return torch.cuda.get_device_name() if args.device.startswith("cuda") else processor()


def processor():
    with open("/proc/cpuinfo", encoding="ascii") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")


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


def time_steps(torch, args, bar, count):
    """Milliseconds of a step by the clock and of the processors, and the last loss: waits once for all steps."""
    synchronize(torch, args)
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        loss = bar.step()
    synchronize(torch, args)
    wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return wall * 1e3 / count, cpu * 1e3 / count, float(loss)


def time_ours(args, precision):
    """One run of gidd-bench step of the same model: its own medians of wall and processor time, in milliseconds."""
    command = [args.bench, "step", "--repeats", "3" if args.device == "cpu" else "20", "--warmup", "3",
               f"training.precision={precision}", f"device.kind={args.device}", f"model.hidden_size={args.hidden}",
               f"model.heads={args.heads}", f"model.blocks={args.blocks}", f"model.context={args.context}",
               f"model.p_uniform={args.p_uniform}", f"training.global_batch={args.batch}",
               f"training.micro_batch={args.batch}", "loss.skip_clean_rows=off"]
    done = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, check=False, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    return said["step_ms"]["median"], said["step_cpu_ms"]["median"], said["parameters"]


def summary(args, samples):
    """samples: (milliseconds, milliseconds of the processors, share of the others)."""
    kept = [sample for sample in samples if args.quiet is None or sample[2] <= args.quiet]
    if len(kept) < 3:
        kept = samples
    walls = [sample[0] for sample in kept]
    wall, cpu = statistics.median(walls), statistics.median(sample[1] for sample in samples)
    tokens = args.batch * args.context * 1e3
    return {"step_ms": wall, "step_ms_min": min(walls), "step_ms_max": max(walls), "tokens_per_s": tokens / wall,
            "step_cpu_ms": cpu, "tokens_per_cpu_s": tokens / cpu, "count": len(kept), "left_out": len(samples) - len(kept)}


def run_rounds(torch, args, bars):
    """Samples by name, of the bars (a dictionary) and of ours; parameters must be as many on both sides."""
    on_gpu = args.device.startswith("cuda")
    samples = {name: [] for name in [*bars, *(f"ours_{precision}" for precision in args.ours if args.bench)]}

    def measure(name, run):
        wait_for_quiet(args.quiet)
        watch = Watch()
        wall, cpu, _ = run()
        samples[name].append((wall, cpu, watch.others()))

    def theirs(bar):
        if on_gpu:  # one step to get back the memory that ours had meanwhile
            bar.step()
        return time_steps(torch, args, bar, args.steps)

    def ours(precision):
        if on_gpu:
            torch.cuda.empty_cache()
        wall, cpu, count = time_ours(args, precision)
        for name, bar in bars.items():
            parameters = sum(parameter.numel() for parameter in bar.model.parameters())
            if parameters != count:
                sys.exit(f"{name} has {parameters} parameters, ours {count}: not the same model")
        return wall, cpu, count

    for number in range(args.rounds):
        for name, bar in bars.items():
            measure(name, lambda chosen=bar: theirs(chosen))
        for precision in args.ours if args.bench else ():
            measure(f"ours_{precision}", lambda chosen=precision: ours(chosen))
        latest = ", ".join(f"{name} {series[-1][0]:.1f} ms (cpu {series[-1][1]:.0f}, others {series[-1][2]:.0%})"
                           for name, series in samples.items())
        say(f"round {number + 1} of {args.rounds}: {latest}")
    return samples


def report_steps(torch, args, name, samples):
    """A line a side, against the first, and one line of JSON."""
    result = {"bench": name, "processor": processor(), "device": describe(torch, args), "threads": args.threads,
              "torch": torch.__version__, "dtype": args.dtype, "compiled": args.compile, "compile_mode": args.compile_mode,
              "model": args.model, "batch": args.batch, "context": args.context, "p_uniform": args.p_uniform}
    if args.device.startswith("cuda"):
        result["torch_peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    for side, series in samples.items():
        result[side] = summary(args, series)
    base = result[next(iter(samples))]
    for side in samples:
        one = result[side]
        print(f"{side:10}  {one['tokens_per_s']:8.1f} tokens/s  {one['step_ms']:8.1f} ms  "
              f"({one['step_ms_min']:.1f} .. {one['step_ms_max']:.1f})  {one['tokens_per_s'] / base['tokens_per_s']:5.2f} x;  "
              f"processor time {one['step_cpu_ms']:8.1f} ms  {base['step_cpu_ms'] / one['step_cpu_ms']:5.2f} x")
    print(json.dumps(result))


def run_step_bench(torch, args, name, bars):
    """Warm-up, rounds and report of a script that times training steps."""
    for side, bar in bars.items():
        for _ in range(args.warmup):
            wall, _, loss = time_steps(torch, args, bar, 1)
            say(f"warm-up, {side}: {wall:.0f} ms, loss {loss:.4f}")
    report_steps(torch, args, name, run_rounds(torch, args, bars))
