#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# test_bundle.sh BUILD_DIR: the bundle is small enough to send, and runs from another place without any of the libraries
# that it was built with: in a root file system with glibc, libstdc++ and a few tools (with root and namespaces), else
# with an empty environment.
set -euo pipefail
build=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/gidd-bundle-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT

bash "$here/make_bundle.sh" --no-cuda --build "$build" --output "$work/made"
bytes=$(stat -c %s "$work/made.tar.xz")
((bytes < 60000000)) || { printf 'FAIL: the bundle has %d bytes\n' "$bytes" >&2 && exit 1; }
mkdir -p "$work/root/opt"
tar -C "$work/root/opt" -xf "$work/made.tar.xz"
mv "$work/root/opt/made" "$work/root/opt/moved"
rm -rf "$work/made"
arguments=(/opt/moved/run.sh --device emu --short --report /tmp/report kernels parity repeat recompute)

fill_root() {
    local name root=$work/root
    mkdir -p "$root"/{bin,lib64,lib/x86_64-linux-gnu,usr,proc,dev,tmp,etc,sys}
    ln -s /bin "$root/usr/bin"
    cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
    for name in bash sh cat tail head tee sort uniq cut cmp awk date mktemp rm timeout uname grep sed touch dirname env tr mkdir sleep; do
        cp -L "$(command -v "$name")" "$root/bin/"
        ldd "$(command -v "$name")" | awk '$3 ~ /^\// { print $3 }' >>"$work/needed"
    done
    for name in libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1 libresolv.so.2 libutil.so.1 libnss_files.so.2 \
        libstdc++.so.6 libgcc_s.so.1; do
        printf '/lib/x86_64-linux-gnu/%s\n' "$name" >>"$work/needed"
    done
    sort -u "$work/needed" | while read -r name; do
        [[ ! -e "$name" ]] || cp -Ln "$name" "$root/lib/x86_64-linux-gnu/"
    done
    printf 'root:x:0:0:root:/:/bin/sh\n' >"$root/etc/passwd"
    printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
}

if [[ $(id -u) -eq 0 ]] && unshare -m true 2>/dev/null; then
    fill_root
    # shellcheck disable=SC2016 # the inner shell's variables
    unshare -m bash -c 'for name in proc dev sys; do mount --rbind "/$name" "$0/$name"; done
        exec chroot "$0" /bin/env -i PATH=/bin OMP_NUM_THREADS=1 "$@"' "$work/root" "${arguments[@]}"
else
    env -i PATH=/usr/bin:/bin OMP_NUM_THREADS=1 "$work/root${arguments[0]}" "${arguments[@]:1:3}" --report "$work/report" \
        "${arguments[@]:6}"
fi
printf 'ok: %d bytes\n' "$bytes"
