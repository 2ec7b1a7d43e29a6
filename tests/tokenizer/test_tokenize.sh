#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_tokenize.sh GIDD_TOKENIZE WRITE_VOCABULARY: the program from end to end.
set -u
tokenize=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/vocabulary" && "$2" "$dir/vocabulary" || exit 1
GIDD_TOKENIZER_DIR=$dir/vocabulary
export GIDD_TOKENIZER_DIR
failures=0

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# expect CODE INPUT ARGUMENTS...
expect() {
    code=$1 input=$2
    shift 2
    "$tokenize" "$@" <"$input" >"$dir/out" 2>"$dir/err"
    got=$?
    [ "$got" -eq "$code" ] || fail "gidd-tokenize $* exits $got, not $code: $(cat "$dir/err")"
}

printf "it's a test\n\n  abc\000\377 <|endoftext|> \340\244\205" >"$dir/text"
: >"$dir/empty"
head -c 3000000 /dev/urandom >"$dir/random"

for text in text empty random; do
    for format in text u16; do
        expect 0 "$dir/$text" --format $format
        mv "$dir/out" "$dir/ids"
        expect 0 "$dir/ids" --format $format --decode
        cmp -s "$dir/out" "$dir/$text" || fail "$text as $format does not survive the round trip"
    done
done

expect 0 "$dir/text" --format u16
count=$(($(wc -c <"$dir/out") / 2))
expect 0 "$dir/text" --count
[ "$(cat "$dir/out")" = "$count" ] || fail "--count says $(cat "$dir/out"), not $count"

printf 'a b\n\nabc\n' >"$dir/lines"
expect 0 "$dir/lines" --lines
[ "$(wc -l <"$dir/out")" -eq 3 ] || fail "--lines does not keep 3 lines"
mv "$dir/out" "$dir/ids"
expect 0 "$dir/ids" --lines --decode
cmp -s "$dir/out" "$dir/lines" || fail "lines do not survive the round trip"

echo "957" >"$dir/special" # PAD of this vocabulary
expect 65 "$dir/special" --decode
expect 0 "$dir/special" --decode --specials skip
expect 0 "$dir/special" --decode --specials render
[ "$(cat "$dir/out")" = "[PAD]" ] || fail "PAD is rendered as $(cat "$dir/out")"
for bad in 960 65536 99999999999999 12x -1; do
    echo "1 $bad" >"$dir/bad"
    expect 65 "$dir/bad" --decode --specials skip
done
printf abc >"$dir/odd"
expect 65 "$dir/odd" --decode --format u16
expect 64 "$dir/text" --format u32
expect 64 "$dir/text" --no-such-option
expect 64 "$dir/text" --lines --format u16
expect 66 "$dir/text" --tokenizer "$dir/nowhere"
grep -q "$dir/nowhere/vocab.bpe" "$dir/err" || fail "the missing file is not named"
: >"$dir/vocabulary/encoder.json"
expect 65 "$dir/text"
"$tokenize" --help >"$dir/out" || fail "--help fails"
if [ -w /dev/full ]; then
    mkdir "$dir/again" && "$2" "$dir/again"
    "$tokenize" --tokenizer "$dir/again" <"$dir/text" >/dev/full 2>"$dir/err"
    [ $? -eq 74 ] || fail "a full disk is not reported with 74"
fi
[ "$failures" -eq 0 ] && echo "all passed"
exit "$((failures > 0))"
