#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the training step of the PyTorch reference of GIDD, alone or side by side with gidd-bench.

    reference_step.py --reference CHECKOUT [--device cuda] [--compile] [--model small] [--bench build/bin/gidd-bench]

CHECKOUT is a working copy of github.com/dvruette/gidd; nothing of it is kept here. Its own model, noise and loss are
called (sample_t, HybridDiffusion, DIT, GiddLoss), then backward, clipping and torch's AdamW, as it trains: in bf16 with
parameters in bf16 too. Random tokens; six blocks, D = 512, H = 8, T = 512, V = 50259, two sequences unless said otherwise.

With --bench each round times the reference, then `gidd-bench step` in each precision of --ours, so that a change of the
machine's load meets all of them. Where other work runs on the machine, --quiet 0.1 waits for a pause of it before
each measurement and leaves out of the medians those during which it still took more than a tenth of the processors;
with --threads 1 processor time is a fair measure in any company.
The last line of standard output is JSON with medians over the rounds of the reference, and over the rounds' medians of
ours. Exit code 77: skipped, because torch, the GPU or the checkout is not there.
"""
import argparse
import os
import sys
import types

import torch_bench
from torch_bench import MASK, PAD, C, V


def stand_in_for_missing_modules(checkout):
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


class Tokenizer:
    """What the reference asks of GPT-2's tokenizer."""
    pad_token_id, mask_token_id = PAD, MASK

    def __len__(self):
        return V


class Reference:
    """A bar of torch_bench."""

    def __init__(self, torch, args):
        from gidd.diffusion_process import HybridDiffusion, sample_t
        from gidd.loss import GiddLoss
        from gidd.models.dit import DIT

        space = types.SimpleNamespace
        config = space(
            model=space(type="diffusion", hidden_size=args.hidden, n_heads=args.heads, n_blocks=args.blocks, cond_dim=C,
                        dropout=0.0, max_seq_len=args.context, p_uniform=args.p_uniform, t_eps=1e-4),
            training=space(low_discrepancy_sampling=True),
            loss=space(loss_weighting="dynamic", min_loss_weight=0.0, max_loss_weight=2.0, reduction="tokenmean"))
        tokenizer = Tokenizer()
        model = DIT(config, V).to(args.device, dtype=torch.bfloat16 if args.dtype == "bf16" else torch.float32)
        noise = HybridDiffusion(tokenizer, p_uniform=args.p_uniform).to(args.device)
        loss_of = GiddLoss(config, tokenizer, noise)

        def forward(ids, attention_mask):
            with torch_bench.autocast(torch, args):
                t = sample_t(config, ids.size(0), device=ids.device)
                z = noise.sample_zt(ids, t)
                return loss_of(logits=model(z, t), input_ids=ids, attention_mask=attention_mask, z_t=z, t=t)

        self.torch, self.args, self.model = torch, args, model
        self.forward = torch_bench.compiled(torch, args, forward)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.99), eps=1e-9, weight_decay=0.02)

    def step(self):
        torch, args = self.torch, self.args
        ids = torch.randint(0, PAD - 1, (args.batch, args.context), device=args.device)
        loss, _, _ = self.forward(ids, torch.ones_like(ids))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def open_reference(torch, args):
    """The bar, from args.reference; skips where that holds none."""
    if not os.path.isfile(os.path.join(args.reference, "gidd", "models", "dit.py")):
        torch_bench.skip(f"{args.reference} holds no gidd/models/dit.py")
    stand_in_for_missing_modules(args.reference)
    return Reference(torch, args)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    torch_bench.add_step_options(parser)
    parser.add_argument("--reference", required=True, metavar="CHECKOUT", help="folder that holds gidd/models/dit.py")
    args = torch_bench.complete(parser.parse_args())
    torch = torch_bench.import_torch(args)
    torch_bench.run_step_bench(torch, args, "reference_step", {"reference": open_reference(torch, args)})


if __name__ == "__main__":
    main()
