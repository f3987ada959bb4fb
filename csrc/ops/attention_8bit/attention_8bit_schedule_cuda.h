// SPDX-License-Identifier: Apache-2.0
// Who waits for what in the Hopper kernel, without what is computed: the kernel runs these two functions with actors
// that load and multiply, the tests with actors that note what they are told and are then let loose on each other.
//
// One warpgroup produces, of which one thread speaks to the copy engine; others consume, 64 queries each, and share
// every tile of keys and values. Tiles lie in two rings of stages. A stage has two barriers: `full`, which its bytes
// complete, and `empty`, at which each warp of the consumers arrives when it has read it.
#pragma once
#include "common/cuda/layout.h"

namespace wk::attention_8bit {

constexpr int kConsumers = 2;
constexpr int kStages = 4;
constexpr int kWarpsPerWarpgroup = 4;
constexpr int kArrivalsToEmpty = kConsumers * kWarpsPerWarpgroup;

enum Tile { kKeys, kValues };

// The next stage of a ring, and the parity of the phase of its barriers that this round through the ring is.
struct Ring {
  int stage = 0;
  uint32_t phase = 0;

  WK_HOST_DEVICE void advance() {
    if (++stage < kStages) return;
    stage = 0;
    phase ^= 1;
  }
};

template <class Producer>
WK_HOST_DEVICE void fill(Producer &producer, Tile tile, Ring &ring, int index) {
  producer.wait_until_empty(tile, ring.stage, ring.phase ^ 1);
  producer.load(tile, ring.stage, index);
  ring.advance();
}

// Tiles in the order in which they are needed.
template <class Producer>
WK_HOST_DEVICE void produce(Producer &producer, int num_tiles) {
  producer.load_queries();
  Ring keys, values;
  for (int index = 0; index < num_tiles; ++index) {
    fill(producer, kKeys, keys, index);
    if (index > 0) fill(producer, kValues, values, index - 1);
  }
  if (num_tiles > 0) fill(producer, kValues, values, num_tiles - 1);
}

template <class Consumer>
WK_HOST_DEVICE void start_scores(Consumer &consumer, const Ring &keys, int index) {
  consumer.wait_until_full(kKeys, keys.stage, keys.phase);
  consumer.start_scores(keys.stage, index);
}

template <class Consumer>
WK_HOST_DEVICE void start_products(Consumer &consumer, const Ring &values, int index) {
  consumer.wait_until_full(kValues, values.stage, values.phase);
  consumer.start_products(values.stage, index);
}

template <class Consumer>
WK_HOST_DEVICE void leave(Consumer &consumer, Tile tile, Ring &ring) {
  consumer.release(tile, ring.stage);
  ring.advance();
}

// The tensor cores work on the scores of a tile and on the products of the one before while the weights of the tile are
// found. With kTakesTurns consumers give the tensor cores work in turn, so that one multiplies while another weighs.
template <bool kTakesTurns, class Consumer>
WK_HOST_DEVICE void consume(Consumer &consumer, int num_tiles) {
  consumer.wait_for_queries();
  if (num_tiles == 0) return;
  Ring keys, values;
  if constexpr (kTakesTurns) consumer.open_turns(num_tiles);
  start_scores(consumer, keys, 0);
  consumer.template finish<0>();
  leave(consumer, kKeys, keys);
  consumer.weigh(0);
  consumer.pack();
  for (int index = 1; index < num_tiles; ++index) {
    if constexpr (kTakesTurns) consumer.wait_for_turn();
    start_scores(consumer, keys, index);
    start_products(consumer, values, index - 1);
    if constexpr (kTakesTurns) consumer.pass_turn(index + 1 == num_tiles);
    consumer.template finish<1>();  // the scores; the products go on
    leave(consumer, kKeys, keys);
    consumer.weigh(index);
    consumer.template finish<0>();
    leave(consumer, kValues, values);
    consumer.add_products();
    consumer.pack();
  }
  start_products(consumer, values, num_tiles - 1);
  consumer.template finish<0>();
  leave(consumer, kValues, values);
  consumer.add_products();
}

}  // namespace wk::attention_8bit
