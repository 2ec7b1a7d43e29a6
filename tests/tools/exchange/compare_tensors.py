# SPDX-License-Identifier: Apache-2.0
"""compare_tensors.py A.safetensors B.safetensors: parameters equal to the bit; rotary tables to 2e-7, since the
two sides compute them with different libraries. Reads the format by itself: no package is needed."""
import json
import struct
import sys


def read(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]])
            for name, entry in header.items()}


a, b = read(sys.argv[1]), read(sys.argv[2])
assert sorted(a) == sorted(b), sorted(set(a) ^ set(b))
for name in a:
    assert a[name][:2] == b[name][:2], (name, a[name][:2], b[name][:2])
    if not name.startswith("rotary_emb."):
        assert a[name][2] == b[name][2], name
        continue
    left, right = (struct.unpack("<%df" % (len(x[name][2]) // 4), x[name][2]) for x in (a, b))
    worst = max(abs(x - y) for x, y in zip(left, right))
    assert worst <= 2e-7, (name, worst)
print(len(a), "tensors agree")
