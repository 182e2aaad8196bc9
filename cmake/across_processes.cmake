# cmake -DPROGRAM=… -DMODEL=… -DFILE=… -P across_processes.cmake
# PROGRAM is tests/cpp/programs/across_processes.c, after the emulator that runs it if there is one. What two
# processes write, one going on where the other stopped, must be what one process writes.
file(REMOVE ${FILE})
foreach(part whole begin end)
  execute_process(COMMAND ${PROGRAM} ${MODEL} ${FILE} ${part} OUTPUT_VARIABLE ${part} COMMAND_ERROR_IS_FATAL ANY)
  message("${part}: ${${part}}")
endforeach()
string(CONCAT both "${begin}" "${end}")
if(begin STREQUAL "" OR end STREQUAL "" OR NOT both STREQUAL whole)
  message(FATAL_ERROR "The second process did not go on where the first one stopped.")
endif()
