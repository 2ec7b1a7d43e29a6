# SPDX-License-Identifier: Apache-2.0
"""damage_model.py FOLDER OUT KIND: a copy of a published model with one thing wrong with it; of kind "unrounded" it is
right, with rows for the ids of its tokenizer and the mask alone, as models of 50258 ids are. Standard library only."""
import json
import os
import shutil
import struct
import sys

source, target, kind = sys.argv[1:4]
shutil.copytree(source, target)
path = os.path.join(target, "model.safetensors")
data = open(path, "rb").read()
(length,) = struct.unpack("<Q", data[:8])
header, body = json.loads(data[8:8 + length]), bytearray(data[8 + length:])
name = "blocks.1.attn_qkv.weight"
entry = header[name]
begin, end = entry["data_offsets"]


def move_all_behind(place, by):
    for other in header.values():
        if "data_offsets" in other and other["data_offsets"][0] >= place:
            other["data_offsets"] = [offset + by for offset in other["data_offsets"]]


def drop(victim):
    first, last = header.pop(victim)["data_offsets"]
    del body[first:last]
    move_all_behind(last, first - last)


def number(tensor, index, value):
    struct.pack_into("<f", body, header[tensor]["data_offsets"][0] + 4 * index, value)


text = None
if kind == "overlap":
    entry["data_offsets"] = [begin - 4, end - 4]
elif kind == "range":
    last = max(header, key=lambda key: header[key].get("data_offsets", [0, 0])[1])
    del body[-4:]
    assert last != name
elif kind == "dtype":
    entry["dtype"] = "I32"
elif kind == "shape":
    entry["shape"].reverse()
elif kind == "missing":
    drop(name)
elif kind == "surplus":
    header["blocks.9.norm1.weight"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
    body += b"\0\0\0\0"
elif kind == "twice":
    text = json.dumps(header)[:-1] + ', "%s": %s}' % (name, json.dumps(entry))
elif kind == "nan":
    number(name, 5, float("nan"))
elif kind == "rotary":
    number("rotary_emb.sin_cached", 3 * header["rotary_emb.sin_cached"]["shape"][4], 0.5)
elif kind == "bias":
    number("logit_bias", 0, 1.0)
elif kind == "unrounded":
    config = json.load(open(os.path.join(target, "config.json")))
    rows = config["gidd"]["base_ids"] + 1
    for cut in ("vocab_embed.embedding", "output_layer.linear.weight", "output_layer.linear.bias"):
        first, last = header[cut]["data_offsets"]
        keep = (last - first) // header[cut]["shape"][0] * rows
        del body[first + keep:last]
        header[cut]["shape"][0] = rows
        header[cut]["data_offsets"] = [first, first + keep]
        move_all_behind(last, first + keep - last)
    config.update(vocab_size=rows, gidd={"base_ids": rows - 1})
    json.dump(config, open(os.path.join(target, "config.json"), "w"))
elif kind == "no-config":
    os.unlink(os.path.join(target, "config.json"))
elif kind == "no-tensors":
    os.unlink(path)
    sys.exit()
elif kind in ("type", "layers", "vocabulary", "width"):
    config = json.load(open(os.path.join(target, "config.json")))
    config.update({"type": {"model_type": "gpt2"}, "layers": {"num_hidden_layers": "two"},
                   "vocabulary": {"vocab_size": 100}, "width": {"hidden_size": 63}}[kind])
    json.dump(config, open(os.path.join(target, "config.json"), "w"))
elif kind not in ("header", "text", "cut"):
    sys.exit("unknown kind " + kind)

text = (text or json.dumps(header)).encode()
if kind == "text":
    text = b'{"\xff\xfe": 1}'
size = 1 << 40 if kind == "header" else len(text)
if kind == "cut":
    body = body[:len(body) // 2]
open(path, "wb").write(struct.pack("<Q", size) + text + body)
