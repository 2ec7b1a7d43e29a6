#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the training step of a plain, well-written PyTorch DiT of our own: the bar that a good PyTorch user sets.

    torch_dit.py [--device cuda] [--compile] [--model small] [--bench build/bin/gidd-bench]

The network, noise and loss of this project, written for PyTorch as one would for speed: scaled_dot_product_attention,
a residual stream in bf16 under autocast, fp32 master parameters, a loss that never materialises a one-hot or q, fused
AdamW on a GPU, and everything from noise to loss in one function for torch.compile. What it does not have is what no
plain PyTorch program has: kernels of its own.

With --reference CHECKOUT, a working copy of github.com/dvruette/gidd, that is the second bar of the same rounds; with
--bench ours follow. --verify FILE.h5 checks logits and losses against the numbers of an independent implementation
(tests/golden/micro.h5; wants h5py) and leaves. The last line of standard output is JSON. Exit code 77: skipped.
"""
import argparse
import math
import sys

import torch_bench
from torch_bench import MASK, PAD, C, V

FEATURES = 256


def define(torch):
    """The classes need torch, which may not be there."""
    nn, functional = torch.nn, torch.nn.functional

    class LayerNorm(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(size))

        def forward(self, x, shift, scale):
            return functional.layer_norm(x.float(), self.weight.shape, self.weight, eps=1e-5) * (1 + scale) + shift

    def rotate(x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    def zeroed(linear):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear

    class Block(nn.Module):
        def __init__(self, hidden, heads, cond):
            super().__init__()
            self.heads = heads
            self.norm1, self.norm2 = LayerNorm(hidden), LayerNorm(hidden)
            self.attn_qkv = nn.Linear(hidden, 3 * hidden, bias=False)
            self.attn_out = nn.Linear(hidden, hidden, bias=False)
            self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), nn.GELU(approximate="tanh"), nn.Linear(4 * hidden, hidden))
            self.adaLN_modulation = zeroed(nn.Linear(cond, 6 * hidden))

        def forward(self, x, c, cos, sin):
            shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)
            B, T, D = x.shape
            qkv = self.attn_qkv(self.norm1(x, shift_a, scale_a)).view(B, T, 3, self.heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v)
            x = x + gate_a * self.attn_out(attended.transpose(1, 2).reshape(B, T, D))
            return x + gate_m * self.mlp(self.norm2(x, shift_m, scale_m))

    class DiT(nn.Module):
        """SPEC section 2, under the reference's parameter names. x keeps the type that `compute` has."""

        def __init__(self, vocabulary, hidden, heads, blocks, cond, context, compute=torch.float32):
            super().__init__()
            columns, half = (vocabulary + 127) // 128 * 128, hidden // heads // 2
            self.compute = compute
            self.vocab_embed = nn.Embedding(columns, hidden)
            nn.init.uniform_(self.vocab_embed.weight, -hidden ** -0.5, hidden ** -0.5)
            self.sigma_map = nn.Sequential(nn.Linear(FEATURES, cond), nn.SiLU(), nn.Linear(cond, cond), nn.SiLU())
            self.blocks = nn.ModuleList(Block(hidden, heads, cond) for _ in range(blocks))
            self.norm_final = LayerNorm(hidden)
            self.linear = zeroed(nn.Linear(hidden, columns))
            self.adaLN_modulation = zeroed(nn.Linear(cond, 2 * hidden))
            angles = torch.arange(context)[:, None] * 10000.0 ** (-torch.arange(half) / half)
            self.register_buffer("cos", angles.cos().to(compute), persistent=False)
            self.register_buffer("sin", angles.sin().to(compute), persistent=False)
            frequencies = torch.exp(-math.log(10000) * torch.arange(FEATURES // 2) / (FEATURES // 2))
            self.register_buffer("frequencies", frequencies, persistent=False)

        def forward(self, z, t):
            phases = t[:, None] * self.frequencies
            c = self.sigma_map(torch.cat((phases.cos(), phases.sin()), dim=-1))
            x = self.vocab_embed(z).to(self.compute)
            for block in self.blocks:
                x = block(x, c, self.cos[:z.shape[1]], self.sin[:z.shape[1]])
            shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
            return self.linear(self.norm_final(x, shift, scale))

    class Noise:
        """SPEC sections 4, 5 and 7: the hybrid noise and its loss with dynamic weights."""

        def __init__(self, vocabulary, mask, p_uniform):
            p = max(math.exp(-20), p_uniform)
            self.V, self.mask = vocabulary, mask
            self.B = math.exp(max(math.log(2) + math.log(p) - math.log1p(-p), -20))

        def coefficients(self, t):
            """alpha, and beta of the mask and of another id, [B][1]."""
            c = (t * (1 - t)).sqrt() * self.B
            return tuple(value[:, None] for value in ((1 - t) / (1 + c), t / (1 + c), c / (self.V - 1) / (1 + c)))

        def draw_t(self, B, device):
            t = (torch.arange(B, device=device) / B + torch.rand(1, device=device)) % 1.0
            return (1 - 2e-4) * t + 1e-4

        def draw_z(self, x, t):
            alpha, beta_mask, _ = self.coefficients(t)
            u = torch.rand(x.shape, device=x.device)
            other = torch.randint(0, self.V - 1, x.shape, device=x.device)  # the mask is the last id
            noised = torch.where(u < alpha + beta_mask, torch.full_like(x, self.mask), other)
            return torch.where(u < alpha, x, noised)

        def terms(self, logits, x, z, t):
            """KL and IS of each position. A row's q is beta_other but at x and at the mask, where q is r."""
            alpha, beta_mask, beta = self.coefficients(t)
            logits = logits.float()
            logits = logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) == self.mask, -math.inf)
            r = alpha[..., None] * logits.softmax(-1)[..., :self.V] + beta[..., None]
            is_mask = torch.arange(self.V, device=r.device) == self.mask
            log_r = torch.where(is_mask, torch.zeros((), device=r.device), r.log())
            log_x, log_z = (log_r.gather(-1, ids[..., None])[..., 0] for ids in (x, z))
            kl = (beta * ((self.V - 1) * beta.log() - log_r.sum(-1)) - beta * (beta.log() - log_x)
                  + (alpha + beta) * ((alpha + beta).log() - log_x))
            log_q = torch.where(z == x, (alpha + beta).log(), beta.log())
            log_ratio = torch.where(z == self.mask, torch.zeros_like(log_z), log_q - log_z)
            return kl, log_ratio.exp() - log_ratio - 1

        def weights(self, x, z, t):
            clean = self.B / self.V * torch.exp(0.5 * torch.sigmoid(-t))[:, None]
            ones = torch.ones_like(t)[:, None]
            return torch.where(z == x, clean, torch.where(z == self.mask, 2 * ones, ones)).clip(0, 2)

    return DiT, Noise


