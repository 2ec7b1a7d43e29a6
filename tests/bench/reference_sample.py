#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times generation with the PyTorch reference of GIDD and with gidd-sample, in turns, on the same model.

    reference_sample.py --reference CHECKOUT --sample build/bin/gidd-sample --tokenizer FOLDER [--device cuda] [--compile]

CHECKOUT is a working copy of github.com/dvruette/gidd; nothing of it is kept here. Its own DIT gets random weights, which
are written as a published model (safetensors and config.json) that gidd-sample reads: both sides compute the same
network. V = 50258, p_u = 0.2; six blocks, D = 512, H = 8, T = 512 unless asked otherwise. The reference's GiddSampler
takes its own denoising step; its logits are cut to V columns, without which the step does not run (it multiplies V
columns with 50304). FOLDER holds GPT-2's vocab.bpe and encoder.json.

A round times --steps steps of the reference, then two runs of gidd-sample in each precision of --ours, of 2 and of
2 + --steps steps: their difference is free of start-up, loading and printing. Samples a second are told for 128 steps, of
which gidd-sample computes 127: the last one of GIDD is the identity. With --threads 1 processor time is a fair measure
in any company. The last line of standard output is JSON. Exit code 77: skipped.
"""
import argparse
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import types

import reference_step
import torch_bench

V, PAD, MASK, STEPS = 50258, 50256, 50257, 128


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", required=True, metavar="CHECKOUT")
    parser.add_argument("--sample", required=True, metavar="PROGRAM", help="gidd-sample")
    parser.add_argument("--tokenizer", required=True, metavar="FOLDER")
    torch_bench.add_options(parser)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--context", type=int, default=512)
    return torch_bench.complete(parser.parse_args())


class Tokenizer:
    """GPT-2's with a mask behind it; PAD is EOS."""
    pad_token_id, mask_token_id = PAD, MASK

    def __len__(self):
        return V


def write_model(torch, model, args, folder):
    """The reference's parameters as a Hugging Face folder: no buffers, and V rows where the reference has rounded up."""
    header, at, tensors = {}, 0, []
    for name, value in model.named_parameters():
        if name.startswith(("vocab_embed.", "output_layer.linear.")):
            value = value[:V]
        data = value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
        tensors.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{folder}/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(tensors))
    with open(f"{folder}/config.json", "w", encoding="ascii") as file:
        json.dump({"model_type": "dit", "vocab_size": V, "max_seq_len": args.context, "hidden_size": args.hidden,
                   "timestep_cond_dim": 128, "num_hidden_layers": args.blocks, "num_attention_heads": args.heads,
                   "p_uniform": 0.2, "t_eps": 1e-4, "gidd": {"base_ids": 50257, "pad": "eos"}}, file)


class Reference:
    def __init__(self, torch, args):
        from gidd.diffusion_process import HybridDiffusion
        from gidd.models.dit import DIT
        from gidd.sampling import GiddSampler

        space = types.SimpleNamespace
        config = space(model=space(type="diffusion", hidden_size=args.hidden, n_heads=args.heads, n_blocks=args.blocks,
                                   cond_dim=128, dropout=0.0, max_seq_len=args.context, p_uniform=0.2, t_eps=1e-4))
        self.torch, self.args = torch, args
        self.model = DIT(config, V).eval().to(args.device)
        for value in self.model.parameters():  # some start as zeros, which a processor may be quicker with
            if value.abs().sum() == 0:
                torch.nn.init.normal_(value, std=0.02)

        class Cut(torch.nn.Module):
            """The model without the columns that only round the vocabulary up."""

            def __init__(self, whole):
                super().__init__()
                self.whole, self.config = whole, config.model

            def forward(self, z, t):
                return self.whole(z, t)[..., :V]

        noise = HybridDiffusion(Tokenizer(), p_uniform=0.2).to(args.device)
        sampler = GiddSampler(Cut(self.model), Tokenizer(), noise, compile_step=args.compile)
        self.step_of = sampler.sampling_step
        self.times = (1 - 2e-4) * torch.linspace(0, 1, STEPS + 1, device=args.device).unsqueeze(-1) + 1e-4
        self.z = torch.full((args.batch, args.context), MASK, device=args.device)
        self.at = STEPS - 1

    def steps(self, count):
        """Seconds a step, by the clock and of the processors."""
        torch_bench.synchronize(self.torch, self.args)
        start, start_cpu = time.perf_counter(), time.process_time()
        with self.torch.no_grad(), torch_bench.autocast(self.torch, self.args):
            for _ in range(count):
                self.z = self.step_of(self.z, self.times[self.at], self.times[max(0, self.at - 1)]).clone()
                self.at = self.at - 1 if self.at > 1 else STEPS - 1
        torch_bench.synchronize(self.torch, self.args)
        return (time.perf_counter() - start) / count, (time.process_time() - start_cpu) / count


