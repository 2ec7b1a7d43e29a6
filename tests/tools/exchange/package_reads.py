# SPDX-License-Identifier: Apache-2.0
"""package_reads.py FOLDER BASE_IDS: an exported folder as other people's packages see it.

safetensors (with numpy) must read every tensor, and write the same tensors back as the same parameters; transformers,
where it is installed, must make the tokenizer of it. Skips (exit code 77) without safetensors or numpy.
"""
import json
import os
import struct
import sys

try:
    import numpy
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file
except ImportError as missing:
    print("skipped:", missing)
    sys.exit(77)

folder, base_ids = sys.argv[1], int(sys.argv[2])
path = os.path.join(folder, "model.safetensors")
data = open(path, "rb").read()
(length,) = struct.unpack("<Q", data[:8])
header = json.loads(data[8:8 + length])
header.pop("__metadata__")
with safe_open(path, framework="np") as file:
    assert file.metadata() == {"format": "pt"}, file.metadata()
    assert sorted(file.keys()) == sorted(header)
tensors = load_file(path)
for name, entry in header.items():
    first, end = entry["data_offsets"]
    assert list(tensors[name].shape) == entry["shape"] and tensors[name].dtype == numpy.float32, name
    assert tensors[name].tobytes() == data[8 + length + first:8 + length + end], name
copy = path + ".copy"
save_file(tensors, copy, metadata={"format": "pt"})
same = open(copy, "rb").read() == data
print(len(tensors), "tensors read by the package; what it writes is", "the same file" if same else "another file")
assert same

try:
    from transformers import AutoTokenizer
except ImportError as missing:
    print("tokenizer not looked at:", missing)
    sys.exit(0)
tokenizer = AutoTokenizer.from_pretrained(folder, config=None)
assert len(tokenizer) == base_ids + 2, len(tokenizer)
assert tokenizer.mask_token_id == base_ids + 1 and tokenizer.pad_token_id == base_ids
text = "A text, with [MASK] in it."
ids = tokenizer(text)["input_ids"]
assert tokenizer.mask_token_id in ids and tokenizer.decode(ids) == text, (ids, tokenizer.decode(ids))
print("transformers' tokenizer has", len(tokenizer), "ids")
