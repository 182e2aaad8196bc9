# A test: the objects for AVX2 and beyond have no move to or from memory that faults where 32 or 64 bytes are not aligned.
# GCC makes such moves to stacks that Windows does not align (cmake/isa.cmake); whether one faults is up to the day.
#   cmake "-DOBJDUMP=objdump" "-DISAS=avx2;avxvnni" "-DOBJECTS=a_avx2.cpp.obj;b.cpp.obj" -P aligned_moves.cmake
cmake_minimum_required(VERSION 3.25)
list(JOIN ISAS "|" isas)
list(FILTER OBJECTS INCLUDE REGEX "_(${isas})\\.cpp")
execute_process(COMMAND ${OBJDUMP} -d --no-show-raw-insn ${OBJECTS} OUTPUT_VARIABLE code COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "vmov[a-z0-9]+ [^\n]*[yz]mm[^\n]*" moves "${code}")
list(FILTER moves INCLUDE REGEX "\\(")
list(LENGTH moves count)
if(count EQUAL 0)
  message(FATAL_ERROR "There is no move to look at.")
endif()
list(FILTER moves INCLUDE REGEX "^vmov(a|dqa|nt)")
if(moves)
  list(JOIN moves "\n" moves)
  message(FATAL_ERROR "Moves that fault where memory is not aligned:\n${moves}")
endif()
