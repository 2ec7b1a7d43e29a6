#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make_bundle.sh [--arch LIST] [--build FOLDER] [--output FOLDER] [--no-cuda]
#
# A folder that runs tests/gpu/run.sh on a machine with a GPU and its driver, glibc and libstdc++, and nothing else: no
# MPI, HDF5, oneDNN, Criterion or compiler. It holds the programs, the kernel tests, the vectors of an independent
# implementation, a small data set, and every shared library that these need, NCCL and cuBLASLt of the CUDA toolkit
# excepted, which are loaded from there (CUDA_HOME, /usr/local/cuda).
#
#   --arch     GPU architectures as CMake writes them (default 90)
#   --build    a build with tests; made with the CUDA device where it is not there (default build/gpu)
#   --output   the folder (default build/gpu-bundle); FOLDER.tar.xz beside it is what to copy
#   --no-cuda  without the CUDA device: what can be tried on a machine without its compiler
#
# Exit: 0 made, 64 usage, others as the failing command.
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
architectures=90 build=$source/build/gpu output=$source/build/gpu-bundle cuda=ON
while [[ $# -gt 0 ]]; do
    case $1 in
        --arch) architectures=${2:?} && shift ;;
        --build) build=$(mkdir -p "${2:?}" && cd "$2" && pwd) && shift ;;
        --output) output=$(mkdir -p "${2:?}" && cd "$2" && pwd) && shift ;;
        --no-cuda) cuda=OFF ;;
        *) sed -n '4,17s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 64 ;;
    esac
    shift
done

mapfile -t tests <"$source/tests/kernels/device_tests.txt"
programs=(gidd-worker gidd-bench gidd-shard gidd-parity)
targets=("${programs[@]}" "${tests[@]/#/test_}" device_present)

# Instructions that the other machine's processor has: x86-64-v3 is every one of the last ten years.
build_programs() {
    if [[ ! -e "$build/build.ninja" ]]; then
        cmake -S "$source" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DGIDD_TESTS=ON -DGIDD_CUDA=$cuda \
            -DCMAKE_CUDA_ARCHITECTURES="$architectures" -DGIDD_ARCH_FLAGS=-march=x86-64-v3 >"$build.configure.log"
    fi
    cmake --build "$build" --target "${targets[@]}"
}

# What ldd finds, less what every Linux has and what belongs to the GPU's driver and toolkit.
copy_libraries() {
    local name path
    find "$output" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null |
        awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u | while read -r name path; do
        case $name in
            ld-linux* | libc.so* | libm.so* | libdl.so* | libpthread.so* | librt.so* | libresolv.so* | libutil.so* | \
                libstdc++* | libgcc_s* | libcuda* | libcublas* | libnccl* | libnv*) ;;
            *) cp -nL "$path" "$output/lib/$name" ;;
        esac
    done
}

# Open MPI as far as one machine needs it: its launcher, plugins without fabrics and resource managers, help texts.
copy_open_mpi() {
    local libraries plugins plugin
    libraries=$(dirname "$(ldd "$build/bin/gidd-worker" | awk '$1 ~ /^libmpi\.so/ { print $3 }')")
    plugins=$libraries/openmpi/lib/openmpi3
    mkdir -p "$output/lib/x86_64-linux-gnu/openmpi/lib/openmpi3" "$output/pmix2/lib"
    cp -L "$(command -v orted)" "$(readlink -f "$(command -v mpirun)")" "$output/bin/"
    for plugin in "$plugins"/mca_*.so; do
        case $(basename "$plugin") in
            *ucx* | *uct* | *ofi* | *openib* | *psm* | *flux* | *jsm* | *monitoring* | *_spml_* | *_scoll_* | *_memheap_* | \
                *_sshmem_* | *_atomic_* | mca_vprotocol* | mca_mtl* | mca_crs* | mca_pml_v.so) continue ;;
        esac
        if ! ldd "$plugin" | grep -qE 'libibverbs|libfabric|libpsm|libucp|libnuma_|not found'; then
            cp -L "$plugin" "$output/lib/x86_64-linux-gnu/openmpi/lib/openmpi3/"
        fi
    done
    for plugin in "$libraries/pmix2/lib/pmix" "$libraries/pmix"; do
        [[ ! -d "$plugin" ]] || cp -rL "$plugin" "$output/pmix2/lib/"
    done
    [[ ! -d "$libraries/pmix2/share" ]] || cp -rL "$libraries/pmix2/share" "$output/pmix2/"
    cp -rL /usr/share/openmpi "$output/share/openmpi"
    cp -rL /etc/openmpi "$output/etc/openmpi"
}

write_environment() {
    cat >"$output/env.sh" <<'ENV'
# SPDX-License-Identifier: Apache-2.0
# To be sourced; BUNDLE is this folder.
export OPAL_PREFIX=$BUNDLE OPAL_SYSCONFDIR=$BUNDLE/etc/openmpi PMIX_INSTALL_PREFIX=$BUNDLE/pmix2
export PMIX_MCA_mca_base_component_path=$BUNDLE/pmix2/lib/pmix HWLOC_PLUGINS_PATH=$BUNDLE/none
export PATH=$BUNDLE/bin:$PATH
export LD_LIBRARY_PATH=$BUNDLE/lib:${CUDA_HOME:-/usr/local/cuda}/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_plm=isolated
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
export OMPI_MCA_mca_base_component_show_load_errors=0 PMIX_MCA_pcompress_base_silence_warning=1
ENV
}

# Documents of this repository, in the tokens of the tests' tokenizer.
make_shards() {
    cat >"$output/shards.yaml" <<YAML
run: {seed: 7}
data: {dir: $output/shards, tokenizer: $source/tests/fixtures/tokenizer, suffixes: h, valid_documents: 8}
YAML
    # shellcheck source=hpc/lib/common.sh
    (. "$source/hpc/lib/common.sh" && use_open_mpi_here &&
        "$build/bin/gidd-shard" --config "$output/shards.yaml" --input "$source/src" --output "$output/shards")
    rm "$output/shards.yaml"
}

build_programs
if [[ -d "$output" && -n "$(ls -A "$output")" && ! -e "$output/COMMIT" ]]; then
    printf '%s is not empty and no bundle: it is left as it is\n' "$output" >&2
    exit 64
fi
rm -rf "$output"
mkdir -p "$output"/{bin,lib,share,etc,golden}
for program in "${targets[@]}"; do
    cp -L "$build/bin/$program" "$output/bin/"
done
copy_open_mpi
copy_libraries
find "$output/bin" "$output/lib" -type f -exec strip --strip-unneeded {} + 2>/dev/null || true
cp "$source"/tests/golden/*.h5 "$output/golden/"
cp "$source/tests/gpu/run.sh" "$source/tests/gpu/compare_runs.awk" "$source/tests/kernels/device_tests.txt" \
    "$output/"
write_environment
make_shards
git -C "$source" describe --always --dirty >"$output/COMMIT"
# Every program holds the same GPU code: a dictionary that reaches back to the one before keeps it once.
tar -C "$(dirname "$output")" -cf - "$(basename "$output")" | xz -T1 --lzma2=preset=3,dict=64MiB >"$output.tar.xz"
printf '%s: %s; %s.tar.xz: %s\n' "$output" "$(du -sh "$output" | cut -f1)" "$output" "$(du -h "$output.tar.xz" | cut -f1)"
