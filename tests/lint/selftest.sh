#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# selftest.sh LINT_FOLDER: each lint passes on a small good tree and fails, naming the file, once that tree is
# broken in the way the lint is there for.
set -euo pipefail

lints=$(cd "$1" && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
spdx='/* SPDX-License-Identifier: Apache-2.0 */'
failures=0

grow_good_tree() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree/src/base" "$tree/src/comm" "$tree/src/model" "$tree/tests/mpi" "$tree/hpc" "$tree/build"
    printf '%s\n#include <stdint.h>\n/* Sum of two numbers. Local. */\nint64_t gidd_sum(int64_t a, int64_t b);\n' "$spdx" >"$tree/src/base/sum.h"
    printf '%s\n#include "base/sum.h"\n/* MPI_Send is only talked about. */\nint x; // MPI_Send\n' "$spdx" >"$tree/src/model/net.c"
    printf '%s\n#include <mpi.h>\n#include "base/sum.h"\nint y = MPI_SUCCESS;\n' "$spdx" >"$tree/src/comm/link.c"
    # shellcheck disable=SC2016 # the script's own $1
    printf '#!/usr/bin/env bash\n# SPDX-License-Identifier: Apache-2.0\nprintf "%%s\\n" "$1"\n' >"$tree/hpc/go.sh"
    printf '%s\n    X(here, STEP, ALL, "a place")\n' "$spdx" >"$tree/src/base/fault_points.inl"
    printf 'void f(void) { gidd_fault_point("here"); }\n' >>"$tree/src/model/net.c"
    printf 'int stale = MPI_SUCCESS;\n' >"$tree/build/stale.c"
}

# expect_pass LINT; expect_fail LINT WORD
expect_pass() {
    local text
    if ! text=$(bash "$lints/$1.sh" "$tree" 2>&1); then
        printf '%s: fails on the good tree:\n%s\n' "$1" "$text"
        failures=$((failures + 1))
    fi
}

expect_fail() {
    local text
    if text=$(bash "$lints/$1.sh" "$tree" 2>&1); then
        printf '%s: does not see: %s\n' "$1" "$3"
        failures=$((failures + 1))
    elif ! grep -qF -- "$2" <<<"$text"; then
        printf '%s: does not name %s:\n%s\n' "$1" "$2" "$text"
        failures=$((failures + 1))
    fi
    grow_good_tree
}

grow_good_tree
for lint in vendor_fence layers headers_alone contracts names shell fault_points; do
    expect_pass "$lint"
done

printf 'int z = MPI_SUCCESS;\n' >>"$tree/src/model/net.c"
expect_fail vendor_fence src/model/net.c:6 "MPI outside comm"
printf 'void *p = H5Fopen(0);\n' >>"$tree/src/model/net.c"
expect_fail vendor_fence src/model/net.c:6 "HDF5 outside io"
printf 'int q = cudaMalloc(0);\n' >>"$tree/src/model/net.c"
expect_fail vendor_fence src/model/net.c:6 "CUDA in a host file"
printf 'int r = ncclAllReduce(0);\n' >>"$tree/src/base/sum.h"
expect_fail vendor_fence src/base/sum.h:5 "NCCL outside comm"

printf '#include "model/net.h"\n' >>"$tree/src/base/sum.h"
expect_fail layers src/base/sum.h:5 "base including model"
printf '#include "sum.h"\n' >>"$tree/src/model/net.c"
expect_fail layers src/model/net.c:6 "an include without its room"
mkdir "$tree/src/attic" && printf '%s\n' "$spdx" >"$tree/src/attic/a.c"
expect_fail layers src/attic/a.c:1 "an unknown room"

printf 'size_t gidd_width(int32_t x);\n' >"$tree/src/base/width.h"
expect_fail headers_alone src/base/width.h "a header that leans on another"
printf '%s\n#ifndef A\n#define A\nstruct new { int class; };\n#endif\n' "$spdx" >"$tree/src/base/keyword.h"
expect_fail headers_alone src/base/keyword.h "a base header that is not C++"

printf '/* Difference. */\nint gidd_difference(int a, int b);\n' >>"$tree/src/base/sum.h"
expect_fail contracts src/base/sum.h:6 "a prototype without Local or Collective"

printf 'int v;\n' >"$tree/src/model/bare.c"
expect_fail names src/model/bare.c:1 "a source without licence line"
cp "$tree/src/base/sum.h" "$tree/src/model/sum.h"
expect_fail names "src/base/sum.h and src/model/sum.h" "one basename twice"
printf '# /%s/somebody/data\n' home >>"$tree/hpc/go.sh"
expect_fail names hpc/go.sh:4 "the path of somebody's folder"

printf 'void g(void) { gidd_fault_point_of(1, "there"); }\n' >>"$tree/src/model/net.c"
expect_fail fault_points there "a point that is not listed"
printf '    X(nowhere, STEP, ALL, "no place")\n' >>"$tree/src/base/fault_points.inl"
expect_fail fault_points nowhere "a listed point that is nowhere"

if command -v shellcheck >/dev/null; then
    # shellcheck disable=SC2016 # what shellcheck is to find
    printf 'echo $1\n' >>"$tree/hpc/go.sh"
    expect_fail shell hpc/go.sh:4 "an unquoted word"
fi

printf '%d failures\n' "$failures"
[[ "$failures" -eq 0 ]]
