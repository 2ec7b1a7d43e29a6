#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2317 disable=SC2086
#
# test_shard_tool.sh GIDD_SHARD MAKE_CORPUS MPIEXEC [CASE...]: gidd-shard from outside. Bytes that do not depend on
# ranks, threads or being killed, exit codes, damage, resumption, memory. Some cases look at what earlier ones made.
set -u
shard=$1 make_corpus=$2 mpiexec=$3
folder=$(mktemp -d "${TMPDIR:-/tmp}/gidd-shard-XXXXXX")
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

fail() {
    printf 'FAIL %s: %s\n' "$current" "$*"
    failures=$((failures + 1))
}

# expect CODE COMMAND...: runs it, output to the file out.
expect() {
    local want=$1 got
    shift
    "$@" >out 2>&1
    got=$?
    [[ $got == "$want" ]] || fail "exit $got, expected $want: $* : $(tail -n 3 out)"
}

said() {
    grep -qF -- "$1" out || fail "did not say '$1' but: $(tail -n 3 out)"
}

# build RANKS INPUT OUTPUT [MORE...]
build() {
    local ranks=$1 input=$2 output=$3
    shift 3
    local launcher=("$mpiexec" -np "$ranks")
    [[ $ranks == 1 ]] && launcher=()
    "${launcher[@]}" "$shard" --input "$input" --output "$output" --tokenizer tokenizer --shard-bytes 200000 \
        data.suffixes=txt,rst data.valid_documents=100 "$@"
}

same() {
    diff -r "$1" "$2" >differences 2>&1 || fail "$1 and $2 differ: $(head -n 3 differences)"
}

no_traces() {
    [[ ! -e $1/index.json ]] || fail "$1/index.json is there"
    [[ -z $(find "$1" -name '*.tmp' 2>/dev/null) ]] || fail "temporary files in $1"
}

bytes_do_not_depend_on_ranks() {
    local input
    for input in texts lines.jsonl lines.jsonl.gz owt.tar.xz; do
        expect 0 build 1 "$input" "$input.1"
        said "1500 documents"
        expect 0 build 2 "$input" "$input.2"
        same "$input.1" "$input.2"
    done
    expect 0 build 3 texts texts.3
    same texts.1 texts.3
    expect 0 build 9 lines.jsonl lines.9 # rank 0 only deals
    same lines.jsonl.1 lines.9
    [[ $(find texts.1 -name 'shard-*.h5' | wc -l) -ge 8 ]] || fail "too few shards to prove anything"
}

bytes_do_not_depend_on_threads() {
    expect 0 build 1 lines.jsonl threads.3 device.threads=3
    said "1 rank of 3 threads"
    same lines.jsonl.1 threads.3
    expect 0 build 2 owt.tar.xz threads.4 device.threads=4
    same owt.tar.xz.1 threads.4
    GIDD_FAULT=kill:rank=0,point=shard_after_commit,count=4 build 1 lines.jsonl threads.9 device.threads=3 >out 2>&1 &&
        fail "it was not killed"
    [[ ! -e threads.9/index.json ]] || fail "an index after a kill"
    expect 0 build 1 lines.jsonl threads.9 device.threads=2
    said " of them kept"
    same lines.jsonl.1 threads.9
}

# 39 and 155 MB, packed and not: with fewer than 16 copies the threads' places are not all filled yet. What kept a
# quarter of the stored bytes that the larger one has more (116 MB, or 72 packed) would be seen.
memory_does_not_grow_with_the_input() {
    local name small large stored pack
    copies() { for _ in $(seq "$1"); do cat lines.jsonl; done; }
    for name in jsonl jsonl.gz; do
        pack='cat'
        [[ $name == *.gz ]] && pack="gzip -1"
        copies 16 | $pack >some.$name
        copies 64 | $pack >many.$name
        expect 0 build 1 some.$name some.$name.out --shard-bytes 500000 device.threads=2
        small=$(sed -n 's/.*at most \([0-9]*\) MB.*/\1/p' out)
        expect 0 build 1 many.$name many.$name.out --shard-bytes 500000 device.threads=2
        large=$(sed -n 's/.*at most \([0-9]*\) MB.*/\1/p' out)
        stored=$((($(stat -c %s many.$name) - $(stat -c %s some.$name)) / 1000000))
        [[ $small -gt 0 && $large -le $((small + stored / 4)) ]] ||
            fail "$name: $small MB, with $stored MB more of input: $large MB"
        printf '     %s: %d MB, with %d MB more of input: %d MB\n' "$name" "$small" "$stored" "$large"
        rm -r {many,some}.$name{,.out}
    done
}

