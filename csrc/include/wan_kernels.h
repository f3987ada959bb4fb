/* SPDX-License-Identifier: Apache-2.0
 *
 * wan_kernels: fused operations of the Wan video model behind a C ABI.
 *
 * The library needs neither Python nor a deep-learning framework. Conventions shared by every function:
 *
 * - Results come first, then inputs, then options, then the stream.
 * - The caller owns every buffer. Backward functions on the CPU take temporary memory and free it before they return;
 *   when there is none they return WK_ERROR_OUT_OF_MEMORY. Under results of 4 MB and more, CPU functions ask the system
 *   for huge pages (a hint: madvise on Linux).
 * - Nothing throws, aborts or prints. A call that cannot run returns a status other than WK_OK, leaves the results
 *   unwritten, and keeps a one-line reason for wk_last_error().
 * - Shapes are written [B, L, D]: B batch, L tokens, D width, N heads, H head width, R modulation rows, C channels.
 *   The last dimension of a row-wise tensor must have stride 1; the leading ones may be strided as long as they fold to
 *   at most two levels (slices, chunks and transposed batches do).
 * - Empty tensors are valid and do nothing, except that gradients summed over nothing become zero.
 * - NaN and infinity pass through as IEEE arithmetic says.
 * - All tensors of a call live on one device. `stream` is a cudaStream_t for CUDA tensors and ignored on the CPU.
 * - Functions may be called from any thread. On the CPU, results do not depend on the number of threads.
 */
#ifndef WAN_KERNELS_H
#define WAN_KERNELS_H

#include <stdint.h>

#if defined(_WIN32)
#define WK_API
#else
#define WK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a struct, a constant or a signature changes; compare with wk_abi_version(). */
#define WK_ABI_VERSION 3
#define WK_VERSION_STRING "0.1.0"
#define WK_MAX_DIMS 8

typedef enum wk_status {
  WK_OK = 0,
  WK_ERROR_INVALID_ARGUMENT = 1, /* a value is wrong: shape, dtype, null pointer, unknown ISA name */
  WK_ERROR_UNSUPPORTED = 2,      /* a valid request this build or machine cannot serve */
  WK_ERROR_OUT_OF_MEMORY = 3,    /* temporary memory could not be had */
  WK_ERROR_CUDA = 4              /* the CUDA runtime reported an error */
} wk_status;

typedef enum wk_dtype {
  WK_FLOAT32 = 1,
  WK_BFLOAT16 = 2,
  WK_FLOAT16 = 3,
  WK_FLOAT64 = 4, /* named so that it can be refused clearly: no kernel takes it */
  WK_INT32 = 5,
  WK_INT64 = 6,
  WK_INT8 = 7,
  WK_FLOAT8_E4M3 = 8 /* finite and NaN, no infinity; largest 448 */
} wk_dtype;

typedef enum wk_device { WK_CPU = 1, WK_CUDA = 2 } wk_device;

/* A view of memory that someone else owns. Strides count elements, not bytes. */
typedef struct wk_tensor {
  void *data;
  int64_t shape[WK_MAX_DIMS];
  int64_t stride[WK_MAX_DIMS];
  int32_t ndim;
  int32_t dtype;        /* wk_dtype */
  int32_t device;       /* wk_device */
  int32_t device_index; /* CUDA ordinal; 0 on the CPU */
} wk_tensor;

/* ---- The library ------------------------------------------------------------------------------------------------ */

/* The WK_ABI_VERSION the library was built with. */
WK_API int32_t wk_abi_version(void);

/* The WK_VERSION_STRING the library was built with. */
WK_API const char *wk_version(void);

/* What is inside, in words: "x86-64: baseline avx2 avx512 avx512_bf16, openmp, cuda: sm_90a". */
WK_API const char *wk_build_info(void);

/* The reason the last failing call on this thread gave, "[op] what must hold, what was received"; "" before any. */
WK_API const char *wk_last_error(void);

/* The instruction set that the CPU kernels run with: "baseline", "avx2", "avx512" or "avx512_bf16".
 * The widest the machine has, unless the environment variable WAN_KERNELS_CPU_ISA (read once) names another.
 * A name that is unknown, or that this machine or build cannot run, is an error here and in every CPU call. */
