#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a smaller vectors file of the same layout: reduce_vectors.py KIND SOURCE TARGET (needs h5py).

network    without the float64 copies, with one case of gradients, and the first 32 rows of the
           matrices at the end of the training run
kernels    only what needs no network: parameters, gradients, training and generation left out,
           losses of one noise level and of MDLM
"""
import sys

import h5py

LEFT_OUT = {
    "network": ["f64", "grads/gidd_pu0.0_dynamic", "grads/mdlm"],
    "kernels": ["f64", "grads", "params", "train", "dlogits/gidd_pu0.0_dynamic",
                "forward/logits_pu0.0", "forward/logits_pu0.2",
                "sampler/gidd_generate_pu0.0", "sampler/gidd_generate_pu0.1",
                "sampler/mdlm_generate", "sampler/mdlm_generate_sliced"]
    + [f"loss/gidd_{level}_{weighting}" for level in ("pu0.0", "pu0.2")
       for weighting in ("dynamic", "clip", "none")]}
KEPT_ROWS = 32


def wanted(kind, name):
    if any(name == out or name.startswith(out + "/") for out in LEFT_OUT[kind]):
        return False
    # Hidden states are of use only with the network.
    return kind == "network" or not name.startswith("forward/") or name.startswith("forward/logits")


def copy_attributes(source, target):
    for key, value in source.attrs.items():
        target.attrs[key] = value


def copy_dataset(name, source, target_file):
    data = source[...]
    if name.startswith("train/final_params/") and data.ndim == 2:
        data = data[:KEPT_ROWS]
    packed = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    made = target_file.create_dataset(name, data=data, track_times=False,
                                      **(packed if data.size > 1024 else {}))
    copy_attributes(source, made)


def main(kind, source_path, target_path):
    with h5py.File(source_path) as source, h5py.File(target_path, "w") as target:
        copy_attributes(source, target)

        def visit(name, item):
            if not wanted(kind, name):
                return
            if isinstance(item, h5py.Dataset):
                copy_dataset(name, item, target)
            else:
                copy_attributes(item, target.require_group(name))

        source.visititems(visit)


main(*sys.argv[1:])
