# cmake -DBUILD=… -DSOURCE=… -DMODEL=… -DCC=… -DCXX=… -DNM=… -DVERSION=0.2.0 -P run.cmake
# Installs a build into a directory outside the source, moves it, and builds and runs programs against it that know
# nothing else of allmem: through find_package and pkg-config, shared and static.
cmake_minimum_required(VERSION 3.25)

if(DEFINED ENV{TMPDIR})
  set(temporary $ENV{TMPDIR})
else()
  set(temporary /tmp)
endif()
string(RANDOM LENGTH 10 random)
set(dir ${temporary}/allmem-install-${random})
set(prefix ${dir}/moved)

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${dir} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT result EQUAL 0)
    message("${output}")
    file(REMOVE_RECURSE ${dir})
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "Failed (${result}): ${command}")
  endif()
endfunction()

function(pkg_config out)
  set(ENV{PKG_CONFIG_PATH} ${prefix}/lib/pkgconfig)
  execute_process(COMMAND pkg-config ${ARGN} allmem OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE
                  COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(flags UNIX_COMMAND "${flags}")
  set(${out} ${flags} PARENT_SCOPE)
endfunction()

# Driven as a person would: stopped, reset, told a name; started again, and asked for it.
function(is_driven program)
  file(REMOVE ${dir}/driven.allmem)
  run(${dir}/allmem/drive ${program} ${MODEL} ${dir}/driven.allmem)
endfunction()

# Told a name, started again with its memory file, and asked for it.
function(remembers program)
  run(${CMAKE_COMMAND} -DCHAT=${program} -DMODEL=${MODEL} -DMEMORY=${dir}/me.allmem -P ${SOURCE}/cmake/example_chat.cmake)
endfunction()

file(MAKE_DIRECTORY ${dir}/project)
run(${CMAKE_COMMAND} --install ${BUILD} --strip --prefix ${dir}/installed)
file(RENAME ${dir}/installed ${prefix})
file(COPY ${SOURCE}/examples/c/chat.c ${SOURCE}/tests/install/CMakeLists.txt ${SOURCE}/tests/install/cancel.c ${SOURCE}/tests/install/drive.c
          ${SOURCE}/tests/install/names.cpp DESTINATION ${dir}/project)

foreach(file LICENSE NOTICE THIRD_PARTY_NOTICES.md)
  if(NOT EXISTS ${prefix}/share/doc/allmem/${file})
    message(FATAL_ERROR "${file} is not installed.")
  endif()
endforeach()

file(SIZE ${prefix}/lib/liballmem.so size)
message("liballmem.so, stripped: ${size} bytes")
if(size GREATER 2000000)
  message(FATAL_ERROR "The shared library has grown beyond 2 MB.")
endif()

# Of the static library's own names, only allmem_* may meet a program's: the rest is std's, weak as everywhere.
execute_process(COMMAND ${NM} -g --defined-only ${prefix}/lib/liballmem.a OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]* [A-TX-Z] [^\n]*" strong "${symbols}")
list(FILTER strong EXCLUDE REGEX " T allmem_[a-z0-9_]+$")
string(REGEX MATCHALL "[^\n]* [VWu] [^\n]*" weak "${symbols}")
list(FILTER weak EXCLUDE REGEX " _Z[A-Z]*(St|N[VKRO]*St|N[VKRO]*9__gnu_cxx|NK?St|v?IS)|_ZT[IS]P?F[a-z]RKNSt")
if(strong OR weak)
  list(JOIN strong "\n" strong)
  list(JOIN weak "\n" weak)
  message(FATAL_ERROR "The static library exports\n${strong}\n${weak}")
endif()

# Before 1.0 a minor release may break: a program that asks for another one is refused.
string(REGEX MATCH "^0\\.([0-9]+)" own ${VERSION})
math(EXPR before "${CMAKE_MATCH_1} - 1")
math(EXPR after "${CMAKE_MATCH_1} + 1")
foreach(version 0.0 0.${before} ${own} ${VERSION} 0.${after} 1.0)
  file(REMOVE_RECURSE ${dir}/asks)
  file(WRITE ${dir}/asks/CMakeLists.txt "cmake_minimum_required(VERSION 3.20)\nproject(asks LANGUAGES C)\nfind_package(allmem ${version} REQUIRED)\n")
  execute_process(COMMAND ${CMAKE_COMMAND} -S asks -B asks/build -DCMAKE_C_COMPILER=${CC} -DCMAKE_PREFIX_PATH=${prefix} WORKING_DIRECTORY ${dir}
                  RESULT_VARIABLE result OUTPUT_QUIET ERROR_QUIET)
  if(version STREQUAL own OR version STREQUAL VERSION)
    if(NOT result EQUAL 0)
      message(FATAL_ERROR "find_package(allmem ${version}) did not find ${VERSION}.")
    endif()
  elseif(result EQUAL 0)
    message(FATAL_ERROR "find_package(allmem ${version}) took ${VERSION} for it.")
  endif()
endforeach()

foreach(library allmem allmem_static)
  run(${CMAKE_COMMAND} -S project -B ${library} -DCMAKE_C_COMPILER=${CC} -DCMAKE_PREFIX_PATH=${prefix} -DLIBRARY=${library})
  run(${CMAKE_COMMAND} --build ${library})
  remembers(${dir}/${library}/chat)
  run(${dir}/${library}/cancel ${MODEL})
  is_driven(${dir}/${library}/chat)
endforeach()

set(strict -std=c99 -pedantic-errors -Wall -Wextra -Werror)
pkg_config(flags --cflags --libs)
run(${CC} ${strict} project/chat.c ${flags} -Wl,-rpath,${prefix}/lib -o chat_shared)
remembers(${dir}/chat_shared)

# Where only the archive is installed.
file(GLOB shared ${prefix}/lib/liballmem.so*)
file(REMOVE ${shared})
pkg_config(flags --static --cflags --libs)
run(${CC} ${strict} project/chat.c ${flags} -o chat_static)
remembers(${dir}/chat_static)
run(${CXX} -std=c++17 -Wall -Wextra -Werror project/names.cpp ${flags} -o names)
run(${dir}/names)

file(REMOVE_RECURSE ${dir})
