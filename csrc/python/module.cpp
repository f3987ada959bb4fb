// SPDX-License-Identifier: Apache-2.0
// wan_kernels._native: the C functions for Python, one register call per op.
//
// Tensors arrive through DLPack's C exchange table, which hands out pointer, shape and strides without creating Python
// objects (tens of nanoseconds per tensor) and needs no framework header.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

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

// Calls with the stream that is current on x's device, while other Python threads may run.
template <class Call>
void run(const Argument &x, const Call &call) {
  void *stream = x.get() ? wk_dlpack::current_stream(*x.get()) : nullptr;
  wk_status status;
  {
    py::gil_scoped_release unlocked;
    status = call(stream);
  }
  raise_if_failed(status);
}

std::string cpu_isa() {
  const char *name = nullptr;
  raise_if_failed(wk_cpu_isa(&name));
  return name;
}

using Object = py::object;

void register_rms_norm(py::module_ &m) {
  m.def("rms_norm", [](const Object &out, const Object &x, const Object &weight, double eps) {
    const Argument a_out(out), a_x(x), a_weight(weight);
    run(a_x, [&](void *stream) { return wk_rms_norm(a_out.get(), a_x.get(), a_weight.get(), eps, stream); });
  });
  m.def("rms_norm_backward", [](const Object &grad_x, const Object &grad_weight, const Object &grad_out,
                                const Object &x, const Object &weight, double eps) {
    const Argument a_grad_x(grad_x), a_grad_weight(grad_weight), a_grad_out(grad_out), a_x(x), a_weight(weight);
    run(a_x, [&](void *stream) {
      return wk_rms_norm_backward(a_grad_x.get(), a_grad_weight.get(), a_grad_out.get(), a_x.get(), a_weight.get(), eps,
                                  stream);
    });
  });
}

void register_layer_norm_modulate(py::module_ &m) {
  m.def("layer_norm_modulate", [](const Object &out, const Object &x, const Object &scale, const Object &shift,
                                  const Object &weight, const Object &bias, const Object &index, double eps) {
    const Argument a_out(out), a_x(x), a_scale(scale), a_shift(shift), a_weight(weight), a_bias(bias), a_index(index);
    run(a_x, [&](void *stream) {
      return wk_layer_norm_modulate(a_out.get(), a_x.get(), a_scale.get(), a_shift.get(), a_weight.get(), a_bias.get(),
                                    a_index.get(), eps, stream);
    });
  });
  m.def("layer_norm_modulate_backward",
        [](const Object &grad_x, const Object &grad_scale, const Object &grad_shift, const Object &grad_weight,
           const Object &grad_bias, const Object &grad_out, const Object &x, const Object &scale, const Object &shift,
           const Object &weight, const Object &bias, const Object &index, double eps) {
          const Argument a_grad_x(grad_x), a_grad_scale(grad_scale), a_grad_shift(grad_shift),
              a_grad_weight(grad_weight), a_grad_bias(grad_bias), a_grad_out(grad_out), a_x(x), a_scale(scale),
              a_shift(shift), a_weight(weight), a_bias(bias), a_index(index);
          run(a_x, [&](void *stream) {
            return wk_layer_norm_modulate_backward(a_grad_x.get(), a_grad_scale.get(), a_grad_shift.get(),
                                                   a_grad_weight.get(), a_grad_bias.get(), a_grad_out.get(), a_x.get(),
                                                   a_scale.get(), a_shift.get(), a_weight.get(), a_bias.get(),
                                                   a_index.get(), eps, stream);
          });
        });
}

