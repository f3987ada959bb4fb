// SPDX-License-Identifier: Apache-2.0
// wan_kernels._native: the C functions for Python, one register call per op.
//
// Tensors arrive through DLPack's C exchange table, which hands out pointer, shape and strides without creating Python
// objects (tens of nanoseconds per tensor) and needs no framework header.
#include <pybind11/pybind11.h>

#include <array>
#include <stdexcept>
#include <string>

#include "dlpack_exchange.h"
#include "wan_kernels.h"

namespace py = pybind11;

namespace {

void raise_if_failed(wk_status status) {
  if (status == WK_OK) return;
  const char *message = wk_last_error();
  if (status == WK_ERROR_INVALID_ARGUMENT) throw py::value_error(message);
  if (status == WK_ERROR_OUT_OF_MEMORY) {
    PyErr_SetString(PyExc_MemoryError, message);
    throw py::error_already_set();
  }
  throw std::runtime_error(message);
}

// An optional tensor argument: `get()` is NULL for None.
class Argument {
 public:
  explicit Argument(const py::object &object) : is_given_(!object.is_none()) {
    if (is_given_) tensor_ = wk_dlpack::view(object.ptr());
  }
  const wk_tensor *get() const { return is_given_ ? &tensor_ : nullptr; }

 private:
  wk_tensor tensor_;
  bool is_given_;
};

void *stream_of(const Argument &x) { return wk_dlpack::current_stream(*x.get()); }

template <class Call>
void run(const Call &call) {
  wk_status status;
  {
    py::gil_scoped_release unlocked;
    status = call();
  }
  raise_if_failed(status);
}

std::string cpu_isa() {
  const char *name = nullptr;
  raise_if_failed(wk_cpu_isa(&name));
  return name;
}

void register_rms_norm(py::module_ &m) {
  using Object = py::object;
  m.def("rms_norm", [](const Object &out, const Object &x, const Object &weight, double eps) {
    const Argument a_out(out), a_x(x), a_weight(weight);
    run([&] { return wk_rms_norm(a_out.get(), a_x.get(), a_weight.get(), eps, stream_of(a_x)); });
  });
  m.def("rms_norm_backward", [](const Object &grad_x, const Object &grad_weight, const Object &grad_out,
                                const Object &x, const Object &weight, double eps) {
    const Argument a_grad_x(grad_x), a_grad_weight(grad_weight), a_grad_out(grad_out), a_x(x), a_weight(weight);
    run([&] {
      return wk_rms_norm_backward(a_grad_x.get(), a_grad_weight.get(), a_grad_out.get(), a_x.get(), a_weight.get(), eps,
                                  stream_of(a_x));
    });
  });
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "The wan_kernels C library. Results first, then inputs, then options; None stands for NULL.";
  m.def("attach", &wk_dlpack::attach, "Take the tensor class whose objects the functions will receive.");
  m.def("abi_version", &wk_abi_version);
  m.def("version", &wk_version);
  m.def("build_info", &wk_build_info);
  m.def("cpu_isa", &cpu_isa);
  m.def("num_threads", &wk_num_threads);
  m.def("set_num_threads", &wk_set_num_threads);
  register_rms_norm(m);
}
