#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fault_points.sh ROOT: the places at which faults can be injected are those of src/base/fault_points.inl, no more
# and no fewer.
# shellcheck source=tests/lint/lint.sh
. "$(dirname "${BASH_SOURCE[0]}")/lint.sh"

listed=$(sed -nE 's/^ *X\(([a-z_]+), .*/\1/p' src/base/fault_points.inl | sort)
called=$(files src -- -name '*.c' -o -name '*.h' | grep -v '^src/base/fault' | tr '\n' '\0' |
    xargs -0 grep -hoE 'gidd_fault_(point|point_of|nan|flip)\([^)]*"[a-z_]+"' | sed -E 's/.*"([a-z_]+)"/\1/' | sort -u)
report_lines "twice in src/base/fault_points.inl: " < <(uniq -d <<<"$listed")
report_lines "a point that src/base/fault_points.inl does not list: " < <(comm -13 <(sort -u <<<"$listed") - <<<"$called")
report_lines "listed in src/base/fault_points.inl, but nowhere in src: " < <(comm -23 <(sort -u <<<"$listed") - <<<"$called")
finish
