#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts real English prose into FOLDER, cut at paragraphs into texts of about 5 kB, as OpenWebText's are.

    fetch_prose.py FOLDER

Jane Austen's novels (Debian's r-cran-janeaustenr) and the Debian Administrator's Handbook (debian-handbook).
The packages are downloaded with apt-get and unpacked below FOLDER, not installed. Exit code: 77 without apt.
"""
import glob
import html
import os
import re
import shutil
import subprocess
import sys
import zlib

PACKAGES = ("r-cran-janeaustenr", "debian-handbook")
TEXT_BYTES = 5000


def download(folder):
    for package in PACKAGES:
        subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
    for archive in glob.glob(os.path.join(folder, "*.deb")):
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
        os.remove(archive)


def r_strings(data):
    """The character values of a serialized R object in XDR format: type 9, a length, the bytes."""
    found, at = [], data.find(b"\0\4\0\x09")
    while at >= 0:
        length = int.from_bytes(data[at + 4:at + 8], "big")
        if length < 1 << 20:
            found.append(data[at + 8:at + 8 + length].decode("utf-8", "replace"))
            at += 8 + length
        at = data.find(b"\0\4\0\x09", at)
    return found


def novels(folder):
    with open(os.path.join(folder, "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"), "rb") as stream:
        data = stream.read()
    while len(data) > 4:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(data[4:])
        lines = r_strings(raw)
        if len(lines) > 1000:
            yield "\n".join(lines)
        data = unpacker.unused_data


def handbook(folder):
    for path in sorted(glob.glob(os.path.join(folder, "usr/share/doc/debian-handbook/html/en-US/*.html"))):
        with open(path, encoding="utf-8") as stream:
            page = stream.read()
        page = re.sub(r"(?s)<(script|style|head)\b.*?</\1>", "", page)
        page = re.sub(r"(?i)</(p|div|h[1-6]|li|pre)>", "\n\n", page)
        page = html.unescape(re.sub(r"<[^>]*>", "", page))
        yield re.sub(r"\n\s*\n+", "\n\n", page).strip() + "\n"


def cut(text):
    """Texts of whole paragraphs, of TEXT_BYTES or a little more."""
    part, size = [], 0
    for paragraph in text.split("\n\n"):
        part.append(paragraph)
        size += len(paragraph) + 2
        if size >= TEXT_BYTES:
            yield "\n\n".join(part)
            part, size = [], 0
    if part:
        yield "\n\n".join(part)


def main():
    folder = sys.argv[1]
    if shutil.which("apt-get") is None:
        print("skipped: no apt-get here")
        return 77
    packed = os.path.join(folder, "packages")
    os.makedirs(packed)
    download(packed)
    count = total = 0
    for text in [*novels(packed), *handbook(packed)]:
        for part in cut(text):
            with open(os.path.join(folder, f"{count:05d}.txt"), "w", encoding="utf-8") as stream:
                total += stream.write(part)
            count += 1
    shutil.rmtree(packed)
    print(f"{count} texts, {total} characters in {folder}")
    return 0


sys.exit(main())
