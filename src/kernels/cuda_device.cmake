# SPDX-License-Identifier: Apache-2.0
# The cuda device: the kernels by nvcc, the host side in C. Each object's resource table (registers, spills)
# is kept beside it as <object>.ptxas; tests/kernels/resource_table.sh reads them.
add_library(gidd_kernels_cuda OBJECT device_cuda.c stream_cuda.c blas_cuda.c linear_cuda.c probe_cuda.cu ${GIDD_CUDA_KERNELS})
target_link_libraries(gidd_kernels_cuda PRIVATE gidd_options gidd_base CUDA::toolkit)
string(REPLACE ";" " " architectures "${GIDD_CUDA_ARCHITECTURES}")
target_compile_definitions(gidd_kernels_cuda PRIVATE GIDD_CUDA_ARCHITECTURES="${architectures}"
  GIDD_CUDA_LIBRARIES="${CUDAToolkit_LIBRARY_DIR}")
target_compile_options(gidd_kernels_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-v -Xfatbin=-compress-all $<$<BOOL:${GIDD_WERROR}>:-Werror=all-warnings>>)
set_target_properties(gidd_kernels_cuda PROPERTIES
  CUDA_COMPILER_LAUNCHER "${CMAKE_CURRENT_SOURCE_DIR}/keep_resource_table.sh")
# Pieces of flat buffers are cut anywhere: an element's result must not depend on what was fused.
set_source_files_properties(update_cuda.cu PROPERTIES COMPILE_OPTIONS -fmad=false)
target_sources(gidd_kernels PRIVATE $<TARGET_OBJECTS:gidd_kernels_cuda>)
target_compile_definitions(gidd_kernels PRIVATE GIDD_HAVE_CUDA)
# cuBLASLt is loaded when a device is opened (blas_cuda.h).
target_link_libraries(gidd_kernels PUBLIC CUDA::cudart_static ${CMAKE_DL_LIBS})
