# Compiler flags per instruction set, applied only to the kernel files that name the instruction set in their
# file name (kernels/x86/*_avx2.cpp, kernels/arm/*_dotprod.cpp). Everything else is built for the architecture's
# baseline, so that a wheel never dies with an illegal instruction.
function(allmem_isa_flags)
  # What the state keeps is the same on every machine: no product is fused with a sum here and not there.
  set_source_files_properties(kernels/attention_q8.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    file(GLOB avx2 CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/x86/*_avx2.cpp)
    set_source_files_properties(${avx2} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
    file(GLOB avxvnni CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/x86/*_avxvnni.cpp)
    set_source_files_properties(${avxvnni} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mavxvnni")
    file(GLOB avx512vnni CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/x86/*_avx512vnni.cpp)
    set(avx512vnni_flags "-mavx2;-mfma;-mf16c;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni")
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # GCC before 13 warns of its own header, whose _mm512_undefined_*() is meant to be uninitialised.
      list(APPEND avx512vnni_flags -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
    set_source_files_properties(${avx512vnni} PROPERTIES COMPILE_OPTIONS "${avx512vnni_flags}")
    set(amx_flags "-mavx512bf16;-mamx-tile;-mamx-int8;-mamx-bf16")
    file(GLOB amx CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/x86/*_amx.cpp)
    set_source_files_properties(${amx} PROPERTIES COMPILE_OPTIONS "${avx512vnni_flags};${amx_flags}")
    if(MINGW AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # Windows aligns stacks to 16 bytes. GCC does not realign them for its own 32 and 64 bytes (its bug 54412), and yet
      # moves those with instructions that fault.
      set_property(SOURCE ${avx2} ${avxvnni} ${avx512vnni} ${amx} APPEND PROPERTY
                   COMPILE_OPTIONS -Wa,-muse-unaligned-vector-move)
    endif()
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
      # Scheduled before registers are allocated, the unrolled products take more sums than there are registers.
      set(scheduling -fno-schedule-insns)
    endif()
    file(GLOB dotprod CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/arm/*_dotprod.cpp)
    set_source_files_properties(${dotprod} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod;${scheduling}")
    file(GLOB i8mm CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/arm/*_i8mm.cpp)
    set_source_files_properties(${i8mm} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod+i8mm;${scheduling}")
  endif()
endfunction()