documents_come_back() {
    local n
    for n in 0 333 1499; do
        gunzip -cf "$(find texts -name "$(printf %05d "$n").*")" >expected
        expect 0 "$shard" show owt.tar.xz.1 $n --tokenizer tokenizer
        cmp -s out expected || fail "document $n is not what went in"
    done
    expect 64 "$shard" show owt.tar.xz.1 1500 --tokenizer tokenizer
    expect 0 "$shard" info owt.tar.xz.1
    said "documents: 1500"
    said "valid_documents: 100"
    expect 0 "$mpiexec" -np 2 "$shard" verify owt.tar.xz.1
    said "intact"
}

looks_at_a_data_set() {
    printf '{"text": "one\\ntwo words"}\n{"text": "three"}\n{"text": "%s"}\n' "$(head -c 1000 /dev/zero | tr '\0' t)" >three.jsonl
    expect 0 "$shard" build --input three.jsonl --output three --tokenizer tokenizer data.valid_documents=1
    expect 0 "$shard" stats three --tokenizer tokenizer --limit 2
    said "documents: 3"
    said "tokens: 1018"
    said "(5 .. 1000)"
    said "         8 .. 15                    1   33.3 %"
    said "       512 .. 1023                  1   33.3 %"
    grep -q '^ *[0-9]* *1002 .*"t"$' out || fail "the frequency of t: $(cat out)"
    [[ $(grep -c '%  "' out) == 2 ]] || fail "--limit 2 shows $(grep -c '%  "' out) ids"
    said "ids_used: 11 of 257"
    expect 0 "$shard" grep three 'w.*s$' --tokenizer tokenizer
    [[ $(cat out) == "0:two words" ]] || fail "grep: $(cat out)"
    expect 0 "$shard" grep three '^t' --tokenizer tokenizer --limit 2
    [[ $(cut -c 1-12 out | tr '\n' ' ') == "0:two words 1:three " ]] || fail "grep --limit: $(cat out)"
    expect 0 "$shard" grep three absent --tokenizer tokenizer
    [[ ! -s out ]] || fail "grep found what is not there"
    expect 64 "$shard" grep three '(' --tokenizer tokenizer
    expect 64 "$shard" grep
    expect 64 "$shard" stats three more
    cp -r tokenizer other && printf ' ' >>other/encoder.json
    expect 65 "$shard" stats three --tokenizer other
    expect 65 "$shard" grep three x --tokenizer other
}

a_killed_job_goes_on() {
    local point rank run=0 kept
    for point in shard_before_commit shard_after_commit shard_after_record; do
        rank=$((run % 2)) run=$((run + 1)) # both ranks have their turn
        GIDD_FAULT=kill:rank=$rank,point=$point,count=3 build 2 lines.jsonl killed.$run >out 2>&1 &&
            fail "$point on rank $rank did not kill"
        [[ ! -e killed.$run/index.json ]] || fail "an index after a kill at $point"
        kept=$(find killed.$run/done -name '*.json' | wc -l)
        [[ $kept -ge 2 ]] || fail "only $kept records after a kill at $point"
        expect 0 build $((run % 2 + 1)) lines.jsonl killed.$run
        said ", $kept of them kept"
        same lines.jsonl.1 killed.$run
    done
    GIDD_FAULT=kill:rank=0,point=shard_before_index build 2 lines.jsonl killed.7 >out 2>&1
    [[ ! -e killed.7/index.json ]] || fail "an index too early"
    expect 0 build 2 lines.jsonl killed.7
    same lines.jsonl.1 killed.7
    expect 0 build 2 lines.jsonl killed.7 # and once more: nothing to do
    same lines.jsonl.1 killed.7
}

