# The static library, and what `cmake --install` lays down: both libraries, the header, find_package(allmem) and
# allmem.pc. Everything is relative to where it lies, so an installed copy may be moved.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# One archive of all layers and of what was fetched. On Linux it is a single object in which every hidden symbol is
# local: only allmem_* is left to meet the names of the program that links it.
set(objects $<TARGET_OBJECTS:allmem_capi>)
foreach(target ${ALLMEM_LAYERS} ${ALLMEM_FETCHED_TARGETS})
  list(APPEND objects $<TARGET_OBJECTS:${target}>)
endforeach()
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  add_custom_command(OUTPUT allmem.o
                     COMMAND ${CMAKE_LINKER} -r --force-group-allocation -o allmem.o ${objects}
                     COMMAND ${CMAKE_OBJCOPY} --localize-hidden allmem.o
                     DEPENDS ${objects} COMMAND_EXPAND_LISTS VERBATIM)
  set(objects ${CMAKE_CURRENT_BINARY_DIR}/allmem.o)
endif()
add_library(allmem_static STATIC ${objects})
set_target_properties(allmem_static PROPERTIES LINKER_LANGUAGE CXX OUTPUT_NAME allmem)
add_dependencies(allmem_static allmem_capi ${ALLMEM_LAYERS} ${ALLMEM_FETCHED_TARGETS})  # of objects, Makefiles know only the files
target_include_directories(allmem_static INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/csrc/include>)
target_compile_definitions(allmem_static INTERFACE ALLMEM_STATIC)

# What a C program has to link with it: the system's libraries, and the C++ runtime.
set(needed ${CMAKE_CXX_IMPLICIT_LINK_LIBRARIES})
list(REMOVE_ITEM needed ${CMAKE_C_IMPLICIT_LINK_LIBRARIES})
list(PREPEND needed ${ALLMEM_SYSTEM_LIBRARIES})
if(WIN32)
  list(APPEND needed synchronization)
endif()
list(TRANSFORM needed PREPEND "-l")
target_link_libraries(allmem_static INTERFACE ${needed} Threads::Threads)

add_library(allmem::allmem ALIAS allmem)
add_library(allmem::allmem_static ALIAS allmem_static)
install(TARGETS allmem allmem_static EXPORT allmem-targets
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/NOTICE ${PROJECT_SOURCE_DIR}/THIRD_PARTY_NOTICES.md
        DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES ${PROJECT_SOURCE_DIR}/csrc/include/allmem/allmem.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/allmem)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/allmem)
install(EXPORT allmem-targets NAMESPACE allmem:: DESTINATION ${package})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/allmem-config.cmake.in allmem-config.cmake
                              INSTALL_DESTINATION ${package})
if(PROJECT_VERSION_MAJOR EQUAL 0)  # until 1.0.0 a minor release may break
  set(compatible SameMinorVersion)
else()
  set(compatible SameMajorVersion)
endif()
write_basic_package_version_file(allmem-config-version.cmake COMPATIBILITY ${compatible})
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/allmem-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/allmem-config-version.cmake
        DESTINATION ${package})

file(RELATIVE_PATH up ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
list(JOIN needed " " needed)
configure_file(${CMAKE_CURRENT_LIST_DIR}/allmem.pc.in allmem.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/allmem.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