WK_API wk_status wk_cpu_isa(const char **name);

/* How many threads CPU calls from this thread use. 0 in the setter restores the default: OpenMP's choice, which follows
 * OMP_NUM_THREADS and omp_set_num_threads; 1 in a build without OpenMP. */
WK_API int32_t wk_num_threads(void);
WK_API void wk_set_num_threads(int32_t num_threads);

/* A view of contiguous (row-major) CPU memory; `shape` holds `ndim` <= WK_MAX_DIMS extents. */
WK_API wk_tensor wk_contiguous(void *data, int32_t dtype, int32_t ndim, const int64_t *shape);

/* ---- rms_norm --------------------------------------------------------------------------------------------------- */

/* out = round(x / sqrt(mean(x^2, last) + eps)) * weight
 *
 * x, out  [..., D] fp32, bf16 or fp16, same dtype. out may be x itself.
 * weight  [D] fp32, bf16 or fp16.
 * Numerics: statistics and quotient in fp32; the quotient is rounded to x's dtype, the product once more. */
WK_API wk_status wk_rms_norm(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight, double eps,
                             void *stream);

/* Gradients of wk_rms_norm; either result may be NULL.
 *
 * grad_x, grad_out, x  [..., D], one dtype. grad_weight, weight [D].
 * Numerics: fp32; grad_weight is summed in fp32 in an order fixed by the shape. CPU only. */
WK_API wk_status wk_rms_norm_backward(const wk_tensor *grad_x, const wk_tensor *grad_weight, const wk_tensor *grad_out,
                                      const wk_tensor *x, const wk_tensor *weight, double eps, void *stream);

/* ---- layer_norm_modulate ---------------------------------------------------------------------------------------- */

/* out = (normalise(x) * weight + bias) * (1 + scale[row]) + shift[row],  normalise(x) = (x - mean) / sqrt(var + eps)
 *
 * x             [B, L, D] fp32, bf16 or fp16. out likewise, of any of these dtypes.
 * scale, shift  [B, R, D], both or neither (NULL). fp32 is read in place, other dtypes through a copy.
 * weight, bias  [D], both or neither.
 * index         [B, L] int32 or int64 in [0, R): the modulation row of each token; NULL requires R == 1.
 * Numerics: all in fp32 with the biased variance about the computed mean, one rounding to out's dtype. */
WK_API wk_status wk_layer_norm_modulate(const wk_tensor *out, const wk_tensor *x, const wk_tensor *scale,
                                        const wk_tensor *shift, const wk_tensor *weight, const wk_tensor *bias,
                                        const wk_tensor *index, double eps, void *stream);

/* Gradients of wk_layer_norm_modulate; any result may be NULL, each has its input's shape.
 * Numerics: fp32; sums over tokens in an order fixed by the shape. CPU only. */
WK_API wk_status wk_layer_norm_modulate_backward(const wk_tensor *grad_x, const wk_tensor *grad_scale,
                                                 const wk_tensor *grad_shift, const wk_tensor *grad_weight,
                                                 const wk_tensor *grad_bias, const wk_tensor *grad_out,
                                                 const wk_tensor *x, const wk_tensor *scale, const wk_tensor *shift,
                                                 const wk_tensor *weight, const wk_tensor *bias, const wk_tensor *index,
                                                 double eps, void *stream);

/* The same, each row of the result quantised as wk_quantize_rows does: out [B, L, D] WK_INT8 or WK_FLOAT8_E4M3,
 * out_scale [B, L] fp32, contiguous.
 * Numerics: one rounding, to the code. CPU only. */
WK_API wk_status wk_layer_norm_modulate_8bit(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *x,
                                             const wk_tensor *scale, const wk_tensor *shift, const wk_tensor *weight,
                                             const wk_tensor *bias, const wk_tensor *index, double eps, void *stream);

/* ---- gate_residual ---------------------------------------------------------------------------------------------- */

