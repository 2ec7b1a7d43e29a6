#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# vendor_fence.sh ROOT: MPI, NCCL and UCX are named only in src/comm, HDF5 only in src/io, CUDA and cuBLAS only in
# *_cuda.{c,cu,h} and .cuh; in tests only where their own programs need them. Comments may name anything.
# shellcheck source=tests/lint/lint.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint.sh"

# fence NAME PATTERN ALLOWED_PATHS: both extended regular expressions. Comments and texts do not count, nor do our
# own MPI_TEST_ macros.
fence() {
    local path
    while IFS= read -r path; do
        report_lines "$1 outside its fence: " < <(
            awk -v path="$path" -v pattern="$2" '
                { line = $0 }
                inside { if (!sub(/^.*\*\//, "", line)) next; inside = 0 }
                { gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", line); sub(/\/\/.*/, "", line); gsub(/MPI_TEST_/, "", line) }
                sub(/\/\*.*/, "", line) { inside = 1 }
                { gsub(/"([^"\\]|\\.)*"/, line ~ /^ *# *include/ ? "&" : "\"\"", line) }
                line ~ pattern { printf "%s:%d: %s\n", path, FNR, $0 }' "$path")
    done < <(files ./src ./tests -- -name '*.[ch]' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh' |
        tr '\n' '\0' | xargs -0 -r grep -lE "$2" | grep -vE "$3" || true)
}

fence MPI '(^|[^A-Za-z0-9_])MPI_[A-Z]|[<"]mpi\.h[>"]' '^src/comm/|^tests/(mpi|support|resilience|bench)/'
fence NCCL '(^|[^A-Za-z0-9_])nccl[A-Z]|[<"]nccl' '^src/comm/|^tests/support/fake_nccl\.c'
fence UCX '(^|[^A-Za-z0-9_])(ucp|ucs)_[a-z]|[<"]uc[ps]/' '^src/comm/'
fence HDF5 '(^|[^A-Za-z0-9_])H5[A-Z][A-Za-z]*_?[a-z]+[A-Za-z0-9_]* *\(|[<"]hdf5' '^src/io/|^tests/(io|parity|support|fuzz)/'
fence CUDA '(^|[^A-Za-z0-9_])cu(da|blas|blasLt)[A-Z]|[<"](cuda|cublas)' '(_cuda\.(c|cu|h)|\.cuh)$'
finish