void register_8bit(py::module_ &m) {
  m.def("quantize_rows", [](const Object &out, const Object &out_scale, const Object &x) {
    const Argument a_out(out), a_out_scale(out_scale), a_x(x);
    run(a_x, [&](void *stream) { return wk_quantize_rows(a_out.get(), a_out_scale.get(), a_x.get(), stream); });
  });
  m.def("quantize_heads", [](const Object &out, const Object &out_scale, const Object &mean, const Object &x,
                             int64_t tokens_per_scale, bool is_smooth) {
    const Argument a_out(out), a_out_scale(out_scale), a_mean(mean), a_x(x);
    run(a_x, [&](void *stream) {
      return wk_quantize_heads(a_out.get(), a_out_scale.get(), a_mean.get(), a_x.get(), tokens_per_scale, is_smooth,
                               stream);
    });
  });
  m.def("quantize_values", [](const Object &out, const Object &out_scale, const Object &mean, const Object &v,
                              int64_t tokens_per_scale, bool is_smooth, bool is_permuted) {
    const Argument a_out(out), a_out_scale(out_scale), a_mean(mean), a_v(v);
    run(a_v, [&](void *stream) {
      return wk_quantize_values(a_out.get(), a_out_scale.get(), a_mean.get(), a_v.get(), tokens_per_scale, is_smooth,
                                is_permuted, stream);
    });
  });
  m.def("attention_8bit",
        [](const Object &out, const Object &lse, const Object &q, const Object &q_scale, const Object &k,
           const Object &k_scale, const Object &k_mean, const Object &v, const Object &v_scale, const Object &v_mean,
           const Object &k_lengths, const Object &prior_out, const Object &prior_lse, int64_t q_tokens_per_scale,
           int64_t k_tokens_per_scale, int64_t v_tokens_per_scale, double scale) {
          const Argument a_out(out), a_lse(lse), a_q(q), a_q_scale(q_scale), a_k(k), a_k_scale(k_scale),
              a_k_mean(k_mean), a_v(v), a_v_scale(v_scale), a_v_mean(v_mean), a_k_lengths(k_lengths),
              a_prior_out(prior_out), a_prior_lse(prior_lse);
          run(a_q, [&](void *stream) {
            return wk_attention_8bit(a_out.get(), a_lse.get(), a_q.get(), a_q_scale.get(), a_k.get(), a_k_scale.get(),
                                     a_k_mean.get(), a_v.get(), a_v_scale.get(), a_v_mean.get(), a_k_lengths.get(),
                                     a_prior_out.get(), a_prior_lse.get(), q_tokens_per_scale, k_tokens_per_scale,
                                     v_tokens_per_scale, scale, stream);
          });
        });
  m.def("pack_linear_8bit", [](const Object &out, const Object &weight) {
    const Argument a_out(out), a_weight(weight);
    run(a_weight, [&](void *) { return wk_pack_linear_8bit(a_out.get(), a_weight.get()); });
  });
  m.def("layer_norm_modulate_8bit",
        [](const Object &out, const Object &out_scale, const Object &x, const Object &scale, const Object &shift,
           const Object &weight, const Object &bias, const Object &index, double eps) {
          const Argument a_out(out), a_out_scale(out_scale), a_x(x), a_scale(scale), a_shift(shift), a_weight(weight),
              a_bias(bias), a_index(index);
          run(a_x, [&](void *stream) {
            return wk_layer_norm_modulate_8bit(a_out.get(), a_out_scale.get(), a_x.get(), a_scale.get(), a_shift.get(),
                                               a_weight.get(), a_bias.get(), a_index.get(), eps, stream);
          });
        });
  m.def("linear_8bit", [](const Object &out, const Object &out_scale, const Object &x, const Object &x_scale,
                          const Object &weight, const Object &weight_scale, const Object &bias, const Object &residual,
                          const Object &gate, const Object &index, bool apply_gelu) {
    const Argument a_out(out), a_out_scale(out_scale), a_x(x), a_x_scale(x_scale), a_weight(weight),
        a_weight_scale(weight_scale), a_bias(bias), a_residual(residual), a_gate(gate), a_index(index);
    run(a_x, [&](void *stream) {
      return wk_linear_8bit(a_out.get(), a_out_scale.get(), a_x.get(), a_x_scale.get(), a_weight.get(),
                            a_weight_scale.get(), a_bias.get(), a_residual.get(), a_gate.get(), a_index.get(),
                            apply_gelu, stream);
    });
  });
}

void register_gate_residual(py::module_ &m) {
  m.def("gate_residual",
        [](const Object &out, const Object &x, const Object &y, const Object &gate, const Object &index) {
          const Argument a_out(out), a_x(x), a_y(y), a_gate(gate), a_index(index);
          run(a_x, [&](void *stream) {
            return wk_gate_residual(a_out.get(), a_x.get(), a_y.get(), a_gate.get(), a_index.get(), stream);
          });
        });
  m.def("gate_residual_backward", [](const Object &grad_x, const Object &grad_y, const Object &grad_gate,
                                     const Object &grad_out, const Object &y, const Object &gate, const Object &index) {
    const Argument a_grad_x(grad_x), a_grad_y(grad_y), a_grad_gate(grad_gate), a_grad_out(grad_out), a_y(y),
        a_gate(gate), a_index(index);
    run(a_y, [&](void *stream) {
      return wk_gate_residual_backward(a_grad_x.get(), a_grad_y.get(), a_grad_gate.get(), a_grad_out.get(), a_y.get(),
                                       a_gate.get(), a_index.get(), stream);
    });
  });
}

