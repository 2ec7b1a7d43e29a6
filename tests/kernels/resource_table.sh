#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# resource_table.sh FOLDER: the registers, shared memory and spills of every CUDA kernel, from the *.ptxas files that
# the build leaves beside its objects. Exits with 1 if a hot kernel spills registers or no kernel is found.
set -euo pipefail
folder=${1:?usage: $0 FOLDER}

# Not hot: the attention of fp32 and of odd head widths, a few rows of 128 numbers, and the losses of rows that do
# not end with a piece of 16 bytes (BY_ELEMENT), which no real vocabulary has: it is rounded up to 128.
readonly cold='attention_.*_fma|rows_back_kernel|loss_.*access_kind1'

mapfile -t tables < <(find "$folder" -name '*.cu.o.ptxas' | sort)
if ((${#tables[@]} == 0)); then
    printf 'no *.ptxas file under %s\n' "$folder" >&2
    exit 1
fi

printf '%-8s %9s %7s %6s  %s\n' arch registers shared spills kernel
awk -v cold="$cold" '
    /Compiling entry function/ { split($0, quoted, "\047"); kernel = quoted[2]; arch = quoted[4] }
    match($0, /[0-9]+ bytes spill stores/) { spills = substr($0, RSTART) + 0 }
    match($0, /[0-9]+ bytes spill loads/) { spills += substr($0, RSTART) + 0 }
    /Used [0-9]+ registers/ && kernel != "" {
        match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
        shared = 0; if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART) + 0
        printf "%-8s %9d %7d %6d  %s\n", arch, registers, shared, spills, kernel
        name = kernel; kernel = ""; found++; spilling += spills > 0 && name !~ cold
    }
    END {
        printf "%d kernels, %d hot ones spill registers\n", found, spilling
        exit found == 0 || spilling > 0
    }' "${tables[@]}" | { if command -v c++filt >/dev/null; then c++filt; else cat; fi; }
