# Compiler flags per instruction set, applied only to the kernel files that name the instruction set in their
# file name (kernels/x86/*_avx2.cpp). Everything else is built for the architecture's baseline, so that
# a wheel never dies with an illegal instruction.
function(allmem_isa_flags)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    file(GLOB avx2 CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/x86/*_avx2.cpp)
    set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
  endif()
endfunction()