changed_input_is_noticed() {
    cp -r texts changed
    cp -r texts.1 rebuilt
    printf 'X' | dd of=changed/07/00701.txt conv=notrunc 2>/dev/null # same size
    GIDD_FAULT=kill:rank=any,point=shard_after_commit build 1 changed rebuilt >out 2>&1 && fail "nothing was rebuilt"
    [[ ! -e rebuilt/index.json ]] || fail "the old index vouches for a new shard"
    expect 0 build 2 changed rebuilt
    expect 0 build 1 changed fresh
    same fresh rebuilt
    cmp -s texts.1/index.json rebuilt/index.json && fail "the change was not seen"
    rm changed/14/0149*.txt # fewer shards or documents
    expect 0 build 2 changed rebuilt
    rm -r fresh
    expect 0 build 1 changed fresh
    same fresh rebuilt
    # A shard damaged behind our back is made again; another split only changes the index.
    printf 'X' | dd of=rebuilt/shard-00002.h5 bs=1 seek=5000 conv=notrunc 2>/dev/null
    expect 0 build 2 changed rebuilt
    same fresh rebuilt
    expect 0 build 2 changed rebuilt data.valid_documents=50
    expect 0 "$shard" info rebuilt
    said "valid_documents: 50"
}

damage_is_named() {
    cp -r texts.1 bad
    dd if=/dev/urandom of=bad/shard-00003.h5 bs=1k count=40 seek=100 conv=notrunc 2>/dev/null
    expect 65 "$mpiexec" -np 2 "$shard" verify bad
    said "shard-00003.h5: dataset tokens"
    truncate -s -1 bad/shard-00003.h5
    expect 65 "$shard" verify bad
    said "shard-00003.h5"
    rm bad/shard-00003.h5
    expect 66 "$shard" verify bad
    expect 66 "$shard" verify nowhere
    expect 66 "$shard" info nowhere
}

# The tenth of fifteen inner archives is cut in half: what it still gives and the other fourteen are kept.
damaged_input_is_skipped_and_counted() {
    expect 65 build 2 cut.tar.xz refused --strict
    said "urlsf_subset00-9_data.xz"
    no_traces refused
    expect 0 build 1 cut.tar.xz cut.1
    said "urlsf_subset00-9_data.xz"
    said "the rest of it is skipped"
    said "skipped_damaged: 1"
    [[ $(sed -n 's/^.*: \([0-9]*\) documents.*/\1/p' out) -ge 1400 ]] || fail "$(cat out)"
    expect 0 build 2 cut.tar.xz cut.2 device.threads=3
    same cut.1 cut.2
    # The outer archive itself, cut: the same for any number of ranks, and never in silence.
    head -c "$(($(stat -c %s owt.tar.xz) / 2))" owt.tar.xz >half.tar.xz
    expect 0 build 1 half.tar.xz half.1
    said "half.tar.xz"
    said "skipped_damaged: 1"
    expect 0 build 2 half.tar.xz half.2
    same half.1 half.2
    expect 65 build 2 half.tar.xz refused --strict
    no_traces refused
}

# A line far above what a document may have: skipped, in the memory that the limit asks for.
a_huge_line_is_skipped_in_bounded_memory() {
    local name peak
    { printf '{"text": "a"}\n{"text": "'; head -c 200000000 /dev/zero | tr '\0' x; printf '"}\n{"text": "b"}\n'; } >huge.jsonl
    gzip -1 <huge.jsonl >huge.jsonl.gz
    for name in huge.jsonl huge.jsonl.gz; do
        expect 0 build 1 $name $name.out data.valid_documents=1 device.threads=1
        said "2 documents"
        said "skipped_too_large: 1"
        peak=$(sed -n 's/.*at most \([0-9]*\) MB.*/\1/p' out)
        printf '     %s: %d MB\n' $name "$peak"
        [[ $peak -gt 0 && $peak -le 300 ]] || fail "$name takes $peak MB"
    done
    rm -r huge.*
}

