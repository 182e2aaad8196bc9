# cmake -DCHAT=… -DMODEL=… -DMEMORY=… -P example_chat.cmake
# CHAT is its program, after the emulator that runs it if there is one. It is told a name, ends, starts again with its
# memory file, and knows the name.
file(REMOVE ${MEMORY})
set(input ${MEMORY}.txt)
foreach(line "Hi, I'm Tobias." "What is my name?")
  file(WRITE ${input} "${line}\n")
  execute_process(COMMAND ${CHAT} ${MODEL} ${MEMORY} INPUT_FILE ${input} OUTPUT_VARIABLE answer COMMAND_ERROR_IS_FATAL ANY)
  message("${line} -> ${answer}")
endforeach()
if(NOT answer MATCHES "Tobias")
  message(FATAL_ERROR "The example forgot the name.")
endif()
