# SPDX-License-Identifier: Apache-2.0
# Compiler settings, third-party libraries, and the two functions with which every room is declared.
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O3 -g")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O3 -g")

find_package(PkgConfig REQUIRED)
find_package(MPI REQUIRED COMPONENTS C)
set(HDF5_PREFER_PARALLEL OFF) # the serial library is thread-safe and reads faster
find_package(HDF5 REQUIRED COMPONENTS C)
find_package(OpenMP REQUIRED COMPONENTS C CXX)
find_package(Threads REQUIRED)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
pkg_check_modules(ARCHIVE REQUIRED IMPORTED_TARGET libarchive)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
# Debian's dnnl CMake package demands OpenCL, so the library is found by name.
find_library(DNNL_LIBRARY dnnl REQUIRED)
find_path(DNNL_INCLUDE_DIR dnnl.h REQUIRED)
add_library(gidd_dnnl INTERFACE)
target_link_libraries(gidd_dnnl INTERFACE ${DNNL_LIBRARY})
target_include_directories(gidd_dnnl SYSTEM INTERFACE ${DNNL_INCLUDE_DIR})

set(GIDD_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-qual
    -Wundef -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wdouble-promotion -Wformat=2)
if(GIDD_WERROR)
  list(APPEND GIDD_WARNINGS -Werror)
endif()

add_library(gidd_options INTERFACE)
target_include_directories(gidd_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(gidd_options INTERFACE $<$<COMPILE_LANGUAGE:C>:${GIDD_WARNINGS}>)
# No fused multiply-add behind our back: where one is wanted the code says so, and sums stay reproducible.
target_compile_options(gidd_options INTERFACE $<$<COMPILE_LANGUAGE:C>:-ffp-contract=off>)
target_compile_definitions(gidd_options INTERFACE _GNU_SOURCE $<$<BOOL:${GIDD_FAULTS}>:GIDD_FAULTS=1>)
if(GIDD_SANITIZE)
  add_compile_options(-fsanitize=${GIDD_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${GIDD_SANITIZE})
endif()

# gidd_room(<room> SOURCES ... LINK ...): the static library gidd_<room>.
function(gidd_room room)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(gidd_${room} STATIC ${ARG_SOURCES})
  target_link_libraries(gidd_${room} PUBLIC gidd_options ${ARG_LINK})
endfunction()

# gidd_program(<name> SOURCES ... LINK ...): an installed executable.
function(gidd_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE gidd_options ${ARG_LINK})
  install(TARGETS ${name} RUNTIME)
endfunction()
