#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bash tests/fuzz/run.sh SECONDS [TARGET...]
#
# Builds the targets with clang's libFuzzer, AddressSanitizer and UBSan in build/fuzz and runs each for SECONDS, one
# after another, on one core. New inputs collect in build/fuzz/found/TARGET; a crash ends the run with exit code 1,
# its input lies in build/fuzz/crash: put it into tests/fuzz/corpus/TARGET together with the repair.
# Needs clang with its fuzzer library (Debian: clang libclang-rt-dev); exit code 77 where that is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=hpc/lib/common.sh
. hpc/lib/common.sh

readonly out=build/fuzz
readonly flags=(-std=c17 -O1 -g -D_GNU_SOURCE -fno-omit-frame-pointer -fno-sanitize-recover=all)
readonly sanitizers=address,undefined

# Of these the library is made; rooms with devices and models are not under test.
sources() {
    printf '%s\n' src/base/*.c src/comm/*.c src/diffusion/*.c src/tokenizer/*.c src/io/*.c \
        src/coordinator/*.c tests/fuzz/scratch.c tests/tokenizer/bpe_reference.c | grep -v '/main\.c$'
}

compile_flags() {
    pkg-config --cflags yaml-0.1 jansson libarchive libxxhash zlib hdf5-serial ompi-c 2>/dev/null ||
        die 77 "pkg-config does not know yaml-0.1, jansson, libarchive, libxxhash, zlib, hdf5-serial and ompi-c"
}

link_flags() {
    pkg-config --libs yaml-0.1 jansson libarchive libxxhash zlib hdf5-serial ompi-c
}

# The instruction sets of the encoder's variants, as src/tokenizer/CMakeLists.txt has them.
file_flags() {
    case "$1" in
        *_avx2.c) printf ' %s' -mavx2 -mbmi -mbmi2 -mpopcnt ;;
        *_avx512.c) printf ' %s' -mavx512f -mavx512bw -mavx512vl -mavx512vbmi -mavx512vbmi2 -mbmi -mbmi2 -mpopcnt ;;
    esac
}

build_library() {
    local source object
    local -a includes compiler=(clang)
    ! command -v ccache >/dev/null || compiler=(ccache clang)
    read -ra includes < <(compile_flags)
    mkdir -p "$out/obj" "$out/generated/base"
    sed -e 's/@[A-Z_]*ID@/fuzz/' -e 's/@[A-Z_]*VERSION@/0/' src/base/version.h.in >"$out/generated/base/version.h.new"
    cmp -s "$out/generated/base/version.h.new" "$out/generated/base/version.h" ||
        mv "$out/generated/base/version.h.new" "$out/generated/base/version.h"
    while read -r source; do
        object=$out/obj/${source//\//_}.o
        printf '%s' "$source -o $object"
        file_flags "$source"
        printf '\n'
    done < <(sources) |
        xargs -P "$(core_count)" -L 1 "${compiler[@]}" -c "${flags[@]}" -fsanitize=fuzzer-no-link,$sanitizers \
            -Isrc -Itests "-I$out/generated" "${includes[@]}"
    rm -f "$out/libfuzzed.a"
    ar rcs "$out/libfuzzed.a" "$out"/obj/*.o
}

build_target() {
    local -a includes libraries
    read -ra includes < <(compile_flags)
    read -ra libraries < <(link_flags)
    clang "${flags[@]}" -fsanitize=fuzzer,$sanitizers -Isrc -Itests "-I$out/generated" "${includes[@]}" \
        "tests/fuzz/fuzz_$1.c" "$out/libfuzzed.a" "${libraries[@]}" -lm -lpthread -o "$out/fuzz_$1"
}

run_target() {
    local target=$1 seconds=$2 leaks=1 tmp
    local -a more=()
    mkdir -p "$out/found/$target" "$out/crash"
    tmp=$(mktemp -d "$([[ -w /dev/shm ]] && echo /dev/shm || echo "$PWD/$out")/gidd-fuzz-run-XXXXXX") # files of an input: 4 MiB each with state
    [[ ! -e tests/fuzz/$target.dict ]] || more+=("-dict=tests/fuzz/$target.dict")
    [[ "$target" != state ]] || leaks=0 # MPI's
    [[ "$target" != bpe_files ]] || more+=(-max_len=65536)
    if ! TMPDIR=$tmp ASAN_OPTIONS="detect_leaks=$leaks" "$out/fuzz_$target" "-max_total_time=$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$out/crash/$target-" -print_final_stats=1 "${more[@]}" \
        "$out/found/$target" "tests/fuzz/corpus/$target" >"$out/$target.log" 2>&1; then
        tail -n 60 "$out/$target.log"
        rm -rf "$tmp"
        die 1 "$target: a crash, its input is in $out/crash"
    fi
    awk -v target="$target" -v seconds="$seconds" '/stat::number_of_executed_units/ { runs = $2 }
        match($0, /cov: [0-9]+/) { coverage = substr($0, RSTART + 5, RLENGTH - 5) }
        END { printf "%-10s %6d s %10d runs, coverage %d, no crash\n", target, seconds, runs, coverage }' "$out/$target.log"
    rm -rf "$tmp"
}

main() {
    local seconds=${1:-} target
    [[ "$seconds" =~ ^[0-9]+$ ]] || die 64 "usage: bash tests/fuzz/run.sh SECONDS [TARGET...]"
    shift
    local -a targets=("$@")
    if [[ ${#targets[@]} -eq 0 ]]; then
        mapfile -t targets < <(printf '%s\n' tests/fuzz/fuzz_*.c | sed 's|.*/fuzz_||; s|\.c$||')
    fi
    printf 'int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { return d == 0 && n != 0; }\n' |
        clang -x c -fsanitize=fuzzer,$sanitizers - -o /dev/null 2>/dev/null ||
        die 77 "clang's libFuzzer is missing (Debian: clang libclang-rt-dev)"
    mkdir -p "$out"
    build_library
    for target in "${targets[@]}"; do
        build_target "$target"
        run_target "$target" "$seconds"
    done
}

main "$@"
