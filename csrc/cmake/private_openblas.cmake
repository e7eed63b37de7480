# A copy of OpenBLAS (64-bit integers) that is ours alone, made from the Python package scipy-openblas64.
#
# Two packages of one process may carry this library.  Linux binds symbols by name over everything that was
# loaded globally, so a copy under another file name is not enough: whichever comes first would serve both, and
# one's number of threads would be the other's.  Here every symbol that the copy defines gets the prefix
# fastgpt_, which changes the references inside the copy too; blas_cblas.c knows the new names.  Three functions of the
# C library that the copy calls are replaced by those of openblas_os.c, a library beside it: see there.
#
# Defines target fastgpt_private_openblas and links fastgpt_blas to it; otherwise says why not.  ELF only: on
# other systems use Accelerate or pkg-config.
option(FASTGPT_PRIVATE_OPENBLAS "Copy OpenBLAS from scipy-openblas64 if that is there; OFF: the system's" ON)
set(private_openblas_name libfastgpt_openblas.so)
set(openblas_os_name libfastgpt_openblas_os.so)
set(openblas_os_functions getenv mmap munmap)

# Sets OPENBLAS_LIBRARY, OPENBLAS_INCLUDE_DIR, OPENBLAS_LICENSE and OPENBLAS_VERSION, or WHY_NOT.
function(find_scipy_openblas)
  if(NOT FASTGPT_PRIVATE_OPENBLAS)
    set(WHY_NOT "FASTGPT_PRIVATE_OPENBLAS is OFF" PARENT_SCOPE)
    return()
  endif()
  if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux" OR NOT Python_Interpreter_FOUND)
    set(WHY_NOT "no Python interpreter, or not Linux" PARENT_SCOPE)
    return()
  endif()
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "if True:
      import importlib.metadata as metadata, importlib.util as util, pathlib
      package = pathlib.Path(util.find_spec('scipy_openblas64').origin).parent
      license = [f.locate() for f in metadata.files('scipy-openblas64') if f.name == 'LICENSE.txt']
      print(*package.glob('lib/lib*.so*'), package / 'include', *license, metadata.version('scipy-openblas64'),
            sep=';', end='')"
    OUTPUT_VARIABLE found RESULT_VARIABLE status ERROR_QUIET)
  list(LENGTH found n_found)
  find_program(FASTGPT_PATCHELF patchelf)
  execute_process(COMMAND ${FASTGPT_PATCHELF} --help ERROR_VARIABLE patchelf_help OUTPUT_VARIABLE patchelf_help)
  if(NOT status EQUAL 0)
    set(WHY_NOT "${Python_EXECUTABLE} has no scipy_openblas64" PARENT_SCOPE)
  elseif(NOT n_found EQUAL 4)
    set(WHY_NOT "this scipy_openblas64 is not laid out as expected; 0.3.34.481.3 or later is" PARENT_SCOPE)
  elseif(NOT patchelf_help MATCHES "rename-dynamic-symbols")
    set(WHY_NOT "scipy_openblas64 needs a patchelf that knows --rename-dynamic-symbols" PARENT_SCOPE)
  else()
    list(GET found 0 library)
    list(GET found 1 include_dir)
    list(GET found 2 license)
    list(GET found 3 version)
    set(OPENBLAS_LIBRARY ${library} PARENT_SCOPE)
    set(OPENBLAS_INCLUDE_DIR ${include_dir} PARENT_SCOPE)
    set(OPENBLAS_LICENSE ${license} PARENT_SCOPE)
    set(OPENBLAS_VERSION ${version} PARENT_SCOPE)
  endif()
endfunction()

# Copies library to copy, with another SONAME, with fastgpt_ before each symbol that it defines, and with the functions of
# openblas_os.c, which have no version, for those of the C library.
function(make_private_copy library copy)
  execute_process(COMMAND ${CMAKE_NM} -D --defined-only --format=posix ${library}
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE "([^ \n]+) [^\n]*\n" "\\1 fastgpt_\\1\n" renames "${symbols}")
  set(unversioned "")
  foreach(function IN LISTS openblas_os_functions)
    string(APPEND renames "${function} fastgpt_openblas_${function}\n")
    list(APPEND unversioned --clear-symbol-version fastgpt_openblas_${function})
  endforeach()
  file(WRITE ${copy}.renames "${renames}")
  configure_file(${library} ${copy} COPYONLY)
  get_filename_component(soname ${copy} NAME)
  execute_process(COMMAND ${FASTGPT_PATCHELF} --set-soname ${soname} --rename-dynamic-symbols ${copy}.renames
    --add-needed ${openblas_os_name} --set-rpath $ORIGIN ${copy} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${FASTGPT_PATCHELF} ${unversioned} ${copy} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

find_scipy_openblas()
if(WHY_NOT)
  message(STATUS "BLAS: no private OpenBLAS: ${WHY_NOT}")
  return()
endif()
message(STATUS "BLAS: a private copy of ${OPENBLAS_LIBRARY}")
set(private_openblas ${CMAKE_CURRENT_BINARY_DIR}/${private_openblas_name})
make_private_copy(${OPENBLAS_LIBRARY} ${private_openblas})

add_library(fastgpt_private_openblas SHARED IMPORTED)
set_target_properties(fastgpt_private_openblas PROPERTIES
  IMPORTED_LOCATION ${private_openblas}
  IMPORTED_SONAME ${private_openblas_name}
  INTERFACE_INCLUDE_DIRECTORIES ${OPENBLAS_INCLUDE_DIR}
  INTERFACE_COMPILE_DEFINITIONS FASTGPT_OPENBLAS_IS_PRIVATE)
add_library(fastgpt_openblas_os SHARED matmul/openblas_os.c)
target_include_directories(fastgpt_openblas_os PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_options(fastgpt_openblas_os PRIVATE -Wall -Wextra -Wpedantic $<$<BOOL:${FASTGPT_WERROR}>:-Werror>)
target_link_libraries(fastgpt_openblas_os PRIVATE Threads::Threads)
set_target_properties(fastgpt_openblas_os PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})

target_link_libraries(fastgpt_blas INTERFACE fastgpt_private_openblas fastgpt_openblas_os)
install(FILES ${private_openblas} DESTINATION lib)
install(TARGETS fastgpt_openblas_os LIBRARY DESTINATION lib)
install(FILES ${OPENBLAS_LICENSE} DESTINATION lib RENAME libfastgpt_openblas.LICENSE.txt)
