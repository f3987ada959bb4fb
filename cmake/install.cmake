# SPDX-License-Identifier: Apache-2.0
# Header, library, and what find_package(wan_kernels) needs.
include(CMakePackageConfigHelpers)
set(WK_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/wan_kernels)

install(TARGETS wan_kernels EXPORT wan_kernels_targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT library
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library)
install(FILES csrc/include/wan_kernels.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT library)
install(EXPORT wan_kernels_targets NAMESPACE wan_kernels:: DESTINATION ${WK_PACKAGE_DIR} COMPONENT library)

configure_package_config_file(cmake/wan_kernelsConfig.cmake.in wan_kernelsConfig.cmake
  INSTALL_DESTINATION ${WK_PACKAGE_DIR})
write_basic_package_version_file(wan_kernelsConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/wan_kernelsConfig.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/wan_kernelsConfigVersion.cmake
  DESTINATION ${WK_PACKAGE_DIR} COMPONENT library)