void register_gate_residual_layer_norm_modulate(py::module_ &m) {
  m.def("gate_residual_layer_norm_modulate",
        [](const Object &sum, const Object &out, const Object &x, const Object &y, const Object &gate,
           const Object &scale, const Object &shift, const Object &weight, const Object &bias, const Object &index,
           double eps) {
          const Argument a_sum(sum), a_out(out), a_x(x), a_y(y), a_gate(gate), a_scale(scale), a_shift(shift),
              a_weight(weight), a_bias(bias), a_index(index);
          run(a_x, [&](void *stream) {
            return wk_gate_residual_layer_norm_modulate(a_sum.get(), a_out.get(), a_x.get(), a_y.get(), a_gate.get(),
                                                        a_scale.get(), a_shift.get(), a_weight.get(), a_bias.get(),
                                                        a_index.get(), eps, stream);
          });
        });
  m.def("gate_residual_layer_norm_modulate_backward",
        [](const Object &grad_x, const Object &grad_y, const Object &grad_gate, const Object &grad_scale,
           const Object &grad_shift, const Object &grad_weight, const Object &grad_bias, const Object &grad_sum,
           const Object &grad_out, const Object &y, const Object &sum, const Object &gate, const Object &scale,
           const Object &shift, const Object &weight, const Object &bias, const Object &index, double eps) {
          const Argument a_grad_x(grad_x), a_grad_y(grad_y), a_grad_gate(grad_gate), a_grad_scale(grad_scale),
              a_grad_shift(grad_shift), a_grad_weight(grad_weight), a_grad_bias(grad_bias), a_grad_sum(grad_sum),
              a_grad_out(grad_out), a_y(y), a_sum(sum), a_gate(gate), a_scale(scale), a_shift(shift), a_weight(weight),
              a_bias(bias), a_index(index);
          run(a_sum, [&](void *stream) {
            return wk_gate_residual_layer_norm_modulate_backward(
                a_grad_x.get(), a_grad_y.get(), a_grad_gate.get(), a_grad_scale.get(), a_grad_shift.get(),
                a_grad_weight.get(), a_grad_bias.get(), a_grad_sum.get(), a_grad_out.get(), a_y.get(), a_sum.get(),
                a_gate.get(), a_scale.get(), a_shift.get(), a_weight.get(), a_bias.get(), a_index.get(), eps, stream);
          });
        });
  m.def("gate_residual_layer_norm_modulate_8bit",
        [](const Object &sum, const Object &out, const Object &out_scale, const Object &x, const Object &y,
           const Object &gate, const Object &scale, const Object &shift, const Object &weight, const Object &bias,
           const Object &index, double eps) {
          const Argument a_sum(sum), a_out(out), a_out_scale(out_scale), a_x(x), a_y(y), a_gate(gate), a_scale(scale),
              a_shift(shift), a_weight(weight), a_bias(bias), a_index(index);
          run(a_x, [&](void *stream) {
            return wk_gate_residual_layer_norm_modulate_8bit(a_sum.get(), a_out.get(), a_out_scale.get(), a_x.get(),
                                                             a_y.get(), a_gate.get(), a_scale.get(), a_shift.get(),
                                                             a_weight.get(), a_bias.get(), a_index.get(), eps, stream);
          });
        });
}

using Grid = std::array<int64_t, 3>;

