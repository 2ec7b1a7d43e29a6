#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# help.sh ROOT BIN_FOLDER PROGRAM...: --help of each program lists every configuration key of the one table, and
# exits with 0.
# shellcheck source=tests/lint/lint.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint.sh"
bin=$2
shift 2

keys() {
    sed -nE 's/^ *X\(([a-z_]+), ([a-z0-9_]+),.*/\1.\2/p' src/base/config_keys.inl
}

for program in "$@"; do
    text=$("$bin/$program" --help 2>&1) || {
        finding "$program --help: exit code $?"
        continue
    }
    while IFS= read -r key; do
        grep -qF -- "$key" <<<"$text" || finding "$program --help: does not list $key"
    done < <(keys)
done
[[ $(keys | wc -l) -gt 40 ]] || finding "src/base/config_keys.inl: only $(keys | wc -l) keys found; is the table's form still X(section, key, ...)?"
finish