/* out = x + y * gate[row]
 *
 * x, out  [B, L, D], one dtype: the residual stream, normally fp32. y [B, L, D] of any dtype.
 * gate    [B, R, D]. index as in wk_layer_norm_modulate. out may be x itself.
 * Numerics: fp32, one rounding to x's dtype. */
WK_API wk_status wk_gate_residual(const wk_tensor *out, const wk_tensor *x, const wk_tensor *y, const wk_tensor *gate,
                                  const wk_tensor *index, void *stream);

/* Gradients of wk_gate_residual; any result may be NULL. That of x is a copy of grad_out, made in the same pass.
 * Numerics: fp32; grad_gate is summed over tokens in an order fixed by the shape. CPU only. */
WK_API wk_status wk_gate_residual_backward(const wk_tensor *grad_x, const wk_tensor *grad_y, const wk_tensor *grad_gate,
                                           const wk_tensor *grad_out, const wk_tensor *y, const wk_tensor *gate,
                                           const wk_tensor *index, void *stream);

/* ---- gate_residual_layer_norm_modulate --------------------------------------------------------------------------- */

/* sum = x + y * gate[row],  out = (normalise(sum) * weight + bias) * (1 + scale[row]) + shift[row]
 *
 * What wk_gate_residual gives, and wk_layer_norm_modulate of that, in one pass.
 * x, sum        [B, L, D], one dtype: the residual stream, normally fp32. sum may be x itself.
 * y, out        [B, L, D], each fp32, bf16 or fp16.
 * gate          [B, R, D], or NULL for a gate of 1. scale, shift [B, R, D], both or neither.
 * weight, bias  [D], both or neither. index as in wk_layer_norm_modulate, for gate, scale and shift alike.
 * Numerics: fp32; sum is rounded once to x's dtype and normalised as rounded, the result rounded once to out's dtype.
 * CPU only. */
WK_API wk_status wk_gate_residual_layer_norm_modulate(const wk_tensor *sum, const wk_tensor *out, const wk_tensor *x,
                                                      const wk_tensor *y, const wk_tensor *gate, const wk_tensor *scale,
                                                      const wk_tensor *shift, const wk_tensor *weight,
                                                      const wk_tensor *bias, const wk_tensor *index, double eps,
                                                      void *stream);

/* Gradients of wk_gate_residual_layer_norm_modulate; any result may be NULL, each has its input's shape, grad_x and
 * grad_y its dtype too. `sum` is what the forward call wrote. grad_sum, of its dtype, and grad_out may be NULL for
 * zeros. Numerics: fp32; what comes through the norm is added to grad_sum before either is rounded; sums over tokens in
 * an order fixed by the shape. CPU only. */
WK_API wk_status wk_gate_residual_layer_norm_modulate_backward(
    const wk_tensor *grad_x, const wk_tensor *grad_y, const wk_tensor *grad_gate, const wk_tensor *grad_scale,
    const wk_tensor *grad_shift, const wk_tensor *grad_weight, const wk_tensor *grad_bias, const wk_tensor *grad_sum,
    const wk_tensor *grad_out, const wk_tensor *y, const wk_tensor *sum, const wk_tensor *gate, const wk_tensor *scale,
    const wk_tensor *shift, const wk_tensor *weight, const wk_tensor *bias, const wk_tensor *index, double eps,
    void *stream);

/* The same as the forward call, each row of the result quantised as wk_quantize_rows does: out [B, L, D] WK_INT8 or
 * WK_FLOAT8_E4M3, out_scale [B, L] fp32, contiguous.
 * Numerics: sum rounded once, the result once, to the code. CPU only. */
WK_API wk_status wk_gate_residual_layer_norm_modulate_8bit(const wk_tensor *sum, const wk_tensor *out,
                                                           const wk_tensor *out_scale, const wk_tensor *x,
                                                           const wk_tensor *y, const wk_tensor *gate,
                                                           const wk_tensor *scale, const wk_tensor *shift,
                                                           const wk_tensor *weight, const wk_tensor *bias,
                                                           const wk_tensor *index, double eps, void *stream);

/* ---- rms_norm_rope ---------------------------------------------------------------------------------------------- */

