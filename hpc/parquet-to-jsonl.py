#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Turns Parquet files, as the Hugging Face hub serves OpenWebText, into a .jsonl file that gidd-shard reads.

    parquet-to-jsonl.py OUTPUT.jsonl[.gz] INPUT...

INPUT: Parquet files, or folders whose *.parquet are taken in the order of their names. Each row becomes one line,
{"text": ...}, in the order of the rows; --column names the column, --key the key of the lines. Rows without a value
are left out and counted. The same inputs give the same bytes, whatever the version of pyarrow. Memory: one batch of
--rows rows (1024) and the pages that they lie in. OUTPUT appears by rename when it is whole.

Needs pyarrow (python3 -m pip install pyarrow). Exit codes: 0; 64 command line; 65 no such column, or a damaged file;
66 no input; 69 pyarrow is absent; 74 the output cannot be written.
"""
import argparse
import contextlib
import gzip
import json
import os
import sys


class Refusal(Exception):
    """Ends the program with an exit code and a sentence."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def files_of(inputs):
    for name in inputs:
        if os.path.isdir(name):
            found = sorted(entry for entry in os.listdir(name) if entry.endswith(".parquet"))
            if not found:
                raise Refusal(66, f"no .parquet file in {name}")
            yield from (os.path.join(name, entry) for entry in found)
        elif os.path.isfile(name):
            yield name
        else:
            raise Refusal(66, f"no input {name}")


def texts_of(path, column, rows):
    """The values of one file in order, None where there is none."""
    import pyarrow
    import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise Refusal(65, f"{path} has no column {column}, but: {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(batch_size=rows, columns=[column]):
                yield from batch.column(0).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Refusal(65, f"{path} is damaged or no Parquet file: {error}") from error


@contextlib.contextmanager
def open_output(path):
    with open(path + ".tmp", "wb") as file:
        if not path.endswith(".gz"):
            yield file
            return
        # No name and no time inside: the same bytes every time.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=file, mtime=0) as packed:
            yield packed


def convert(options):
    written = skipped = 0
    files = list(files_of(options.inputs))
    try:
        with open_output(options.output) as stream:
            for path in files:
                for text in texts_of(path, options.column, options.rows):
                    if not isinstance(text, str):
                        skipped += 1
                        continue
                    stream.write(json.dumps({options.key: text}, ensure_ascii=False).encode() + b"\n")
                    written += 1
        os.replace(options.output + ".tmp", options.output)
    except OSError as error:
        raise Refusal(74, f"cannot write {options.output}: {error}") from error
    finally:
        if os.path.exists(options.output + ".tmp"):
            os.remove(options.output + ".tmp")
    print(f"{options.output}: {written} rows of {len(files)} files, {skipped} without a text")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--column", default="text")
    parser.add_argument("--key", default="text")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("inputs", nargs="+", metavar="INPUT")
    parser.error = lambda text: sys.exit((parser.print_usage(sys.stderr), print(text, file=sys.stderr), 64)[2])
    options = parser.parse_args()
    try:
        import pyarrow.parquet  # noqa: F401
        convert(options)
    except ImportError as error:
        print(f"parquet-to-jsonl: {error}: python3 -m pip install pyarrow", file=sys.stderr)
        return 69
    except Refusal as refusal:
        print(f"parquet-to-jsonl: {refusal}", file=sys.stderr)
        return refusal.code
    return 0


sys.exit(main())