bad_input_ends_all_ranks_alike() {
    expect 66 build 1 nowhere refused
    mkdir -p empty
    expect 65 build 1 empty refused
    : >nothing.jsonl
    expect 65 build 1 nothing.jsonl refused
    said "no documents"
    expect 65 build 2 lines.jsonl refused data.valid_documents=1500
    said "1500 documents"
    said "data.valid_documents = 1500"
    no_traces refused
    printf '{"text": "a"}\n{"text": 7}\n{"text": "b"}\n' >odd.jsonl
    expect 0 build 1 odd.jsonl odd data.valid_documents=1
    said "skipped_key: 1"
    expect 65 build 1 odd.jsonl odd data.valid_documents=1 --strict
    said "odd.jsonl: skipped_key"
    expect 66 "$mpiexec" -np 2 "$shard" --input odd.jsonl --output x --tokenizer nowhere
    expect 73 build 1 odd.jsonl /proc/nothing
    expect 78 build 1 odd.jsonl x data.suffix=txt
    expect 64 "$shard" --output x
    expect 64 "$shard" wrong words
    cp -r tokenizer tokenizer2
    printf ' ' >>tokenizer2/encoder.json
    expect 65 "$shard" show texts.1 0 --tokenizer tokenizer2
    said "another tokenizer"
}

a_full_disk_leaves_nothing_half_written() {
    mkdir full
    if ! unshare -Urm mount -t tmpfs none full 2>/dev/null; then
        printf 'skip %s: no private mounts here\n' "$current"
        return
    fi
    # One process: the launcher's own files would fill the disk too.
    cat >inside <<'END'
mount -t tmpfs -o size=2m none full && "$@" >out 2>&1
echo $? >code
cp -r full/. full.left
END
    mkdir full.left
    unshare -Urm bash inside "$shard" --input lines.jsonl --output full --tokenizer tokenizer --shard-bytes 200000 \
        data.suffixes=txt,rst data.valid_documents=100
    [[ $(cat code) == 74 ]] || fail "exit $(cat code), expected 74: $(cat out)"
    said "No space left on device"
    no_traces full.left
    expect 0 build 2 lines.jsonl full.left # with room it goes on
    said " of them kept"
    same lines.jsonl.1 full.left
}

two_jobs_do_not_share_a_folder() {
    local pid
    GIDD_FAULT=sleep:rank=0,point=shard_before_commit "$shard" --input texts --output shared --tokenizer tokenizer \
        data.valid_documents=100 >/dev/null 2>&1 &
    pid=$!
    while [[ ! -e shared/shard-00000.h5.tmp ]] && kill -0 "$pid"; do sleep 0.05; done
    expect 73 build 2 texts shared
    said "another shard job"
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    expect 0 build 2 texts shared # its lock went with it
    same texts.1 shared
}

parts_of_the_corpus() {
    expect 0 build 2 lines.jsonl some --limit 500
    said "500 documents"
    expect 0 build 1 owt.tar.xz some2 --limit 500
    said "500 documents"
    expect 0 "$shard" show some 499 --tokenizer tokenizer
    cp out first
    expect 0 "$shard" show some2 499 --tokenizer tokenizer
    cmp -s out first || fail "the limit cuts elsewhere"
    expect 0 build 2 texts dry --dry-run
    said "1500 files"
    [[ ! -e dry ]] || fail "--dry-run wrote something"
}

"$make_corpus" . || exit 1
shift 3
if [[ $# == 0 ]]; then
    set -- bytes_do_not_depend_on_ranks bytes_do_not_depend_on_threads documents_come_back looks_at_a_data_set \
        a_killed_job_goes_on changed_input_is_noticed damage_is_named damaged_input_is_skipped_and_counted \
        a_huge_line_is_skipped_in_bounded_memory bad_input_ends_all_ranks_alike \
        a_full_disk_leaves_nothing_half_written two_jobs_do_not_share_a_folder parts_of_the_corpus \
        memory_does_not_grow_with_the_input
fi
for current in "$@"; do
    before=$failures started=$SECONDS
    $current
    [[ $failures == "$before" ]] && printf 'ok   %s (%d s)\n' "$current" $((SECONDS - started))
done
exit $((failures > 0))
