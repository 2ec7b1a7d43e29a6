#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# layers.sh ROOT: a room of src/ includes only the headers of the rooms below it. This table is the architecture.
# A main.c is a program, whatever its room: it stands with the tools.
# shellcheck source=tests/lint/lint.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint.sh"

declare -A below=(
    [base]=""
    [tokenizer]="base"
    [diffusion]="base"
    [kernels]="base diffusion"
    [comm]="base"
    [io]="base tokenizer diffusion comm"
    [model]="base diffusion kernels"
    [coordinator]="base tokenizer diffusion kernels comm io model"
    [worker]="base tokenizer diffusion kernels comm io model coordinator"
    [tools]="base tokenizer diffusion kernels comm io model coordinator worker"
)

while IFS= read -r path; do
    room=${path#src/}
    room=${room%%/*}
    if [[ -z "${below[$room]+known}" ]]; then
        finding "$path:1: the room $room is not in the table of tests/lint/layers.sh"
        continue
    fi
    [[ "${path##*/}" != main.c ]] || room=tools
    while IFS=: read -r line include; do
        other=$(sed -E 's/^ *# *include *"([^"]*)".*/\1/' <<<"$include")
        if [[ "$other" != */* ]]; then
            finding "$path:$line: \"$other\": write the room too, \"$room/$other\""
        elif [[ "$other" == ../* ]]; then
            finding "$path:$line: \"$other\": paths start at src/"
        elif [[ " $room ${below[$room]} " != *" ${other%%/*} "* ]]; then
            finding "$path:$line: $room may not include $other (it knows: ${below[$room]:-nothing})"
        fi
    done < <(grep -nE '^ *# *include *"' "$path" || true)
done < <(files ./src -- -name '*.[ch]' -o -name '*.inl' -o -name '*.cu' -o -name '*.cuh')
finish
