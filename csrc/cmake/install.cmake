# Installs include/, lib/libfastgpt.so.N, lib/pkgconfig/fastgpt.pc, lib/cmake/fastgpt/ and share/fastgpt/demo.gguf.
# Everything finds everything else relative to itself, so that the tree may move.

# The ABI number N is written once, in the header.
file(STRINGS include/fastgpt.h abi REGEX "FASTGPT_ABI_VERSION = [0-9]+")
string(REGEX REPLACE ".*FASTGPT_ABI_VERSION = ([0-9]+).*" "\\1" FASTGPT_ABI "${abi}")

if(APPLE)
  set(origin @loader_path)
  set(FASTGPT_LIBRARY libfastgpt.${FASTGPT_ABI}.dylib)
  set(FASTGPT_SONAME @rpath/${FASTGPT_LIBRARY})
else()
  set(origin $ORIGIN)
  set(FASTGPT_LIBRARY libfastgpt.so.${FASTGPT_ABI})
  set(FASTGPT_SONAME ${FASTGPT_LIBRARY})
  # A program asks for the functions of this version, and does not start with a library that has them not.
  set(map ${CMAKE_CURRENT_BINARY_DIR}/fastgpt.map)
  file(CONFIGURE OUTPUT ${map} CONTENT "FASTGPT_@FASTGPT_ABI@ { global: fastgpt_*; local: *; };\n" @ONLY)
  target_link_options(fastgpt PRIVATE -Wl,--version-script=${map})
  set_target_properties(fastgpt PROPERTIES LINK_DEPENDS ${map})
endif()
set_target_properties(fastgpt PROPERTIES SOVERSION ${FASTGPT_ABI} INSTALL_RPATH ${origin})

# A wheel turns links into copies, and libfastgpt.so as a copy would be a second library in one process.  So the name
# that -lfastgpt looks for is a linker script there, as libc.so is one.
set(FASTGPT_PC_LIBS "-L\${libdir} -lfastgpt")
if(NOT SKBUILD)
  install(TARGETS fastgpt LIBRARY DESTINATION lib)
  # The library is inside; of the others, a private OpenBLAS lies in lib/.  A static program has no path to set.
  if(NOT "${CMAKE_EXE_LINKER_FLAGS}" MATCHES "(^| )-static(-pie)?( |$)")
    set_target_properties(fastgpt_command PROPERTIES INSTALL_RPATH ${origin}/../lib)
  else()
    set_target_properties(fastgpt_command PROPERTIES SKIP_BUILD_RPATH ON)
  endif()
  install(TARGETS fastgpt_command RUNTIME DESTINATION bin)
else()
  install(TARGETS fastgpt LIBRARY DESTINATION lib NAMELINK_SKIP)
  if(APPLE)
    set(FASTGPT_PC_LIBS "\${libdir}/${FASTGPT_LIBRARY}")
  else()
    file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/link/libfastgpt.so "INPUT(${FASTGPT_LIBRARY})\n")
    install(FILES ${CMAKE_CURRENT_BINARY_DIR}/link/libfastgpt.so DESTINATION lib)
  endif()
endif()

if(FASTGPT_STATIC)
  add_library(fastgpt_static STATIC $<TARGET_OBJECTS:fastgpt_objects>)
  set_target_properties(fastgpt_static PROPERTIES OUTPUT_NAME fastgpt LINKER_LANGUAGE C)
  install(TARGETS fastgpt_static ARCHIVE DESTINATION lib)
endif()

# A wheel has the demo model among its Python files.
set(models ${CMAKE_CURRENT_SOURCE_DIR}/../fastgpt_c/models)
if(SKBUILD)
  set(FASTGPT_DEMO_MODEL models/demo.gguf)
else()
  set(FASTGPT_DEMO_MODEL share/fastgpt/demo.gguf)
  install(FILES ${models}/demo.gguf ${models}/demo.md ${models}/demo_credits.tsv DESTINATION share/fastgpt)
endif()

configure_file(cmake/fastgpt.pc.in fastgpt.pc @ONLY)
configure_file(cmake/fastgpt-config.cmake.in fastgpt-config.cmake @ONLY)
include(CMakePackageConfigHelpers)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/fastgpt-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES include/fastgpt.h include/fastgpt.hpp DESTINATION include)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fastgpt.pc DESTINATION lib/pkgconfig)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fastgpt-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/fastgpt-config-version.cmake
        DESTINATION lib/cmake/fastgpt)