def run_ours(args, folder, precision, steps):
    command = [args.sample, "--model", folder, "--tokenizer", args.tokenizer, "--num", str(args.batch), "--batch",
               str(args.batch), "--steps", str(steps), "--output", os.devnull, f"training.precision={precision}",
               f"device.kind={args.device}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)), stderr=subprocess.PIPE, check=False,
                          text=True)
    if done.returncode != 0:
        sys.exit(f"reference_sample.py: {' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def time_ours(args, folder, precision):
    short, long = run_ours(args, folder, precision, 2), run_ours(args, folder, precision, 2 + args.steps)
    return tuple((b - a) / args.steps for a, b in zip(short, long))


def run_rounds(args, reference, folder):
    samples = {name: [] for name in ["reference", *(f"ours_{precision}" for precision in args.ours)]}
    reference.steps(3)
    for number in range(args.rounds):
        samples["reference"].append(reference.steps(args.steps))
        for precision in args.ours:
            samples[f"ours_{precision}"].append(time_ours(args, folder, precision))
        latest = ", ".join(f"{name} {series[-1][0]:.2f} s a step (cpu {series[-1][1]:.2f})" for name, series in samples.items())
        torch_bench.say(f"round {number + 1} of {args.rounds}: {latest}")
    return samples


def main():
    args = parse()
    torch = torch_bench.import_torch(args)
    if not os.path.isfile(os.path.join(args.reference, "gidd", "sampling.py")):
        torch_bench.skip(f"{args.reference} holds no gidd/sampling.py")
    reference_step.stand_in_for_missing_modules(args.reference)
    if "tqdm.auto" not in sys.modules:
        try:
            import tqdm.auto  # noqa: F401
        except ImportError:
            for name in ("tqdm", "tqdm.auto"):
                sys.modules[name] = types.ModuleType(name)
            sys.modules["tqdm"].auto = sys.modules["tqdm.auto"]
    reference = Reference(torch, args)
    with tempfile.TemporaryDirectory() as folder:
        write_model(torch, reference.model, args, folder)
        samples = run_rounds(args, reference, folder)
    result = {"bench": "reference_sample", "processor": torch_bench.processor(),
              "device": torch_bench.describe(torch, args), "threads": args.threads, "torch": torch.__version__,
              "dtype": args.dtype, "compiled": args.compile, "batch": args.batch, "rounds": args.rounds, "hidden": args.hidden,
              "blocks": args.blocks, "context": args.context}
    for name, series in samples.items():
        computed = STEPS if name == "reference" else STEPS - 1
        wall, cpu = (statistics.median(sample[k] for sample in series) for k in (0, 1))
        result[name] = {"step_s": wall, "step_cpu_s": cpu, "samples_per_s": args.batch / (computed * wall),
                        "samples_per_cpu_s": args.batch / (computed * cpu)}
    for name in samples:
        one, base = result[name], result["reference"]
        print(f"{name:10}  {one['step_s']:8.3f} s a step  {one['samples_per_s']:8.4f} samples/s  "
              f"{one['samples_per_s'] / base['samples_per_s']:5.2f} x;  processor time {one['step_cpu_s']:8.3f} s  "
              f"{one['samples_per_cpu_s'] / base['samples_per_cpu_s']:5.2f} x")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