class Bar:
    """The whole training step: noise, forward, loss, backward, clipping, AdamW."""

    def __init__(self, torch, args):
        DiT, Noise = define(torch)
        compute = torch.bfloat16 if args.dtype == "bf16" else torch.float32
        self.torch, self.args = torch, args
        self.noise = Noise(V, MASK, args.p_uniform)
        self.model = DiT(V, args.hidden, args.heads, args.blocks, C, args.context, compute).to(args.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=5e-4, betas=(0.9, 0.99), eps=1e-9, weight_decay=0.02,
                                           **({"fused": True} if args.device.startswith("cuda") else {}))
        self.loss_of = torch_bench.compiled(torch, args, self.loss)

    def loss(self, x):
        t = self.noise.draw_t(x.shape[0], x.device)
        z = self.noise.draw_z(x, t)
        with torch_bench.autocast(self.torch, self.args):
            logits = self.model(z, t)
        kl, itakura_saito = self.noise.terms(logits, x, z, t)
        return (self.noise.weights(x, z, t) * (kl + itakura_saito)).mean()

    def step(self):
        torch, args = self.torch, self.args
        x = torch.randint(0, PAD, (args.batch, args.context), device=args.device)
        loss = self.loss_of(x)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


RENAMED = {"vocab_embed.embedding": "vocab_embed.weight", "sigma_map.mlp.": "sigma_map.", "output_layer.": ""}


def verify(torch, path):
    """Logits and mean losses against a vectors file."""
    try:
        import h5py
    except ImportError:
        torch_bench.skip("h5py is not installed")
    DiT, Noise = define(torch)
    worst = 0.0
    with h5py.File(path) as file:
        has = file["config"].attrs
        model = DiT(int(has["vocab_size"]), int(has["hidden_size"]), int(has["n_heads"]), int(has["n_blocks"]),
                    int(has["cond_dim"]), int(has["max_seq_len"]))
        state = {}
        for name, value in file["params"].items():
            for theirs, ours in RENAMED.items():
                name = name.replace(theirs, ours)
            state[name] = torch.from_numpy(value[()])
        model.load_state_dict(state)
        x, t = torch.from_numpy(file["inputs/input_ids"][()]).long(), torch.from_numpy(file["inputs/t"][()])
        for p_uniform, logits in ((0.0, "logits_pu0.0"), (0.1, "logits"), (0.2, "logits_pu0.2")):
            if f"inputs/z_t_pu{p_uniform}" not in file:
                continue
            z = torch.from_numpy(file[f"inputs/z_t_pu{p_uniform}"][()]).long()
            with torch.no_grad():
                out = model(z, t)
                noise = Noise(int(has["vocab_size"]), int(has["mask_id"]), p_uniform)
                kl, itakura_saito = noise.terms(out, x, z, t)
                loss = (noise.weights(x, z, t) * (kl + itakura_saito)).mean().item()
            if f"forward/{logits}" in file:
                error = (out - torch.from_numpy(file[f"forward/{logits}"][()])).abs().max().item()
                print(f"p_u {p_uniform}: logits differ by {error:.2e} at most")
                worst = max(worst, error)
            wanted = f"loss/gidd_pu{p_uniform}_dynamic/tokenmean"
            if wanted in file:
                error = abs(loss - float(file[wanted][0]))
                print(f"p_u {p_uniform}: loss {loss:.6f} differs by {error:.2e}")
                worst = max(worst, error)
    if not 0.0 < worst < 1e-4:
        sys.exit("torch_dit.py: that is not the same network and loss")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    torch_bench.add_step_options(parser)
    parser.add_argument("--reference", metavar="CHECKOUT", help="working copy of the reference, as a second bar")
    parser.add_argument("--verify", metavar="FILE.h5")
    args = torch_bench.complete(parser.parse_args())
    torch = torch_bench.import_torch(args)
    if args.verify:
        verify(torch, args.verify)
        return
    bars = {}
    if args.reference:
        import reference_step
        bars["reference"] = reference_step.open_reference(torch, args)
    bars["torch_dit"] = Bar(torch, args)
    torch_bench.run_step_bench(torch, args, "torch_dit", bars)


if __name__ == "__main__":
    main()
