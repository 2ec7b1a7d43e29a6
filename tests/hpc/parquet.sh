#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# parquet.sh BIN_DIR: Parquet files through hpc/parquet-to-jsonl.py to shards and back to their texts. Skipped (77)
# where the python3 of the PATH has no pyarrow.
set -euo pipefail
bin=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
convert=$here/../../hpc/parquet-to-jsonl.py
python3 -c 'import pyarrow' 2>/dev/null || { printf 'skipped: python3 has no pyarrow\n'; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-parquet-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

die() {
    printf 'FAIL: %s\n' "$*" >&2
    exit 1
}

# Two files in small row groups, of several codecs and string types; texts of every awkward kind, also none.
python3 - <<'PY'
import pyarrow as pa
import pyarrow.parquet as pq
texts = ["a\nb", "\u00e9\u2028\u0000\U0001f600 \"quoted\" \\", None, "", "x" * 300000] + [f"text {i}\r\n" for i in range(5000)]
ids = list(range(len(texts)))
table = pa.table({"id": ids, "text": texts, "url": ["u"] * len(texts)})
import os
os.mkdir("in")
pq.write_table(table.slice(0, 2000), "in/train-00000-of-00002.parquet", row_group_size=100, compression="snappy")
large = table.slice(2000).set_column(1, "text", table.slice(2000)["text"].cast(pa.large_string()))
pq.write_table(large, "in/train-00001-of-00002.parquet", row_group_size=700, compression="zstd")
with open("expected", "w", newline="") as stream:
    stream.write("".join(text for text in texts if text))
PY
"$convert" out.jsonl in >said || die "exit $?"
grep -q '5004 rows of 2 files, 1 without a text' said || die "$(cat said)"
"$convert" --rows 7 again.jsonl in/train-00000-of-00002.parquet in/train-00001-of-00002.parquet >/dev/null
cmp out.jsonl again.jsonl || die "other batches, other bytes"
"$convert" out.jsonl.gz in >/dev/null && cp out.jsonl.gz first.gz
sleep 1.1
"$convert" out.jsonl.gz in >/dev/null
cmp first.gz out.jsonl.gz || die "the gzip holds a time"
gzip -dc out.jsonl.gz | cmp - out.jsonl || die "the gzip holds something else"

# To shards and back.
"$bin/gidd-shard" --input out.jsonl.gz --output shards --tokenizer "$here/../fixtures/tokenizer" data.valid_documents=10 \
    >said 2>&1 || die "gidd-shard: $(cat said)"
grep -q '5003 documents' said || die "$(cat said)" # the empty text is none
for ((n = 0; n < 3; n++)); do
    "$bin/gidd-shard" show shards $n --tokenizer "$here/../fixtures/tokenizer"
done >shown
cmp -n "$(stat -c %s shown)" shown expected || die "the texts are not those of the files"

code() {
    local want=$1 got=0
    shift
    "$convert" "$@" >said 2>&1 || got=$?
    [[ $got == "$want" ]] || die "exit $got, not $want: $*: $(cat said)"
}
code 64 out.jsonl
code 66 new.jsonl nowhere
mkdir empty
code 66 new.jsonl empty
code 65 --column body new.jsonl in
head -c 1000 in/train-00000-of-00002.parquet >cut.parquet
code 65 new.jsonl in/train-00000-of-00002.parquet cut.parquet
[[ ! -e new.jsonl && ! -e new.jsonl.tmp ]] || die "half an output is left"
code 74 nowhere/new.jsonl in
printf 'Parquet to shards and back\n'
