# Third-party libraries: what the system has is used (on Debian, the packages that the Makefile names);
# what it lacks is fetched at a pinned release.
include(FetchContent)
find_package(Threads REQUIRED)

function(allmem_fetch name url)
  message(STATUS "allmem: ${name} not found on this system, fetching ${url}")
  FetchContent_Declare(${name} URL ${url} DOWNLOAD_EXTRACT_TIMESTAMP ON EXCLUDE_FROM_ALL)
  FetchContent_MakeAvailable(${name})
endfunction()

# protozero (headers only): protobuf wire format.
find_path(PROTOZERO_INCLUDE protozero/pbf_reader.hpp)
if(NOT PROTOZERO_INCLUDE)
  FetchContent_Declare(protozero URL https://github.com/mapbox/protozero/archive/refs/tags/v1.8.1.tar.gz
                       DOWNLOAD_EXTRACT_TIMESTAMP ON SOURCE_SUBDIR none)
  FetchContent_MakeAvailable(protozero)
  set(PROTOZERO_INCLUDE ${protozero_SOURCE_DIR}/include)
endif()
add_library(allmem_protozero INTERFACE)
target_include_directories(allmem_protozero SYSTEM INTERFACE ${PROTOZERO_INCLUDE})

# simdjson: tokenizer.json and config files.
find_package(simdjson QUIET)
if(NOT simdjson_FOUND)
  set(SIMDJSON_DEVELOPER_MODE OFF)
  allmem_fetch(simdjson https://github.com/simdjson/simdjson/archive/refs/tags/v3.12.3.tar.gz)
endif()

# PCRE2: the tokenizer's split patterns.
find_path(PCRE2_INCLUDE pcre2.h)
find_library(PCRE2_LIBRARY pcre2-8)
add_library(allmem_pcre2 INTERFACE)
if(PCRE2_INCLUDE AND PCRE2_LIBRARY)
  target_include_directories(allmem_pcre2 SYSTEM INTERFACE ${PCRE2_INCLUDE})
  target_link_libraries(allmem_pcre2 INTERFACE ${PCRE2_LIBRARY})
else()
  set(PCRE2_SUPPORT_JIT ON CACHE BOOL "")
  set(PCRE2_BUILD_PCRE2GREP OFF CACHE BOOL "")
  set(PCRE2_BUILD_TESTS OFF CACHE BOOL "")
  allmem_fetch(pcre2 https://github.com/PCRE2Project/pcre2/releases/download/pcre2-10.44/pcre2-10.44.tar.gz)
  target_link_libraries(allmem_pcre2 INTERFACE pcre2-8-static)
endif()

# utf8proc: Unicode normalisation.
find_path(UTF8PROC_INCLUDE utf8proc.h)
find_library(UTF8PROC_LIBRARY utf8proc)
add_library(allmem_utf8proc INTERFACE)
if(UTF8PROC_INCLUDE AND UTF8PROC_LIBRARY)
  target_include_directories(allmem_utf8proc SYSTEM INTERFACE ${UTF8PROC_INCLUDE})
  target_link_libraries(allmem_utf8proc INTERFACE ${UTF8PROC_LIBRARY})
else()
  allmem_fetch(utf8proc https://github.com/JuliaStrings/utf8proc/archive/refs/tags/v2.10.0.tar.gz)
  target_link_libraries(allmem_utf8proc INTERFACE utf8proc)
endif()
