# Cross-builds for 64-bit Arm and runs the tests in QEMU (Debian: gcc-aarch64-linux-gnu, qemu-user):
#     cmake -S csrc -B build -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64.cmake -DFASTGPT_BLAS=Native -DFASTGPT_TESTS=ON
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
add_compile_definitions(FASTGPT_TESTS_IN_QEMU) # what QEMU itself cannot do is left out