/* out = rotate(rms_norm(x, weight)): the norm spans all heads, then adjacent pairs (2i, 2i+1) of each head turn.
 *
 * x        [B, L, N*H] fp32, bf16 or fp16. out [B, L, N, H] of x's dtype. weight [N*H].
 * freqs_*  [len, pairs, 2] fp32, contiguous, holding (cos, sin); pairs_t + pairs_y + pairs_x == H / 2.
 * grid     {T, Y, X}, T*Y*X <= L, each extent at most its table's length. Token l < T*Y*X sits at (t, y, x), x fastest;
 *          the first pairs_t pairs turn by freqs_t[t], the next by freqs_y[y], the rest by freqs_x[x]. Tokens past the
 *          grid are normalised and not rotated.
 * Numerics: as wk_rms_norm up to the product with weight, which stays fp32 through the rotation; one final rounding. */
WK_API wk_status wk_rms_norm_rope(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight,
                                  const wk_tensor *freqs_t, const wk_tensor *freqs_y, const wk_tensor *freqs_x,
                                  int64_t num_heads, const int64_t grid[3], double eps, void *stream);

/* Gradients of wk_rms_norm_rope for x and weight; either result may be NULL. CPU only. */
WK_API wk_status wk_rms_norm_rope_backward(const wk_tensor *grad_x, const wk_tensor *grad_weight,
                                           const wk_tensor *grad_out, const wk_tensor *x, const wk_tensor *weight,
                                           const wk_tensor *freqs_t, const wk_tensor *freqs_y, const wk_tensor *freqs_x,
                                           int64_t num_heads, const int64_t grid[3], double eps, void *stream);

/* The same as int8 codes of out - mean with heads first, as 8-bit attention reads q and k:
 * out[b, l, n] ~ codes[b, n, l] * out_scale[b, n, l / tokens_per_scale] + mean[b, n].
 *
 * out        [B, N, L, H] WK_INT8, contiguous.
 * out_scale  [B, N, ceil(L / tokens_per_scale)] fp32, contiguous, as wk_quantize_rows makes them.
 * mean       [B, N, H] fp32, contiguous; written: the mean over all L tokens if is_smooth, else 0.
 * Numerics: all in fp32 and one rounding, to the code; x is not rounded after the norm. The mean is summed in an order
 * fixed by the shape. CPU only; temporary memory for 3 * H + 1 floats for each token of a block and thread. */
WK_API wk_status wk_rms_norm_rope_8bit(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean,
                                       const wk_tensor *x, const wk_tensor *weight, const wk_tensor *freqs_t,
                                       const wk_tensor *freqs_y, const wk_tensor *freqs_x, int64_t num_heads,
                                       const int64_t grid[3], double eps, int64_t tokens_per_scale, int32_t is_smooth,
                                       void *stream);

/* ---- channel_rms_norm_silu -------------------------------------------------------------------------------------- */

/* out = silu(x / max(||x||, 1e-12) * sqrt(C) * weight), the norm over dimension 1; silu only if apply_silu
 *
 * x, out  [B, C, ...] with one to three spatial dimensions, fp32, bf16 or fp16, one dtype, and both either contiguous
 * or channels-last (channel stride 1, spatial dimensions dense). out may be x itself. weight  [C]. Numerics: fp32, one
 * rounding to x's dtype. */
WK_API wk_status wk_channel_rms_norm_silu(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight,
                                          int32_t apply_silu, void *stream);

/* Gradients of wk_channel_rms_norm_silu; either result may be NULL. grad_x, grad_out and x share one memory layout.
 * Numerics: fp32; grad_weight is summed in an order fixed by the shape. CPU only. */
WK_API wk_status wk_channel_rms_norm_silu_backward(const wk_tensor *grad_x, const wk_tensor *grad_weight,
                                                   const wk_tensor *grad_out, const wk_tensor *x,
                                                   const wk_tensor *weight, int32_t apply_silu, void *stream);

/* ---- quantize_rows ---------------------------------------------------------------------------------------------- */