void register_rms_norm_rope(py::module_ &m) {
  m.def("rms_norm_rope",
        [](const Object &out, const Object &x, const Object &weight, const Object &freqs_t, const Object &freqs_y,
           const Object &freqs_x, int64_t num_heads, const Grid &grid, double eps) {
          const Argument a_out(out), a_x(x), a_weight(weight), a_t(freqs_t), a_y(freqs_y), a_fx(freqs_x);
          run(a_x, [&](void *stream) {
            return wk_rms_norm_rope(a_out.get(), a_x.get(), a_weight.get(), a_t.get(), a_y.get(), a_fx.get(), num_heads,
                                    grid.data(), eps, stream);
          });
        });
  m.def("rms_norm_rope_8bit",
        [](const Object &out, const Object &out_scale, const Object &mean, const Object &x, const Object &weight,
           const Object &freqs_t, const Object &freqs_y, const Object &freqs_x, int64_t num_heads, const Grid &grid,
           double eps, int64_t tokens_per_scale, bool is_smooth) {
          const Argument a_out(out), a_out_scale(out_scale), a_mean(mean), a_x(x), a_weight(weight), a_t(freqs_t),
              a_y(freqs_y), a_fx(freqs_x);
          run(a_x, [&](void *stream) {
            return wk_rms_norm_rope_8bit(a_out.get(), a_out_scale.get(), a_mean.get(), a_x.get(), a_weight.get(),
                                         a_t.get(), a_y.get(), a_fx.get(), num_heads, grid.data(), eps,
                                         tokens_per_scale, is_smooth, stream);
          });
        });
  m.def("rms_norm_rope_backward", [](const Object &grad_x, const Object &grad_weight, const Object &grad_out,
                                     const Object &x, const Object &weight, const Object &freqs_t,
                                     const Object &freqs_y, const Object &freqs_x, int64_t num_heads, const Grid &grid,
                                     double eps) {
    const Argument a_grad_x(grad_x), a_grad_weight(grad_weight), a_grad_out(grad_out), a_x(x), a_weight(weight),
        a_t(freqs_t), a_y(freqs_y), a_fx(freqs_x);
    run(a_x, [&](void *stream) {
      return wk_rms_norm_rope_backward(a_grad_x.get(), a_grad_weight.get(), a_grad_out.get(), a_x.get(), a_weight.get(),
                                       a_t.get(), a_y.get(), a_fx.get(), num_heads, grid.data(), eps, stream);
    });
  });
}

void register_channel_rms_norm_silu(py::module_ &m) {
  m.def("channel_rms_norm_silu", [](const Object &out, const Object &x, const Object &weight, bool apply_silu) {
    const Argument a_out(out), a_x(x), a_weight(weight);
    run(a_x, [&](void *stream) {
      return wk_channel_rms_norm_silu(a_out.get(), a_x.get(), a_weight.get(), apply_silu, stream);
    });
  });
  m.def("channel_rms_norm_silu_backward", [](const Object &grad_x, const Object &grad_weight, const Object &grad_out,
                                             const Object &x, const Object &weight, bool apply_silu) {
    const Argument a_grad_x(grad_x), a_grad_weight(grad_weight), a_grad_out(grad_out), a_x(x), a_weight(weight);
    run(a_x, [&](void *stream) {
      return wk_channel_rms_norm_silu_backward(a_grad_x.get(), a_grad_weight.get(), a_grad_out.get(), a_x.get(),
                                               a_weight.get(), apply_silu, stream);
    });
  });
}

void register_guided_update(py::module_ &m) {
  m.def("guided_update", [](const Object &result, const Object &denoised, const Object &start, const Object &positive,
                            const Object &negative, const Object &latents, const Object &base, const Object &older,
                            const Object &newer, double guidance_scale, double sigma,
                            const std::array<double, 4> &base_weights, const std::array<double, 3> &weights) {
    const Argument a_result(result), a_denoised(denoised), a_start(start), a_positive(positive), a_negative(negative),
        a_latents(latents), a_base(base), a_older(older), a_newer(newer);
    run(a_latents, [&](void *stream) {
      return wk_guided_update(a_result.get(), a_denoised.get(), a_start.get(), a_positive.get(), a_negative.get(),
                              a_latents.get(), a_base.get(), a_older.get(), a_newer.get(), guidance_scale, sigma,
                              base_weights.data(), weights.data(), stream);
    });
  });
}

void register_causal_conv3d(py::module_ &m) {
  m.def("causal_conv3d",
        [](const Object &out, const Object &x, const Object &weight, const Object &bias, const Object &cache,
           const std::array<int64_t, 3> &stride, const std::array<int64_t, 4> &padding) {
          const Argument a_out(out), a_x(x), a_weight(weight), a_bias(bias), a_cache(cache);
          run(a_x, [&](void *stream) {
            return wk_causal_conv3d(a_out.get(), a_x.get(), a_weight.get(), a_bias.get(), a_cache.get(), stride.data(),
                                    padding.data(), stream);
          });
        });
}

