#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""reference_model.py --reference CHECKOUT --bin FOLDER [--size micro|tiny|small] [--own-pad]

A model of the reference's own class, every parameter random, there and back:

  1. the reference writes it (config.json, model.safetensors); this program reads it (--model): logits of the same
     ids at the same times are compared;
  2. gidd-checkpoint imports and exports it; the reference reads that: parameters equal to the bit, logits compared;
  3. with --own-pad (50259 ids in 50304 rows) the class is the one that the reference trains, with strict loading;
     without, the published one (50258 rows, transformers' from_pretrained).

CHECKOUT is a working copy of github.com/dvruette/gidd; none of its code is kept here. Skips (exit code 77) where
torch, safetensors, transformers 4 (in 5 the reference's class cannot be loaded) or the checkout is absent. Prints the
largest differences; fails above 1e-3 of the logits' standard deviation.
"""
import argparse
import os
import subprocess
import sys
import tempfile

SIZES = {"micro": (64, 4, 4, 128, 32), "tiny": (512, 8, 8, 128, 128), "small": (768, 12, 12, 128, 128)}


def skip(reason):
    print("skipped:", reason)
    sys.exit(77)


parser = argparse.ArgumentParser()
parser.add_argument("--reference", default=os.environ.get("GIDD_REFERENCE", ""))
parser.add_argument("--bin", required=True)
parser.add_argument("--size", choices=SIZES, default="micro")
parser.add_argument("--own-pad", action="store_true")
options = parser.parse_args()
if not os.path.exists(os.path.join(options.reference, "gidd/models/modeling_dit.py")):
    skip("no checkout of the reference (--reference, or GIDD_REFERENCE)")
sys.path.insert(0, options.reference)
try:
    import numpy as np
    import torch
    import transformers
    from gidd.models.configuration_dit import DITConfig
    from gidd.models.modeling_dit import DIT
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    skip(str(missing))
if transformers.__version__.split(".")[0] != "4":
    skip(f"transformers {transformers.__version__}: the reference's class wants 4")

D, L, H, C, T = SIZES[options.size]
ROWS, V = (50304, 50259) if options.own_pad else (50258, 50258)
torch.manual_seed(1)


def new_model():
    return DIT(DITConfig(vocab_size=ROWS, max_seq_len=T, hidden_size=D, timestep_cond_dim=C, num_hidden_layers=L,
                         num_attention_heads=H, p_uniform=0.2)).eval()


def training_model():
    import gidd.models.dit as dit
    from omegaconf import OmegaConf
    keys = dict(hidden_size=D, cond_dim=C, n_blocks=L, n_heads=H, dropout=0.0, max_seq_len=T)
    return dit.DIT(OmegaConf.create({"model": keys}), V).eval()


def randomise(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.02 if "embed" in name or "adaLN" in name else 1 / parameter.shape[-1] ** 0.5
            parameter.copy_(torch.randn(parameter.shape) * spread + (1.0 if "norm" in name else 0.0))


def logits_here(model_path, ids, times):
    source, target = os.path.join(folder, "input.bin"), os.path.join(folder, "logits.bin")
    with open(source, "wb") as file:
        np.array(ids.shape, dtype="<i4").tofile(file)
        times.numpy().astype("<f4").tofile(file)
        ids.numpy().astype("<i4").tofile(file)
    subprocess.run([os.path.join(options.bin, "published_logits"), model_path, source, target], check=True)
    return torch.from_numpy(np.fromfile(target, dtype="<f4").reshape(*ids.shape, V))


def checkpoint(*words):
    subprocess.run([os.path.join(options.bin, "gidd-checkpoint"), *words], check=True, stdout=subprocess.DEVNULL)


with tempfile.TemporaryDirectory() as folder, torch.no_grad():
    first, run, second = (os.path.join(folder, name) for name in ("first", "run", "second"))
    model = training_model() if options.own_pad else new_model()
    randomise(model)
    if options.own_pad:
        new_model().config.save_pretrained(first)
        save_file(model.state_dict(), os.path.join(first, "model.safetensors"), metadata={"format": "pt"})
    else:
        model.save_pretrained(first)
    ids, times = torch.randint(0, V, (2, T)), torch.tensor([0.07, 0.83])
    theirs = model(ids, times)[..., :V]
    ours = logits_here(first, ids, times)
    spread, worst = theirs.std().item(), (theirs - ours).abs().max().item()
    print("%s, %d rows: logits have standard deviation %.3f" % (options.size, ROWS, spread))
    print("written by the reference, read here:  largest logit difference %.3g" % worst)
    checkpoint("import", first, run)
    checkpoint("export", run, second)
    if options.own_pad:
        again = training_model()
        again.load_state_dict(load_file(os.path.join(second, "model.safetensors")), strict=True)
    else:
        again, report = DIT.from_pretrained(second, output_loading_info=True)
        assert not report["missing_keys"] and not report["mismatched_keys"], report
    for (name, a), (_, b) in zip(sorted(model.named_parameters()), sorted(again.named_parameters())):
        assert torch.equal(a, b), name
    back = (again.eval()(ids, times)[..., :V] - ours).abs().max().item()
    print("exported here, read by the reference: parameters equal to the bit, largest logit difference %.3g" % back)
    sys.exit(not max(worst, back) <= 1e-3 * spread)
