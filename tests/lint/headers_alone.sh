#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# headers_alone.sh ROOT [COMPILER_WORDS...]: every header compiles by itself, twice in a row, as C17; those that
# CUDA sources may include (kernels, diffusion, base but for its configuration) also as C++17. Compiler words: the
# include folders of the third-party libraries and of generated headers.
# shellcheck source=tests/lint/lint.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint.sh"
shift

compile() {
    local compiler=$1 header=$2
    shift 2
    if ! printf '#include "%s"\n#include "%s"\n' "$header" "$header" |
        "$compiler" "$@" -D_GNU_SOURCE -Isrc -fopenmp -march=native -Wall -Wextra -Werror -fsyntax-only - 2>"$messages"; then
        finding "src/$header: does not compile alone with $compiler $1: $(grep -m 1 -E 'error|warning' "$messages")"
    fi
}

messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
while IFS= read -r path; do
    header=${path#src/}
    case "$header" in
        *_cuda.h) continue ;;
    esac
    compile "${CC:-gcc}" "$header" -std=c17 -x c "$@"
    case "$header" in
        base/config.h | base/cli.h) ;;
        base/* | diffusion/* | kernels/*) compile "${CXX:-g++}" "$header" -std=c++17 -x c++ "$@" ;;
    esac
done < <(files ./src -- -name '*.h')
finish