/* scale = max(amax, limit * 2^-126) / limit, out = round(x / scale), amax over the last dimension.
 *
 * x          [..., D] fp32, bf16 or fp16. out [..., D] WK_INT8 (limit 127) or WK_FLOAT8_E4M3 (limit 448).
 * out_scale  [...] fp32, contiguous.
 * Numerics: fp32, x multiplied by 1 / scale, one rounding, ties to even. A row that holds a NaN or an infinity has
 * codes 0 and that as its scale. CPU only. */
WK_API wk_status wk_quantize_rows(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *x, void *stream);

/* ---- quantize_heads --------------------------------------------------------------------------------------------- */

/* int8 codes of x - mean with heads first, as 8-bit attention reads q and k; wk_rms_norm_rope_8bit from an x that is
 * ready: x[b, l, n] ~ out[b, n, l] * out_scale[b, n, l / tokens_per_scale] + mean[b, n].
 *
 * x          [B, L, N, H] fp32, bf16 or fp16, the last dimension contiguous.
 * out        [B, N, L, H] WK_INT8, contiguous.
 * out_scale  [B, N, ceil(L / tokens_per_scale)] fp32, contiguous, as wk_quantize_rows makes them.
 * mean       [B, N, H] fp32, contiguous; written: the mean over all L tokens if is_smooth, else 0.
 * Numerics: fp32, one rounding, to the code. The mean is summed in an order fixed by the shape. CPU only. */
WK_API wk_status wk_quantize_heads(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean,
                                   const wk_tensor *x, int64_t tokens_per_scale, int32_t is_smooth, void *stream);

/* ---- quantize_values -------------------------------------------------------------------------------------------- */

/* Codes of v - mean by channel, tokens last, as 8-bit attention reads v:
 * v[b, l, n] ~ out[b, n, :, l] * out_scale[b, n, l / tokens_per_scale] + mean[b, n].
 *
 * v          [B, L, N, H] fp32, bf16 or fp16, the two last dimensions dense.
 * out        [B, N, H, P] WK_INT8 or WK_FLOAT8_E4M3, contiguous, P = L rounded up to a multiple of 128; 0 beyond L.
 * out_scale  [B, N, ceil(L / tokens_per_scale), H] fp32, contiguous: amax over the block's tokens / limit, as
 *            wk_quantize_rows has it.
 * mean       [B, N, H] fp32, contiguous; written: the mean over all tokens if is_smooth, else 0.
 * tokens_per_scale  a multiple of 128, or 0 for one block of all tokens.
 * is_permuted  position 16 g + p holds token 16 g + {0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15}[p].
 * Numerics: fp32, one rounding; the mean is summed in an order fixed by the shape. Where a channel's block holds a NaN
 * or an infinity, and with is_smooth in all blocks of the channel, codes are 0 and the scale is not finite. CPU only;
 * temporary memory for 3 * N * H floats for each 128 tokens at most. */
WK_API wk_status wk_quantize_values(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *mean,
                                    const wk_tensor *v, int64_t tokens_per_scale, int32_t is_smooth,
                                    int32_t is_permuted, void *stream);

/* ---- attention_8bit --------------------------------------------------------------------------------------------- */

