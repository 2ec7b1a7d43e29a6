#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the committed unicode_class_ranges.inl with the Unicode data of this machine.

    unicode_tables.py SRC_TOKENIZER

Sources: the Python module unicodedata2 and Debian's /usr/share/unicode/UnicodeData.txt (unicode-data) where they are
installed, and Python's own unicodedata. One of the table's own version must generate the committed bytes again. One of
another version must agree on every character that both know: a general category hardly ever changes once it is given.
"""
import importlib
import os
import re
import sys

sys.dont_write_bytecode = True
SPACES_ADDED_BY_HAND = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85}  # White_Space, but of category Cc


def committed(folder):
    with open(os.path.join(folder, "unicode_class_ranges.inl"), encoding="ascii") as stream:
        text = stream.read()
    version = re.search(r"from Unicode (\S+)\.", text).group(1)
    classes = {}
    for name, body in re.findall(r"(\w+)_ranges\[\]\[2\] = \{(.*?)\n\};", text, re.S):
        for first, last in re.findall(r"\{0x([0-9A-F]+), 0x([0-9A-F]+)\}", body):
            for point in range(int(first, 16), int(last, 16) + 1):
                classes[point] = name
    return version, classes, text


def sources():
    for name in ("unicodedata2", "unicodedata"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        yield name, module.unidata_version, {p: module.category(chr(p)) for p in range(0x110000)}
    path = "/usr/share/unicode/UnicodeData.txt"
    if os.path.exists(path):
        points, first = {}, None
        with open(path, encoding="ascii") as lines:
            for field in (line.split(";") for line in lines):
                point = int(field[0], 16)
                for filled in range(first if field[1].endswith(", Last>") else point, point + 1):
                    points[filled] = field[2]
                first = point
        yield path, "unknown", {p: points.get(p, "Cn") for p in range(0x110000)}


def disagreement(categories, classes, is_same_version):
    wanted = {"L": "letter", "N": "number"}
    for point, category in categories.items():
        if category == "Cn" and not is_same_version:
            continue  # not known there yet
        expected = wanted.get(category[0]) or ("space" if category[0] == "Z" or point in SPACES_ADDED_BY_HAND else None)
        if classes.get(point) != expected:
            return f"U+{point:04X} is {classes.get(point)} here and {category} there"
    return None


def main():
    folder = sys.argv[1]
    version, classes, text = committed(folder)
    sys.path.insert(0, folder)
    generator = importlib.import_module("unicode_class_generate")
    failures = 0
    for name, found, categories in sources():
        problem = disagreement(categories, classes, found == version)
        if problem is None and found == version:
            majors = {p: c[0] for p, c in categories.items()}
            for kind, wanted in (("letter", "L"), ("number", "N")):
                ranges = [tuple(r) for r in generator.ranges_of(majors, wanted)]
                lines = re.search(kind + r"_ranges\[\]\[2\] = \{(.*?)\n\};", text, re.S).group(1)
                have = [(int(a, 16), int(b, 16)) for a, b in re.findall(r"\{0x([0-9A-F]+), 0x([0-9A-F]+)\}", lines)]
                problem = problem or (None if ranges == have else f"the {kind} ranges are not those of the generator")
        known = sum(category != "Cn" for category in categories.values())
        print(f"{name} (Unicode {found}, {known} characters) against the committed {version}: {problem or 'agrees'}")
        failures += problem is not None
    return 1 if failures else 0


sys.exit(main())
