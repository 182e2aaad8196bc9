# A test: the objects that are compiled for an instruction set beyond the baseline define no weak function. The
# linker keeps one copy of an inline function, and a copy from these objects would kill other machines.
#   cmake "-DNM=nm" "-DISAS=avx2;avxvnni" "-DOBJECTS=a_avx2.cpp.o;b.cpp.o" -P weak_symbols.cmake
cmake_minimum_required(VERSION 3.25)
foreach(isa ${ISAS})
  set(objects ${OBJECTS})
  list(FILTER objects INCLUDE REGEX "_${isa}\\.cpp")
  if(NOT objects)
    message(FATAL_ERROR "There is no object for ${isa} to look at.")
  endif()
  execute_process(COMMAND ${NM} --defined-only ${objects} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]* (W |t \\.text\\$)[^\n]*" weak "${symbols}")  # on Windows each has a section of its own
  if(weak)
    list(JOIN weak "\n" weak)
    message(FATAL_ERROR "Weak functions in objects with extended instructions:\n${weak}")
  endif()
endforeach()
