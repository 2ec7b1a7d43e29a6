# SPDX-License-Identifier: Apache-2.0
# GIDD_CUDA auto|ON|OFF -> GIDD_HAVE_CUDA. To be included by the top folder, which must enable the language.
set(GIDD_CUDA_ARCHITECTURES "80-real;90-real;100" CACHE STRING
    "GPU architectures; a number without -real also gives PTX for later ones")
set(GIDD_HAVE_CUDA OFF)
if(GIDD_CUDA STREQUAL "OFF" OR (GIDD_CUDA STREQUAL "auto" AND GIDD_SANITIZE)) # host sanitizers see nothing of it
  return()
endif()
if(DEFINED CMAKE_CUDA_ARCHITECTURES) # the usual variable wins
  set(GIDD_CUDA_ARCHITECTURES ${CMAKE_CUDA_ARCHITECTURES})
endif()
set(CMAKE_CUDA_ARCHITECTURES ${GIDD_CUDA_ARCHITECTURES})
find_program(GIDD_NVCC nvcc HINTS /usr/local/cuda/bin ENV CUDA_HOME PATH_SUFFIXES bin)
if(GIDD_NVCC AND NOT CMAKE_CUDA_COMPILER)
  set(CMAKE_CUDA_COMPILER ${GIDD_NVCC})
endif()
if(NOT CMAKE_CUDA_COMPILER)
  if(GIDD_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GIDD_CUDA=ON, and there is no nvcc (set CMAKE_CUDA_COMPILER)")
  endif()
  message(STATUS "no nvcc: built without the cuda device")
  return()
endif()
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_FLAGS_RELWITHDEBINFO "-O3 -lineinfo")
find_package(CUDAToolkit 12 REQUIRED)
set(GIDD_HAVE_CUDA ON)