void register_causal_conv3d_ring(py::module_ &m) {
  m.def("causal_conv3d_ring",
        [](const Object &out, const Object &ring, const Object &x, const Object &weight, const Object &bias,
           const Object &norm_weight, const Object &residual, int64_t position, const std::array<int64_t, 3> &stride,
           const std::array<int64_t, 4> &padding) {
          const Argument a_out(out), a_ring(ring), a_x(x), a_weight(weight), a_bias(bias), a_norm_weight(norm_weight),
              a_residual(residual);
          run(a_x, [&](void *stream) {
            return wk_causal_conv3d_ring(a_out.get(), a_ring.get(), a_x.get(), a_weight.get(), a_bias.get(),
                                         a_norm_weight.get(), a_residual.get(), position, stride.data(), padding.data(),
                                         stream);
          });
        });
}

void register_upsample_conv2d(py::module_ &m) {
  m.def("upsample_conv2d", [](const Object &out, const Object &x, const Object &weight, const Object &bias) {
    const Argument a_out(out), a_x(x), a_weight(weight), a_bias(bias);
    run(a_x,
        [&](void *stream) { return wk_upsample_conv2d(a_out.get(), a_x.get(), a_weight.get(), a_bias.get(), stream); });
  });
}

void register_attention(py::module_ &m) {
  m.def("attention", [](const Object &out, const Object &lse, const Object &q, const Object &k, const Object &v,
                        const Object &k_lengths, double scale) {
    const Argument a_out(out), a_lse(lse), a_q(q), a_k(k), a_v(v), a_k_lengths(k_lengths);
    run(a_q, [&](void *stream) {
      return wk_attention(a_out.get(), a_lse.get(), a_q.get(), a_k.get(), a_v.get(), a_k_lengths.get(), scale, stream);
    });
  });
  m.def("attention_backward",
        [](const Object &grad_q, const Object &grad_k, const Object &grad_v, const Object &grad_out,
           const Object &grad_lse, const Object &out, const Object &lse, const Object &q, const Object &k,
           const Object &v, const Object &k_lengths, double scale) {
          const Argument a_grad_q(grad_q), a_grad_k(grad_k), a_grad_v(grad_v), a_grad_out(grad_out),
              a_grad_lse(grad_lse), a_out(out), a_lse(lse), a_q(q), a_k(k), a_v(v), a_k_lengths(k_lengths);
          run(a_q, [&](void *stream) {
            return wk_attention_backward(a_grad_q.get(), a_grad_k.get(), a_grad_v.get(), a_grad_out.get(),
                                         a_grad_lse.get(), a_out.get(), a_lse.get(), a_q.get(), a_k.get(), a_v.get(),
                                         a_k_lengths.get(), scale, stream);
          });
        });
}

void register_merge_attention(py::module_ &m) {
  m.def("merge_attention", [](const Object &out, const Object &lse, const Object &out_a, const Object &lse_a,
                              const Object &out_b, const Object &lse_b) {
    const Argument a_out(out), a_lse(lse), a_out_a(out_a), a_lse_a(lse_a), a_out_b(out_b), a_lse_b(lse_b);
    run(a_out_a, [&](void *stream) {
      return wk_merge_attention(a_out.get(), a_lse.get(), a_out_a.get(), a_lse_a.get(), a_out_b.get(), a_lse_b.get(),
                                stream);
    });
  });
  m.def("merge_attention_backward",
        [](const Object &grad_out_a, const Object &grad_lse_a, const Object &grad_out_b, const Object &grad_lse_b,
           const Object &grad_out, const Object &grad_lse, const Object &out_a, const Object &lse_a,
           const Object &out_b, const Object &lse_b) {
          const Argument a_grad_out_a(grad_out_a), a_grad_lse_a(grad_lse_a), a_grad_out_b(grad_out_b),
              a_grad_lse_b(grad_lse_b), a_grad_out(grad_out), a_grad_lse(grad_lse), a_out_a(out_a), a_lse_a(lse_a),
              a_out_b(out_b), a_lse_b(lse_b);
          run(a_out_a, [&](void *stream) {
            return wk_merge_attention_backward(a_grad_out_a.get(), a_grad_lse_a.get(), a_grad_out_b.get(),
                                               a_grad_lse_b.get(), a_grad_out.get(), a_grad_lse.get(), a_out_a.get(),
                                               a_lse_a.get(), a_out_b.get(), a_lse_b.get(), stream);
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
  register_layer_norm_modulate(m);
  register_8bit(m);
  register_gate_residual(m);
  register_gate_residual_layer_norm_modulate(m);
  register_rms_norm_rope(m);
  register_channel_rms_norm_silu(m);
  register_guided_update(m);
  register_causal_conv3d(m);
  register_causal_conv3d_ring(m);
  register_upsample_conv2d(m);
  register_attention(m);
  register_merge_attention(m);
}
