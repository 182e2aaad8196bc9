# The instruction sets that kernels are written for: the one list of them. A file kernels/<folder>/*_<suffix>.cpp is
# compiled with the flags of its suffix; everything else for the architecture's baseline, so that a wheel never dies with
# an illegal instruction. csrc/kernels/registry.cpp has their order, and does not compile when one is missing there.
macro(allmem_isa suffix)
  list(APPEND ALLMEM_ISAS ${suffix})
  set(ALLMEM_FLAGS_${suffix} ${ARGN})
endmacro()

set(ALLMEM_ISAS "")
if(NOT CMAKE_SIZEOF_VOID_P EQUAL 8)
  # A processor of 32 bits, or one asked to be that (-m32), has the scalar kernels alone.
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86|AMD64|amd64|i.86")
    # In the registers of its old floating-point unit, numbers would be rounded otherwise than everywhere else.
    add_compile_options(-msse2 -mfpmath=sse)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
  set(ALLMEM_KERNELS_FOLDER x86)
  set(avx2 -mavx2 -mfma -mf16c)
  set(avx512vnni ${avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC before 13 warns of its own header, whose _mm512_undefined_*() is meant to be uninitialised.
    list(APPEND avx512vnni -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
  if(MINGW AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Windows aligns stacks to 16 bytes. GCC does not realign them for its own 32 and 64 bytes (its bug 54412), and yet
    # moves those with instructions that fault.
    list(APPEND avx2 -Wa,-muse-unaligned-vector-move)
    list(APPEND avx512vnni -Wa,-muse-unaligned-vector-move)
  endif()
  allmem_isa(avx2 ${avx2})
  allmem_isa(avxvnni ${avx2} -mavxvnni)
  allmem_isa(avx512vnni ${avx512vnni})
  if(NOT WIN32)  # where nobody has tried how tiles are granted, and GCC's intrinsics for them take `long` for 64 bits
    allmem_isa(amx ${avx512vnni} -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16)
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
  set(ALLMEM_KERNELS_FOLDER arm)
  set(scheduling "")
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Scheduled before registers are allocated, the unrolled products take more sums than there are registers.
    set(scheduling -fno-schedule-insns)
  endif()
  allmem_isa(neon)  # the baseline
  allmem_isa(dotprod -march=armv8.2-a+dotprod ${scheduling})
  allmem_isa(i8mm -march=armv8.2-a+dotprod+i8mm ${scheduling})
endif()

# Those with flags: their objects must hold no weak symbol, and so on (tests/cpp/CMakeLists.txt).
set(ALLMEM_EXTENDED_ISAS ${ALLMEM_ISAS})
list(REMOVE_ITEM ALLMEM_EXTENDED_ISAS neon)

# Takes from `sources` the kernels of other processors, and gives those that stay their flags.
macro(allmem_kernels_of_processor sources)
  foreach(source ${${sources}})
    if(source MATCHES "/kernels/(x86|arm)/")
      set(folder ${CMAKE_MATCH_1})
      if(NOT folder STREQUAL ALLMEM_KERNELS_FOLDER OR (WIN32 AND source MATCHES "_amx\\.cpp$"))
        list(REMOVE_ITEM ${sources} ${source})
      elseif(NOT source MATCHES "/table\\.cpp$")
        string(REGEX REPLACE "^.*_([a-z0-9]+)\\.cpp$" "\\1" suffix ${source})
        if(NOT suffix IN_LIST ALLMEM_ISAS)
          message(FATAL_ERROR "${source} does not end in an instruction set of cmake/isa.cmake: ${ALLMEM_ISAS}.")
        endif()
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${ALLMEM_FLAGS_${suffix}}")
      endif()
    endif()
  endforeach()
  list(LENGTH ALLMEM_ISAS count)
  set_source_files_properties(kernels/registry.cpp PROPERTIES COMPILE_DEFINITIONS ALLMEM_ISA_COUNT=${count})
  # What the state keeps is the same on every machine: no product is fused with a sum here and not there.
  set_source_files_properties(kernels/attention_q8.cpp PROPERTIES COMPILE_OPTIONS -ffp-contract=off)
endmacro()
