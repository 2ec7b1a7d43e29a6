#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# bash hpc/fetch-corpus.sh [FOLDER]
#
# Puts a real English corpus into FOLDER (default data/demo/corpus): the kernel's documentation as Debian and Ubuntu
# package it, about 3200 texts and 24 MB in linux-doc-6.1 (or the newest linux-doc there is). The package is only
# downloaded and unpacked, not installed: minimal systems drop /usr/share/doc on installation. Exit 66: not found.
set -euo pipefail
# shellcheck source=hpc/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

# The package to take, among those apt knows.
corpus_package() {
    local names
    names=$(apt-cache pkgnames linux-doc 2>/dev/null | grep -E '^linux-doc(-[0-9.]+)?$' | sort -V)
    if grep -qx 'linux-doc-6.1' <<<"$names"; then
        printf 'linux-doc-6.1\n'
    else
        tail -n 1 <<<"$names"
    fi
}

# unpack PACKAGE FOLDER: the texts alone, without their copies in html/ and _sources/.
unpack() {
    dpkg-deb -x "$1" "$2"
    rm -rf "$2"/usr/share/doc/*/html
    find "$2" -name _sources -prune -exec rm -rf {} +
    find "$2" ! -type d ! -name '*.rst' ! -name '*.rst.gz' -delete
    find "$2" -mindepth 1 -type d -empty -delete
}

# shuffle FOLDER: names every text by the digest of its contents, flat in FOLDER. Documents are taken in the order of
# their paths and the last ones are the validation split: in the package's order that would be a handful of subjects
# (virt ... xtensa) that training never saw; in this order it is a sample of all.
shuffle() {
    (cd "$1" && find . -type f -exec md5sum {} + | perl -lne '
        /^(\S+)\s+\*?(.*\/)?([^\/]+)$/ or die "md5sum said: $_";
        my ($digest, $path, $name) = ($1, defined $2 ? $2 : "", $3);
        rename("$path$name", "$digest-$name") or die "cannot rename $path$name: $!\n"')
    find "$1" -mindepth 1 -type d -empty -delete
}

main() {
    local target=${1:-data/demo/corpus} package staging top
    if [[ -d "$target" ]]; then
        printf 'corpus: %s is there: %d files\n' "$target" "$(find "$target" -type f | wc -l)"
        return 0
    fi
    command -v apt-get >/dev/null || die 66 "no apt here: give a folder or an archive of texts instead"
    package=$(corpus_package)
    if [[ -z "$package" ]]; then
        apt_get update
        package=$(corpus_package)
    fi
    [[ -n "$package" ]] || die 66 "apt knows no linux-doc package: give a folder or an archive of texts instead"
    mkdir -p "$(dirname "$target")"
    staging=$(mktemp -d "$(dirname "$target")/.corpus.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$staging'" EXIT
    mkdir "$staging/package" "$staging/texts"
    printf 'corpus: fetching %s\n' "$package"
    (cd "$staging/package" && apt-get -q -o APT::Sandbox::User=root download "$package")
    unpack "$staging"/package/*.deb "$staging/texts"
    top=$(find "$staging/texts" -type d -name Documentation -print -quit)
    [[ -n "$top" ]] || die 66 "$package holds no Documentation/**/*.rst: give a folder or an archive of texts instead"
    shuffle "$top"
    mv -- "$top" "$target"
    printf 'corpus: %s: %d texts of %s\n' "$target" "$(find "$target" -type f | wc -l)" "$package"
}

main "$@"