/* softmax(q k^T * scale) v per head on codes; lse = log(sum(exp(q k^T * scale))). q, k and v stand for codes * scales +
 * mean; that of q has none.
 *
 * q          [B, N, L, H] WK_INT8, H a multiple of 16; q_scale [B, N, ceil(L / q_tokens_per_scale)] fp32.
 * k          [B, N, S, H] WK_INT8, S > 0; k_scale [B, N, ceil(S / k_tokens_per_scale)], k_mean [B, N, H] fp32: as
 *            wk_rms_norm_rope_8bit writes both.
 * v          [B, N, H, P] WK_INT8 in the order of tokens, on CUDA WK_FLOAT8_E4M3 permuted; P = S rounded up to a
 *            multiple of 128; v_scale [B, N, ceil(P / v_tokens_per_scale), H] (one block where that is 0; else a
 *            multiple of 128), v_mean [B, N, H] fp32: as wk_quantize_values writes them.
 * k_lengths  [B] int32 or int64 in [0, S], or NULL: how many keys of each sample are seen. Checked on the CPU, on CUDA
 *            taken for the nearest in that range.
 * prior_out  [B, L, N, H] fp32, bf16 or fp16 with prior_lse [B, N, L] fp32: the same queries' result over other keys,
 *            merged with; or NULL both.
 * out        [B, L, N, H] fp32, bf16 or fp16. lse [B, N, L] fp32. All contiguous, prior_out with dense rows.
 * Scales are not negative; one of q that is not finite makes its row so, one of k its head, one of v its channel.
 * Where no key is seen out is 0 and lse -inf.
 * Numerics: integers up to the scores. On the CPU probabilities in 8 bits of the largest of each tile of 256 keys (128
 * where v_tokens_per_scale asks for it), their products with v in integers, tiles added up in fp32; memory of the call:
 * at most the larger of 64 MiB and 2 * S * (H + 4) bytes, and 60 KiB a thread for H = 128. On CUDA probabilities in
 * float8, 448 for the largest of the row so far, products with v in the tensor cores' 13 bits, tiles of 128 keys added
 * up in fp32; no memory, no synchronisation; compute capability 9.0, H = 128, k_tokens_per_scale a multiple of 128,
 * v_tokens_per_scale 0, scale >= 0, q, k, v and out on 16 bytes. */
WK_API wk_status wk_attention_8bit(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *q,
                                   const wk_tensor *q_scale, const wk_tensor *k, const wk_tensor *k_scale,
                                   const wk_tensor *k_mean, const wk_tensor *v, const wk_tensor *v_scale,
                                   const wk_tensor *v_mean, const wk_tensor *k_lengths, const wk_tensor *prior_out,
                                   const wk_tensor *prior_lse, int64_t q_tokens_per_scale, int64_t k_tokens_per_scale,
                                   int64_t v_tokens_per_scale, double scale, void *stream);

/* ---- linear_8bit ------------------------------------------------------------------------------------------------ */

/* y = (x weight^T) * x_scale * weight_scale + bias, then gelu(y) in its tanh form, or residual + y * gate[row]
 *
 * x          [..., K] WK_INT8, K <= 65536. x_scale [...] fp32, contiguous.
 * weight     [ceil(N / 16), ceil(K / 4), 16, 4] WK_INT8, contiguous: what wk_pack_linear_8bit makes of [N, K], once.
 * weight_scale [N]. bias [N] or NULL.
 * out        [..., N] fp32, bf16 or fp16, out_scale NULL; or WK_INT8 or WK_FLOAT8_E4M3 with out_scale [...] fp32,
 *            contiguous: each row quantised as wk_quantize_rows does. out may be residual itself.
 * residual   [..., N] of out's dtype, or NULL; not with apply_gelu.
 * gate       [B, R, N], or NULL for a gate of 1; needs a residual and x [B, L, K]. index as in wk_layer_norm_modulate.
 * Numerics: products summed exactly in int32, the rest in fp32, one rounding. CPU only. */
WK_API wk_status wk_linear_8bit(const wk_tensor *out, const wk_tensor *out_scale, const wk_tensor *x,
                                const wk_tensor *x_scale, const wk_tensor *weight, const wk_tensor *weight_scale,
                                const wk_tensor *bias, const wk_tensor *residual, const wk_tensor *gate,
                                const wk_tensor *index, int32_t apply_gelu, void *stream);

/* The layout that wk_linear_8bit reads: out[n / 16, k / 4, n % 16, k % 4] = weight[n, k], zeros elsewhere.
 * weight [N, K] WK_INT8. CPU only. */
WK_API wk_status wk_pack_linear_8bit(const wk_tensor *out, const wk_tensor *weight);

/* ---- guided_update ---------------------------------------------------------------------------------------------- */

