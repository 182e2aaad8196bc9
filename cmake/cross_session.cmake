# cmake -DHERE=… -DTHERE=… -DMODEL=… -P cross_session.cmake (HERE, THERE: cross_session for this machine and for another,
# with its emulator). Run in a directory that may be filled.
# Fails unless both compute the same logits, within the roundings of float32, and each goes on from the other's snapshot
# as the other does itself. Fast arithmetic rounds activations to 8 bits, where a tiny difference may become a whole
# step: there it must be less than what the 8 bits change.
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

run(${HERE} model tiny.onnx)
foreach(model ${MODEL} tiny.onnx)
  foreach(precision exact fast)
    run(${HERE} read ${model} ${precision} here.${precision}.memory here.${precision})
    run(${THERE} read ${model} ${precision} there.${precision}.memory there.${precision})
    run(${HERE} continue ${model} ${precision} there.${precision}.memory here.${precision}.moved)
    run(${THERE} continue ${model} ${precision} here.${precision}.memory there.${precision}.moved)
  endforeach()
  foreach(other there.exact here.exact.moved there.exact.moved)
    run(${HERE} compare ${model} here.exact ${other})
  endforeach()
  foreach(other there.fast here.fast.moved there.fast.moved)
    run(${HERE} compare ${model} here.fast ${other} here.exact)
  endforeach()
endforeach()
