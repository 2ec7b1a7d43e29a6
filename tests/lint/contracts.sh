#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# contracts.sh ROOT: each public prototype of a header stands under a comment that says Local or Collective. One
# comment may serve the prototypes that follow it, and a comment at the head of the file all of them.
# shellcheck source=tests/lint/lint.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint.sh"

while IFS= read -r path; do
    report_lines "" < <(awk -v path="$path" '
        function says(text) { return text ~ /(Local|Collective)/ }
        /^\/\*/ { comment = ""; reading = 1 }
        reading { comment = comment " " $0; if (/\*\//) { reading = 0; if (++comments == 1) head = says(comment) }; next }
        /^[A-Za-z_].*[ *]gidd_[a-z0-9_]+\(/ && !/^(static|typedef|#)/ {
            if (!head && !says(comment)) {
                name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name)
                printf "%s:%d: %s: its comment says neither Local nor Collective\n", path, FNR, name
            }
        }' "$path")
done < <(files ./src -- -name '*.h')
finish
