#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bash tests/run.sh [--full] [words for ctest...]
#
# Installs what the tests need, builds everything in build/test and runs every test that this machine can run.
# Prints the counts of the fault tests, what was skipped and why, minutes by label, and ends in ctest's summary. Without --full the tests
# labelled "full" (long ones) are left out. Further words go to ctest: bash tests/run.sh -L unit -R bpe
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=hpc/lib/common.sh
. hpc/lib/common.sh

readonly build=build/test

build_tests() {
    local -a generator=() cuda
    mapfile -t cuda < <(cuda_options)
    [[ -f "$build/CMakeCache.txt" ]] || generator=(-G Ninja)
    cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGIDD_TESTS=ON "${cuda[@]}" \
        >"$build.configure.log" 2>&1 || {
        cat "$build.configure.log" >&2
        return 1
    }
    cmake --build "$build" --parallel "$(core_count)"
}

# Tests on real text need GPT-2's files; without them they are skipped and say so.
find_tokenizer() {
    if bash hpc/fetch-tokenizer.sh data/tokenizer; then
        GIDD_TOKENIZER_DIR=$PWD/data/tokenizer
        export GIDD_TOKENIZER_DIR
    else
        unset GIDD_TOKENIZER_DIR
        printf 'tests: no tokenizer files: the tests that need them are skipped\n'
    fi
}

# Passes ctest's lines on until its summary begins; the summary goes to a file.
hold_back_summary() {
    awk -v file="$1" '/^[0-9]+% tests passed/ { held = 1 } held { print > file; next } { print; fflush() }'
}

# list_skipped SUMMARY LOG: each skipped test and the last line it printed, which is its reason.
list_skipped() {
    awk 'FNR == NR { if (/\((Skipped|Not Run|Disabled)\)$/) skipped[$3] = 1; next }
         /^[0-9]+\/[0-9]+ Test: / { name = $3; reason = "no reason given" }
         /^<end of output>/ { inside = 0; if (name in skipped) print name ": " reason }
         inside && NF { reason = $0 }
         /^-+$/ && output { inside = 1 }
         { output = /^Output:$/ }' "$1" "$2"
}

# Each count of faults and what became of them ("kills: 10 cases, 11 faults injected, 10 survived, ..."), by test.
fault_counts() {
    awk '/^[0-9]+\/[0-9]+ Test: / { name = $3 }
         / (survived|bit-exact|noticed|read back|difference)/ && /^[^{]*[0-9]/ { printf "    %-30s %s\n", name, $0 }' "$1"
}

minutes_by_label() {
    awk '/sec\*proc/ { printf "    %-12s %6.2f minutes %s\n", $1, $3 / 60, substr($0, index($0, "(")) }' "$1"
}

main() {
    local -a words=(-LE '^full$')
    local code=0 summary="$build/summary.txt" log="$build/Testing/Temporary/LastTest.log" began
    if [[ "${1:-}" = --full ]]; then
        words=()
        shift
    fi
    bash hpc/setup.sh --tests
    mkdir -p build
    began=$SECONDS
    build_tests
    printf 'tests: built in %s\n' "$(minutes_seconds $((SECONDS - began)))"
    find_tokenizer
    use_open_mpi_here
    began=$SECONDS
    ctest --test-dir "$build" -j2 --output-on-failure --no-tests=error "${words[@]}" "$@" 2>&1 |
        hold_back_summary "$summary" || code=$?
    fault_counts "$log" >"$build/faults.txt"
    if [[ -s "$build/faults.txt" ]]; then
        printf '\nfaults, by test:\n'
        cat "$build/faults.txt"
    fi
    list_skipped "$summary" "$log" >"$build/skipped.txt"
    if [[ -s "$build/skipped.txt" ]]; then
        printf '\nskipped on this machine:\n'
        sed 's/^/    /' "$build/skipped.txt"
    fi
    printf '\ntested in %s, by label:\n' "$(minutes_seconds $((SECONDS - began)))"
    minutes_by_label "$summary"
    [[ ${#words[@]} -eq 0 ]] || printf 'the tests labelled "full" were left out: bash tests/run.sh --full\n'
    printf '\n'
    cat "$summary"
    return "$code"
}

main "$@"
