# Third-party libraries: what the system has is used (on Debian, the packages that the Makefile names);
# what it lacks is fetched at a pinned release whose hash is checked, and becomes part of our own libraries.
# Without a network: -DALLMEM_DEPS_DIR=/path/to/archives that cmake/fetch_deps.cmake fetched before, or
# -DFETCHCONTENT_SOURCE_DIR_SIMDJSON=/path/to/its/source, and so on for the others.
include(FetchContent)
include(${CMAKE_CURRENT_LIST_DIR}/deps_list.cmake)
option(ALLMEM_FETCH_DEPS "Fetch the third-party libraries even where the system has them" OFF)
set(ALLMEM_DEPS_DIR "" CACHE PATH "Take the third-party libraries from the archives in this directory")
if(ALLMEM_DEPS_DIR)
  set(ALLMEM_FETCH_DEPS ON)
endif()
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# For whoever links the static library (csrc/install.cmake): names of system libraries that it needs, and fetched
# targets whose objects it contains.
set(ALLMEM_SYSTEM_LIBRARIES "")
set(ALLMEM_FETCHED_TARGETS "")

# The fetched projects ask for old versions of CMake; these are the rules of this one that they need.
set(CMAKE_POLICY_VERSION_MINIMUM 3.10)
set(CMAKE_POLICY_DEFAULT_CMP0063 NEW)  # visibility also of static libraries
set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)  # our settings count where they call option()

# The sources in <name>_SOURCE_DIR, not yet part of the build.
macro(allmem_fetch name)
  set(url ${ALLMEM_${name}_URL})
  if(ALLMEM_DEPS_DIR)
    set(url ${ALLMEM_DEPS_DIR}/${name}.tar.gz)
    if(NOT EXISTS ${url})
      message(FATAL_ERROR "There is no ${url}. Fetch the libraries first, once:\n"
                          "  cmake -DDIRECTORY=${ALLMEM_DEPS_DIR} -P ${PROJECT_SOURCE_DIR}/cmake/fetch_deps.cmake")
    endif()
  endif()
  message(STATUS "allmem: using ${name} from ${url}")
  FetchContent_Declare(${name} URL ${url} URL_HASH SHA256=${ALLMEM_${name}_SHA256} DOWNLOAD_EXTRACT_TIMESTAMP ON
                       SOURCE_SUBDIR none)
  FetchContent_MakeAvailable(${name})
endmacro()

# The same, built as a static library without being installed; `target` is its name in its own CMakeLists.txt.
macro(allmem_fetch_library name target)
  allmem_fetch(${name})
  add_subdirectory(${${name}_SOURCE_DIR} ${${name}_BINARY_DIR} EXCLUDE_FROM_ALL)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
  # Small rather than fast, and so that the linker can leave out what is not called: they run when a model is loaded
  # and when text is split.
  target_compile_options(${target} PRIVATE -Os -ffunction-sections -fdata-sections
                         $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-gnu-unique>)
  list(APPEND ALLMEM_FETCHED_TARGETS ${target})
endmacro()

# protozero (headers only): protobuf wire format.
if(NOT ALLMEM_FETCH_DEPS)
  find_path(PROTOZERO_INCLUDE protozero/pbf_reader.hpp)
endif()
if(NOT PROTOZERO_INCLUDE)
  allmem_fetch(protozero)
  set(PROTOZERO_INCLUDE ${protozero_SOURCE_DIR}/include)
endif()
add_library(allmem_protozero INTERFACE)
target_include_directories(allmem_protozero SYSTEM INTERFACE ${PROTOZERO_INCLUDE})

# simdjson: tokenizer.json and config files.
add_library(allmem_simdjson INTERFACE)
if(NOT ALLMEM_FETCH_DEPS)
  find_package(simdjson QUIET)
endif()
if(simdjson_FOUND)
  list(APPEND ALLMEM_SYSTEM_LIBRARIES simdjson)
else()
  set(SIMDJSON_DEVELOPER_MODE OFF)
  allmem_fetch_library(simdjson simdjson)
  # It is asked for some kilobytes when a model is loaded: one kind of instructions beside the plain ones is enough.
  target_compile_definitions(simdjson PUBLIC SIMDJSON_IMPLEMENTATION_ICELAKE=0 SIMDJSON_IMPLEMENTATION_WESTMERE=0)
endif()
target_link_libraries(allmem_simdjson INTERFACE simdjson::simdjson)

# PCRE2: the tokenizer's split patterns.
add_library(allmem_pcre2 INTERFACE)
if(NOT ALLMEM_FETCH_DEPS)
  find_path(PCRE2_INCLUDE pcre2.h)
  find_library(PCRE2_LIBRARY pcre2-8)
endif()
if(PCRE2_INCLUDE AND PCRE2_LIBRARY)
  target_include_directories(allmem_pcre2 SYSTEM INTERFACE ${PCRE2_INCLUDE})
  target_link_libraries(allmem_pcre2 INTERFACE ${PCRE2_LIBRARY})
  list(APPEND ALLMEM_SYSTEM_LIBRARIES pcre2-8)
else()
  if(CMAKE_SYSTEM_NAME STREQUAL "iOS")  # which lets no app make memory executable
    set(PCRE2_SUPPORT_JIT OFF CACHE BOOL "")
  endif()
  set(PCRE2_SUPPORT_JIT ON CACHE BOOL "")
  set(HAVE_VISIBILITY OFF CACHE BOOL "")  # its names stay within our library
  set(PCRE2_BUILD_PCRE2GREP OFF CACHE BOOL "")
  set(PCRE2_BUILD_TESTS OFF CACHE BOOL "")
  allmem_fetch_library(pcre2 pcre2-8-static)
  target_link_libraries(allmem_pcre2 INTERFACE pcre2-8-static)
endif()

# utf8proc: Unicode normalisation.
add_library(allmem_utf8proc INTERFACE)
if(NOT ALLMEM_FETCH_DEPS)
  find_path(UTF8PROC_INCLUDE utf8proc.h)
  find_library(UTF8PROC_LIBRARY utf8proc)
endif()
if(UTF8PROC_INCLUDE AND UTF8PROC_LIBRARY)
  target_include_directories(allmem_utf8proc SYSTEM INTERFACE ${UTF8PROC_INCLUDE})
  target_link_libraries(allmem_utf8proc INTERFACE ${UTF8PROC_LIBRARY})
  list(APPEND ALLMEM_SYSTEM_LIBRARIES utf8proc)
else()
  allmem_fetch_library(utf8proc utf8proc)
  target_link_libraries(allmem_utf8proc INTERFACE utf8proc)
endif()
