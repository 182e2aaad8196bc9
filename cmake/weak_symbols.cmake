# A test: the objects that are compiled for an instruction set beyond the baseline define no weak function. The
# linker keeps one copy of an inline function, and a copy from these objects would kill other machines.
#   cmake "-DNM=nm" "-DOBJECTS=a_avx2.cpp.o;b.cpp.o" -P weak_symbols.cmake
cmake_minimum_required(VERSION 3.25)
list(FILTER OBJECTS INCLUDE REGEX "_(avx2|avxvnni|avx512vnni|amx|dotprod|i8mm)\\.cpp")
if(NOT OBJECTS)
  message(FATAL_ERROR "There is no object to look at.")
endif()
execute_process(COMMAND ${NM} --defined-only ${OBJECTS} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]* (W |t \\.text\\$)[^\n]*" weak "${symbols}")  # on Windows each has a section of its own
if(weak)
  list(JOIN weak "\n" weak)
  message(FATAL_ERROR "Weak functions in objects with extended instructions:\n${weak}")
endif()
