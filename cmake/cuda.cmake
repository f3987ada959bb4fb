# SPDX-License-Identifier: Apache-2.0
# CUDA kernels, compiled for sm_90a with the runtime linked statically: one library serves every framework and driver.

set(WK_CUDA_INFO off)
if(NOT WK_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(WK_CUDA_INFO sm_90a)
  elseif(WK_CUDA STREQUAL "ON")
    message(FATAL_ERROR "WK_CUDA=ON needs nvcc on the PATH or in CMAKE_CUDA_COMPILER, none was found")
  endif()
endif()

function(wk_add_cuda_kernels target)
  if(WK_CUDA_INFO STREQUAL "off")
    target_sources(${target} PRIVATE csrc/no_cuda/no_cuda.cpp)
    return()
  endif()
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/csrc/ops/*/*_sm90.cu)
  target_sources(${target} PRIVATE ${sources})
  set_target_properties(${target} PROPERTIES
    CUDA_STANDARD 17 CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden CUDA_ARCHITECTURES OFF)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-gencode=arch=compute_90a,code=sm_90a -Xptxas=-warn-spills -lineinfo>)
endfunction()
