# cmake -DNM=… -DLIBRARY=… -DEXPECTED=… -P exported_symbols.cmake
# Fails unless the shared library exports exactly the symbols that EXPECTED lists, one a line.
execute_process(COMMAND ${NM} -D --defined-only ${LIBRARY} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[ ][TDBRVWi] [A-Za-z_0-9@.]+" found "${output}")
list(TRANSFORM found REPLACE "^ [A-Z] " "")
list(TRANSFORM found REPLACE "@.*$" "")
list(SORT found)
file(STRINGS ${EXPECTED} expected)
list(SORT expected)
if(NOT found STREQUAL expected)
  message(FATAL_ERROR "The library exports\n${found}\nbut ${EXPECTED} lists\n${expected}")
endif()