/* What a linear multistep solver does between two forwards of the model, guidance included:
 *
 *   velocity = negative + guidance_scale * (positive - negative)
 *   denoised = latents - sigma * velocity
 *   start    = base_weights . (base, older, newer, denoised), or latents where base is NULL
 *   result   = weights . (start, newer, denoised)
 *
 * All vectors [M], contiguous. positive and negative of one dtype, fp32, bf16 or fp16; the others fp32. negative NULL:
 * no guidance. older, newer NULL: zeros. start NULL exactly where base is. result may be latents itself.
 * Numerics: fp32. CPU only. */
WK_API wk_status wk_guided_update(const wk_tensor *result, const wk_tensor *denoised, const wk_tensor *start,
                                  const wk_tensor *positive, const wk_tensor *negative, const wk_tensor *latents,
                                  const wk_tensor *base, const wk_tensor *older, const wk_tensor *newer,
                                  double guidance_scale, double sigma, const double base_weights[4],
                                  const double weights[3], void *stream);

/* ---- causal_conv3d ---------------------------------------------------------------------------------------------- */

/* conv3d(cat(cache, x), weight) + bias: a convolution that sees the past, never the future.
 *
 * x       [B, C, T, Y, X], fp32, bf16 or fp16; its channels must lie side by side, the other strides may be any.
 * weight  [O, C, kt, ky, kx], any strides; bias [O] or NULL. x's dtype.
 * cache   [B, C, kt - stride_t, Y, X], the frames before x, laid out as x may be; NULL: zeros.
 * stride  (t, y, x), stride_t <= kt. padding: rows of zeros at (top, bottom, left, right).
 * out     [B, O, T', Y', X'], x's dtype, laid out as x may be.
 * Numerics: fp32, rounded once. For ky = kx = 3 and stride (any, 1, 1) Winograd's F(2x2, 3x3), and for 16-bit types
 * and frames of 4,096 output pixels and more F(4x4, 3x3): an infinity may come out as NaN, and with the larger tiles a
 * stray value reaches all 4 x 4 outputs of a tile whose 6 x 6 pixels hold it. Other products of bf16 are those of pairs
 * with AVX512-BF16. Memory of the call: the weights in fp32,
 * for Winograd 16 / 9 of them or 4 times, and a block for each thread. CPU only. */
WK_API wk_status wk_causal_conv3d(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight,
                                  const wk_tensor *bias, const wk_tensor *cache, const int64_t stride[3],
                                  const int64_t padding[4], void *stream);

/* The next T frames of a streamed wk_causal_conv3d, with the norm before it and the sum after it:
 * conv3d(norm(cat(past, x)), weight) + bias + residual, where norm is wk_channel_rms_norm_silu with SiLU by norm_weight
 * and past the h = kt - stride_t frames before x. Frame f, counted from the first of the stream, lies in slot f % R of
 * the ring; frames before the first are zeros. Then the last min(T, h) frames of x are written to their slots.
 *
 * x            [B, C, T, Y, X], T a multiple of stride_t; frame 0 of it is frame `position` of the stream.
 * ring         [B, C, R, Y, X], R >= h, read and written; only slots of those h frames are read.
 * norm_weight  [C], or NULL: no norm. residual [B, O, T', Y', X'], or NULL: none.
 * The rest, layouts, types and numerics as wk_causal_conv3d. Nothing is rounded between norm, products and sum, but the
 * normed frames where products are those of pairs. */
WK_API wk_status wk_causal_conv3d_ring(const wk_tensor *out, const wk_tensor *ring, const wk_tensor *x,
                                       const wk_tensor *weight, const wk_tensor *bias, const wk_tensor *norm_weight,
                                       const wk_tensor *residual, int64_t position, const int64_t stride[3],
                                       const int64_t padding[4], void *stream);

/* The 3 x 3 convolution, with a row of zeros on each side, of frames of twice as many rows and columns, in which each
 * pixel of x stands for 2 x 2: conv2d(nearest(x, 2), weight, padding 1) + bias of each frame, without those frames.
 *
 * x [B, C, T, Y, X], out [B, O, T, 2 Y, 2 X], weight [O, C, 3, 3], bias [O] or NULL: layouts, types and numerics as
 * wk_causal_conv3d. CPU only. */
