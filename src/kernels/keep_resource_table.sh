#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# keep_resource_table.sh NVCC ARGUMENTS...: runs the compiler; what ptxas says of each kernel goes to
# <object>.ptxas, everything else to standard error.
set -uo pipefail
object=
previous=
for argument in "$@"; do
    [[ "$previous" != -o ]] || object=$argument
    previous=$argument
done
if [[ -z "$object" ]]; then
    exec "$@"
fi
"$@" 2>"$object.messages"
code=$?
ptxas='^ptxas info|^ +[0-9]+ bytes stack frame|^ +[0-9]+ bytes spill'
grep -E "$ptxas" "$object.messages" >"$object.ptxas"
grep -vE "$ptxas" "$object.messages" >&2
rm -f "$object.messages"
exit "$code"
