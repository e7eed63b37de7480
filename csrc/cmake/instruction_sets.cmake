# Kernels, a set of files for each instruction set.
#
#   add_kernels(set "FLAG;FLAG" FILE ...)    adds the files to `sources`, compiled with the flags
#
# kernel_definitions tells kernels.h, which lists the sets, whether a set is built: FASTGPT_HAS_set=1.  With
# FASTGPT_THIS_CPU_ONLY a set that this machine cannot run is left out: FASTGPT_HAS_set=0.  Under ASan and UBSan a set
# compiles for a minute, and tests run none that the machine lacks.  test_kernels.c checks that nothing else was left out.
option(FASTGPT_THIS_CPU_ONLY "Leave out kernels that this machine cannot run" OFF)

if(FASTGPT_THIS_CPU_ONLY)
  execute_process(COMMAND ${CMAKE_C_COMPILER} -march=native -dM -E -x c /dev/null
    OUTPUT_VARIABLE macros_of_this_cpu RESULT_VARIABLE failed ERROR_VARIABLE why)
  if(failed)
    message(FATAL_ERROR "FASTGPT_THIS_CPU_ONLY: the compiler cannot tell what this machine runs:\n${why}")
  endif()
endif()

# Sets `missing_flags` to the flags -mNAME of x86-64 that this machine cannot run; the compiler defines __NAME__ for those
# that it can.
function(find_missing_flags)
  set(missing_flags "")
  foreach(flag IN LISTS ARGN)
    string(REGEX REPLACE "^-m" "" name "${flag}")
    string(TOUPPER "${name}" name)
    string(REPLACE "-" "_" name "${name}")
    if(NOT flag MATCHES "=" AND NOT macros_of_this_cpu MATCHES "#define __${name}__ 1")
      list(APPEND missing_flags ${flag})
    endif()
  endforeach()
  set(missing_flags "${missing_flags}" PARENT_SCOPE)
endfunction()

function(add_kernels set flags)
  if(FASTGPT_THIS_CPU_ONLY)
    find_missing_flags(${flags})
    if(missing_flags)
      message(STATUS "Kernels: ${set} left out, this machine lacks ${missing_flags}")
      set(kernel_definitions ${kernel_definitions} FASTGPT_HAS_${set}=0 PARENT_SCOPE)
      return()
    endif()
  endif()
  set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "${flags};-ffp-contract=fast")
  set(sources ${sources} ${ARGN} PARENT_SCOPE)
  set(kernel_definitions ${kernel_definitions} FASTGPT_HAS_${set}=1 PARENT_SCOPE)
endfunction()