WK_API wk_status wk_upsample_conv2d(const wk_tensor *out, const wk_tensor *x, const wk_tensor *weight,
                                    const wk_tensor *bias, void *stream);

/* ---- attention -------------------------------------------------------------------------------------------------- */

/* softmax(q k^T * scale) v per head; lse = log(sum(exp(q k^T * scale))).
 *
 * q, out     [B, L, N, H], k and v [B, S, N, H], one dtype, fp32, bf16 or fp16; H a multiple of 16, S > 0. The last
 *            stride must be 1, the others may be any.
 * k_lengths  [B] int32 or int64 in [0, S], checked, or NULL: how many keys of each sample are seen.
 * lse        [B, N, L] fp32, contiguous. Where no key is seen out is 0 and lse -inf.
 * Numerics: fp32. With AVX512-BF16, products of bf16 inputs are those of pairs, and the probabilities are rounded to
 * bf16 before their product with v. Memory of the call: at most the larger of 64 MiB and a head's k and v in fp32, and
 * 100 KiB a thread. CPU only. */
WK_API wk_status wk_attention(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *q, const wk_tensor *k,
                              const wk_tensor *v, const wk_tensor *k_lengths, double scale, void *stream);

/* Gradients of wk_attention, from its inputs and results.
 *
 * grad_q, grad_out  [B, L, N, H], grad_k and grad_v [B, S, N, H], q's dtype; last stride 1. grad_lse [B, N, L] fp32,
 *                   contiguous. grad_out or grad_lse may be NULL for zeros. Keys that are not seen get zeros.
 * Numerics: fp32, summed in an order fixed by the shape; where wk_attention rounds the probabilities, they and their
 * gradient are rounded. Memory of the call: 13 times that of a head's q in fp32 or 5 times that of all, but at most
 * 64 MiB unless one head needs more; and 3 KiB * H a thread. CPU only. */
WK_API wk_status wk_attention_backward(const wk_tensor *grad_q, const wk_tensor *grad_k, const wk_tensor *grad_v,
                                       const wk_tensor *grad_out, const wk_tensor *grad_lse, const wk_tensor *out,
                                       const wk_tensor *lse, const wk_tensor *q, const wk_tensor *k, const wk_tensor *v,
                                       const wk_tensor *k_lengths, double scale, void *stream);

/* ---- merge_attention -------------------------------------------------------------------------------------------- */

/* lse = log(exp(lse_a) + exp(lse_b)), out = out_a * exp(lse_a - lse) + out_b * exp(lse_b - lse)
 *
 * Of two attentions over disjoint sets of keys, the one over both.
 * out_a, out  [B, L, N, H], one dtype: the running sum, normally fp32. out_b [B, L, N, H] of any dtype.
 * lse_*, lse  [B, N, L] fp32, contiguous, natural logarithms. -inf: a part without keys, whose row is not read; the
 *             other part's is copied; both: 0 and -inf. +inf in both: the row is NaN, lse +inf.
 * out may be out_a itself, lse likewise lse_a.
 * Numerics: fp32, weights from lse_a - lse_b, one rounding to out's dtype. CPU only. */
WK_API wk_status wk_merge_attention(const wk_tensor *out, const wk_tensor *lse, const wk_tensor *out_a,
                                    const wk_tensor *lse_a, const wk_tensor *out_b, const wk_tensor *lse_b,
                                    void *stream);

/* Gradients of wk_merge_attention; any result may be NULL, each has its input's shape and dtype. grad_out, of out_a's
 * dtype, and grad_lse may be NULL for zeros. A part without keys gets zeros.
 * Numerics: fp32. CPU only. */
WK_API wk_status wk_merge_attention_backward(const wk_tensor *grad_out_a, const wk_tensor *grad_lse_a,
                                             const wk_tensor *grad_out_b, const wk_tensor *grad_lse_b,
                                             const wk_tensor *grad_out, const wk_tensor *grad_lse,
                                             const wk_tensor *out_a, const wk_tensor *lse_a, const wk_tensor *out_b,
                                             const wk_tensor *lse_b, void *stream);

#ifdef __cplusplus
}
#endif

#endif /* WAN_KERNELS_H */
