# SPDX-License-Identifier: Apache-2.0
# One source per kernel, compiled once per instruction set: one object library each, that sets a namespace and flags.

set(WK_CXX_FLAGS -Wall -Wextra -Wno-psabi -fno-exceptions -fno-rtti)
file(GLOB WK_OP_SOURCES CONFIGURE_DEPENDS csrc/ops/*/*.cpp)
file(GLOB WK_CPU_SOURCES CONFIGURE_DEPENDS csrc/ops/*/*_cpu.inl)
set_source_files_properties(${WK_CPU_SOURCES} PROPERTIES LANGUAGE CXX)

# Partial redundancy elimination moves a matrix tile's sums from registers to the stack (GCC 12: 0.45 of the speed).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set_source_files_properties(csrc/ops/linear_8bit/linear_8bit_cpu.inl csrc/ops/attention_8bit/attention_8bit_cpu.inl
    csrc/ops/attention/attention_cpu.inl csrc/ops/attention/attention_backward_cpu.inl
    csrc/ops/causal_conv3d/causal_conv3d_cpu.inl PROPERTIES COMPILE_OPTIONS -fno-tree-pre)
endif()

set(WK_CPU_DEFINITIONS "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT WK_FORCE_PORTABLE)
  set(WK_ISAS baseline avx2 avx512 avx512_bf16)
  set(WK_CPU_INFO "x86-64: baseline avx2 avx512 avx512_bf16")
  list(APPEND WK_CPU_DEFINITIONS WK_X86_64=1)
else()
  set(WK_ISAS baseline)
  set(WK_CPU_INFO "portable: baseline")
  list(APPEND WK_CPU_DEFINITIONS WK_X86_64=0)
endif()
if(WK_FORCE_PORTABLE)
  list(APPEND WK_CPU_DEFINITIONS WK_FORCE_PORTABLE=1)
endif()
set(WK_FLAGS_baseline "")
set(WK_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(WK_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c -mprefer-vector-width=512)
set(WK_FLAGS_avx512_bf16 ${WK_FLAGS_avx512} -mavx512bf16)

if(WK_OPENMP)
  find_package(OpenMP COMPONENTS CXX QUIET)
endif()
if(WK_OPENMP AND OpenMP_CXX_FOUND)
  string(APPEND WK_CPU_INFO ", openmp")
else()
  string(APPEND WK_CPU_INFO ", one thread")
endif()

function(wk_add_cpu_kernels target)
  foreach(isa IN LISTS WK_ISAS)
    add_library(wk_cpu_${isa} OBJECT ${WK_CPU_SOURCES})
    target_include_directories(wk_cpu_${isa} PRIVATE csrc csrc/include)
    target_compile_definitions(wk_cpu_${isa} PRIVATE WK_ISA=${isa} ${WK_CPU_DEFINITIONS})
    target_compile_options(wk_cpu_${isa} PRIVATE ${WK_CXX_FLAGS} ${WK_FLAGS_${isa}})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:wk_cpu_${isa}>)
  endforeach()
  if(WK_OPENMP AND OpenMP_CXX_FOUND)
    target_link_libraries(${target} PRIVATE OpenMP::OpenMP_CXX)
  endif()
endfunction()
