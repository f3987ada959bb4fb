// SPDX-License-Identifier: Apache-2.0
// Borrowed views of framework tensors through the DLPack C exchange table (DLPack 1.3).
//
// The structs below state the published binary interface, https://github.com/dmlc/dlpack (include/dlpack/dlpack.h),
// reduced to what is read here.
#pragma once
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "wan_kernels.h"

namespace wk_dlpack {

struct Version {
  uint32_t major, minor;
};
struct Device {
  int32_t type, index;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void *data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t *shape;
  int64_t *strides;
  uint64_t byte_offset;
};
struct Exchange {
  Version version;
  void *previous;
  void *allocate;
  void *managed_from_object;
  void *object_from_managed;
  int (*view_object)(void *object, Tensor *out);
  int (*current_stream)(int32_t device_type, int32_t device_index, void **out);
};

constexpr int32_t kCpu = 1;
constexpr int32_t kCuda = 2;

inline const Exchange *&exchange() {
  static const Exchange *table = nullptr;
  return table;
}

inline PyTypeObject *&tensor_class() {
  static PyTypeObject *type = nullptr;
  return type;
}

inline void attach(const pybind11::type &type) {
  const pybind11::object capsule = type.attr("__dlpack_c_exchange_api__");
  const auto *table = static_cast<const Exchange *>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!table) throw pybind11::error_already_set();
  if (table->version.major != 1 || !table->view_object) {
    throw std::runtime_error(
        "[native] the tensor class must offer DLPack exchange version 1 with borrowed views, got " +
        std::to_string(table->version.major) + "." + std::to_string(table->version.minor));
  }
  exchange() = table;
  tensor_class() = reinterpret_cast<PyTypeObject *>(type.inc_ref().ptr());
}

inline int32_t dtype_of(DataType type) {
  constexpr uint8_t kInt = 0, kFloat = 2, kBfloat = 4, kFloat8E4m3fn = 10;
  if (type.code == kFloat)
    return type.bits == 32 ? WK_FLOAT32 : type.bits == 16 ? WK_FLOAT16 : type.bits == 64 ? WK_FLOAT64 : 0;
  if (type.code == kBfloat) return type.bits == 16 ? WK_BFLOAT16 : 0;
  if (type.code == kInt) return type.bits == 32 ? WK_INT32 : type.bits == 64 ? WK_INT64 : type.bits == 8 ? WK_INT8 : 0;
  if (type.code == kFloat8E4m3fn) return WK_FLOAT8_E4M3;
  return 0;
}

// The object must outlive the view.
inline wk_tensor view(PyObject *object) {
  if (!exchange()) throw std::runtime_error("[native] attach(torch.Tensor) must be called first");
  if (!PyObject_TypeCheck(object, tensor_class())) {
    throw pybind11::type_error(std::string("[native] arguments must be tensors, got ") + Py_TYPE(object)->tp_name);
  }
  Tensor source;
  if (exchange()->view_object(object, &source) != 0) throw pybind11::error_already_set();
  if (source.ndim > WK_MAX_DIMS) throw pybind11::value_error("[native] tensors must have at most 8 dimensions");
  wk_tensor result;
  result.data = static_cast<char *>(source.data) + source.byte_offset;
  result.ndim = source.ndim;
  result.dtype = dtype_of(source.dtype);
  result.device = source.device.type == kCpu ? WK_CPU : source.device.type == kCuda ? WK_CUDA : 0;
  result.device_index = source.device.type == kCpu ? 0 : source.device.index;
  for (int32_t d = 0; d < source.ndim; ++d) {
    result.shape[d] = source.shape[d];
    result.stride[d] = source.strides[d];
  }
  return result;
}

inline void *current_stream(const wk_tensor &tensor) {
  void *stream = nullptr;
  if (tensor.device == WK_CUDA && exchange()->current_stream(kCuda, tensor.device_index, &stream) != 0) {
    throw pybind11::error_already_set();
  }
  return stream;
}

}  // namespace wk_dlpack
