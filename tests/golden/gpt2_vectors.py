#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes gpt2/: a small random GPT-2 as published ones look, and what it says, in float64 NumPy.

gpt2_vectors.py FOLDER (needs numpy): model.safetensors and config.json; expected.safetensors with ids, lengths,
logits and nll. Written from the architecture alone:

    LN(x) = (x - mean) / sqrt(variance + 1e-5) * w + b
    x = wte[id] + wpe[position];  x += attention(LN(x));  x += W_proj gelu(W_fc LN(x));  logits = LN(x) wte^T
    gelu(v) = v/2 (1 + tanh(sqrt(2/pi) (v + 0.044715 v^3)));  matrices are stored [in, out]
"""
import json
import struct
import sys

import numpy as np

V, D, H, L, POSITIONS, B, T = 273, 32, 4, 2, 24, 3, 16
rng = np.random.default_rng(11)


def f32(array):
    return np.float64(np.float32(array))


def random_model():
    p = {"wte.weight": rng.normal(0, 0.4, (V, D)), "wpe.weight": rng.normal(0, 0.3, (POSITIONS, D))}
    for i in range(L):
        for name, shape in {"attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, 4 * D),
                            "mlp.c_proj": (4 * D, D)}.items():
            p[f"h.{i}.{name}.weight"] = rng.normal(0, 1 / np.sqrt(shape[0]), shape)
            p[f"h.{i}.{name}.bias"] = rng.normal(0, 0.2, shape[1])
        for name in ("ln_1", "ln_2"):
            p[f"h.{i}.{name}.weight"], p[f"h.{i}.{name}.bias"] = 1 + rng.normal(0, 0.2, D), rng.normal(0, 0.2, D)
    p["ln_f.weight"], p["ln_f.bias"] = 1 + rng.normal(0, 0.2, D), rng.normal(0, 0.2, D)
    return {name: f32(value) for name, value in p.items()}


def norm(x, w, b):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(-1, keepdims=True) + 1e-5) * w + b


def gelu(v):
    return 0.5 * v * (1 + np.tanh(np.sqrt(2 / np.pi) * (v + 0.044715 * v ** 3)))


def attention(qkv):
    q, k, v = (part.reshape(B, T, H, D // H) for part in np.split(qkv, 3, -1))
    score = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(D // H)
    score = np.where(np.tril(np.ones((T, T), bool)), score, -np.inf)
    p = np.exp(score - score.max(-1, keepdims=True))
    return np.einsum("bhij,bjhd->bihd", p / p.sum(-1, keepdims=True), v).reshape(B, T, D)


def forward(p, ids):
    x = p["wte.weight"][ids] + p["wpe.weight"][:T]
    for i in range(L):
        layer = lambda y, name: y @ p[f"h.{i}.{name}.weight"] + p[f"h.{i}.{name}.bias"]
        of = lambda name: norm(x, p[f"h.{i}.{name}.weight"], p[f"h.{i}.{name}.bias"])
        x = x + layer(attention(layer(of("ln_1"), "attn.c_attn")), "attn.c_proj")
        x = x + layer(gelu(layer(of("ln_2"), "mlp.c_fc")), "mlp.c_proj")
    return norm(x, p["ln_f.weight"], p["ln_f.bias"]) @ p["wte.weight"].T


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, value in tensors.items():
        raw = np.ascontiguousarray(value, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(np.shape(value)), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main(folder):
    p = random_model()
    ids, lengths = rng.integers(0, V, (B, T)), np.array([T, 9, 1])
    logits = forward(p, ids)
    logp = logits - logits.max(-1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(-1, keepdims=True))
    nll = np.zeros((B, T))
    for b in range(B):
        for t in range(lengths[b] - 1):
            nll[b, t] = -logp[b, t, ids[b, t + 1]]
    write_safetensors(f"{folder}/model.safetensors", {f"transformer.{name}": value for name, value in p.items()})
    write_safetensors(f"{folder}/expected.safetensors", {"ids": ids, "lengths": lengths, "logits": logits, "nll": nll})
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new",
                   "n_embd": D, "n_layer": L, "n_head": H, "n_positions": POSITIONS, "n_ctx": POSITIONS,
                   "vocab_size": V, "layer_norm_epsilon": 1e-5, "bos_token_id": V - 1, "eos_token_id": V - 1}, file,
                  indent=1)
        file.write("\n")


main(sys.argv[1])
