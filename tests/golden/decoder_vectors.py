#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes decoder.h5: the autoregressive network in float64 NumPy, loops where a formula has a sum.

decoder_vectors.py TARGET (needs numpy, h5py). Forward, loss, gradients and greedy continuation of a small
Llama-style decoder, written from the formulas alone:

    rms norm   u = x / sqrt(mean(x^2) + 1e-6) * w
    rotary     element i of a head turns with element i + d/2 by p * 10000^(-2i/d)
    attention  softmax over j <= i of q.k/sqrt(d)
    MLP        W_down (silu(W_gate u) * (W_up u)), width 4D
    loss       cross-entropy of x[t+1] at positions t < T-1 with mask[t] = 1; the sum over them divided by
               their number in the batch
Gradients are derived by hand here, box by box, and checked against differences before anything is written.
"""
import sys

import h5py
import numpy as np

V, VR, D, H, L, T, B, SEED = 97, 128, 24, 2, 2, 20, 3, 5
F, HEAD = 4 * D, D // H
EPS = 1e-6
rng = np.random.default_rng(SEED)


def f32(array):
    """What is stored is float32: the oracle computes with exactly the stored numbers."""
    return np.float64(np.float32(array))


def random_params():
    p = {"model.embed_tokens.weight": rng.normal(0, 0.5, (VR, D)), "lm_head.weight": rng.normal(0, 0.3, (VR, D)),
         "model.norm.weight": 1 + rng.normal(0, 0.2, D)}
    shapes = {"self_attn.q_proj": (D, D), "self_attn.k_proj": (D, D), "self_attn.v_proj": (D, D),
              "self_attn.o_proj": (D, D), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
    for i in range(L):
        for name, shape in shapes.items():
            p[f"model.layers.{i}.{name}.weight"] = rng.normal(0, 1.2 / np.sqrt(shape[1]), shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            p[f"model.layers.{i}.{name}.weight"] = 1 + rng.normal(0, 0.2, D)
    return {name: f32(value) for name, value in p.items()}


# ---- boxes: each forward returns what its backward needs -------------------------------------------

def norm(x, w):
    r = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + EPS)
    return x * r * w, (x, r, w)


def norm_back(du, kept):
    x, r, w = kept
    s = du * w
    dx = r * s - x * r ** 3 * (s * x).mean(-1, keepdims=True)
    return dx, (du * x * r).reshape(-1, D).sum(0)


def linear_back(dy, x, w):
    return dy @ w, dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])


def turn(x, sign):
    """x [B, T, H, d]"""
    i = np.arange(HEAD // 2)
    angle = np.arange(T)[:, None] * 10000.0 ** (-2 * i / HEAD)
    c, s = np.cos(angle)[None, :, None], sign * np.sin(angle)[None, :, None]
    a, b = x[..., :HEAD // 2], x[..., HEAD // 2:]
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def attention(q, k, v):
    q, k = turn(q, 1), turn(k, 1)
    score = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(HEAD)
    score = np.where(np.tril(np.ones((T, T), bool)), score, -np.inf)
    p = np.exp(score - score.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.einsum("bhij,bjhd->bihd", p, v), (q, k, v, p)


def attention_back(do, kept):
    q, k, v, p = kept
    dp = np.einsum("bihd,bjhd->bhij", do, v)
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(HEAD)
    dq, dk = np.einsum("bhij,bjhd->bihd", ds, k), np.einsum("bhij,bihd->bjhd", ds, q)
    return turn(dq, -1), turn(dk, -1), np.einsum("bhij,bihd->bjhd", p, do)


def silu(g):
    return g / (1 + np.exp(-g))


# ---- the network -----------------------------------------------------------------------------------

def forward(p, ids):
    x, kept = p["model.embed_tokens.weight"][ids], []
    heads = lambda y: y.reshape(B, T, H, HEAD)
    for i in range(L):
        w = lambda name: p[f"model.layers.{i}.{name}.weight"]
        u1, n1 = norm(x, w("input_layernorm"))
        q, k, v = (heads(u1 @ w(f"self_attn.{c}_proj").T) for c in "qkv")
        o, a = attention(q, k, v)
        o = o.reshape(B, T, D)
        x = x + o @ w("self_attn.o_proj").T
        u2, n2 = norm(x, w("post_attention_layernorm"))
        gate, up = u2 @ w("mlp.gate_proj").T, u2 @ w("mlp.up_proj").T
        act = silu(gate) * up
        x = x + act @ w("mlp.down_proj").T
        kept.append((u1, n1, a, o, u2, n2, gate, up, act))
    u, n = norm(x, p["model.norm.weight"])
    return u @ p["lm_head.weight"].T, (u, n, kept)


def losses(logits, ids, mask):
    """nll [B, T] (0 where nothing is predicted), and their mean's gradient with respect to the logits."""
    counts = np.zeros((B, T))
    counts[:, :-1] = mask[:, :-1]
    target = np.roll(ids, -1, 1)
    live = logits[..., :V]
    logp = live - live.max(-1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    nll = -np.take_along_axis(logp, target[..., None], -1)[..., 0] * counts
    dlogits = np.zeros_like(logits)
    dlogits[..., :V] = np.exp(logp)
    np.put_along_axis(dlogits, target[..., None], np.take_along_axis(dlogits, target[..., None], -1) - 1, -1)
    return nll, dlogits * (counts / counts.sum())[..., None], counts


def backward(p, ids, dlogits, kept):
    u, n, blocks = kept
    g = {}
    du, g["lm_head.weight"] = linear_back(dlogits, u, p["lm_head.weight"])
    dx, g["model.norm.weight"] = norm_back(du, n)
    for i in reversed(range(L)):
        name = lambda part: f"model.layers.{i}.{part}.weight"
        u1, n1, a, o, u2, n2, gate, up, act = blocks[i]
        dact, g[name("mlp.down_proj")] = linear_back(dx, act, p[name("mlp.down_proj")])
        sigmoid = 1 / (1 + np.exp(-gate))
        dgate, dup = dact * up * (sigmoid + gate * sigmoid * (1 - sigmoid)), dact * silu(gate)
        dug, g[name("mlp.gate_proj")] = linear_back(dgate, u2, p[name("mlp.gate_proj")])
        duu, g[name("mlp.up_proj")] = linear_back(dup, u2, p[name("mlp.up_proj")])
        back, g[name("post_attention_layernorm")] = norm_back(dug + duu, n2)
        dx = dx + back
        do, g[name("self_attn.o_proj")] = linear_back(dx, o, p[name("self_attn.o_proj")])
        du1 = 0
        for c, d in zip("qkv", attention_back(do.reshape(B, T, H, HEAD), a)):
            d, g[name(f"self_attn.{c}_proj")] = linear_back(d.reshape(B, T, D), u1, p[name(f"self_attn.{c}_proj")])
            du1 = du1 + d
        back, g[name("input_layernorm")] = norm_back(du1, n1)
        dx = dx + back
    embedding = np.zeros((VR, D))
    np.add.at(embedding, ids, dx)
    g["model.embed_tokens.weight"] = embedding
    return g


def check_differences(p, ids, mask, grads):
    def loss(params):
        nll, _, counts = losses(forward(params, ids)[0], ids, mask)
        return nll.sum() / counts.sum()
    for name, value in p.items():
        direction = rng.normal(size=value.shape)
        h = 1e-5
        ends = [loss({**p, name: value + s * h * direction}) for s in (1, -1)]
        slope, want = (ends[0] - ends[1]) / (2 * h), (grads[name] * direction).sum()
        assert abs(slope - want) < 1e-7 * (1 + abs(want)), (name, slope, want)


def greedy(p, ids, prefix):
    """Each row continued from its first `prefix` ids by the most probable id below V-1 (the mask excepted)."""
    ids = ids.copy()
    for t in range(prefix, T):
        logits = forward(p, ids)[0]
        ids[:, t] = logits[:, t - 1, :V - 1].argmax(-1)
    return ids


def main(target):
    p = random_params()
    ids = rng.integers(0, V - 1, (B, T))
    mask = np.ones((B, T), np.int64)
    ids[-1, T // 2:], mask[-1, T // 2:] = V - 2, 0
    logits, kept = forward(p, ids)
    nll, dlogits, counts = losses(logits, ids, mask)
    grads = backward(p, ids, dlogits, kept)
    check_differences(p, ids, mask, grads)
    with h5py.File(target, "w") as f:
        config = f.create_group("config")
        for name, value in dict(vocab_size=V, rounded_vocab=VR, hidden_size=D, cond_dim=8, n_blocks=L, n_heads=H,
                                max_seq_len=T, batch=B, seed=SEED, bos_id=V - 3, eos_id=V - 3, pad_id=V - 2,
                                mask_id=V - 1, p_uniform=0.0, t_eps=1e-4, min_loss_weight=0.0,
                                max_loss_weight=2.0).items():
            config.attrs[name] = value

        def put(name, data, dtype="f4"):
            f.create_dataset("decoder/" + name, data=np.asarray(data, dtype))
        put("input_ids", ids, "i4")
        put("attention_mask", mask, "i4")
        put("logits", logits)
        put("nll", nll)
        put("greedy", greedy(p, ids, 4), "i4")
        f["decoder/loss"] = np.float64(nll.sum() / counts.sum())
        f["decoder/predictions"] = np.int64(counts.sum())
        for name in p:
            put("params/" + name, p[name])
            put("grads/" + name, grads[name])


main(sys.argv[1])
