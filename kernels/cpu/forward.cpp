#include "forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace bidtrie {
namespace {

/// Wanted rows that go through the head together: bounds the memory for whole rows of logits.
constexpr std::size_t kHeadRows = 32;
/// Logits that are summed up together for a log-sum-exp.
constexpr std::size_t kVocabularyBlock = 4096;
/// Values of gate, and of up, that a thread computes before it multiplies them: few enough to be still in its
/// cache.
constexpr std::size_t kGateValues = 8192;

struct Range {
  std::size_t begin, end;
};

/// Thread `thread`'s share of `count` items in order.
Range share(std::size_t count, int thread, int threads) {
  const auto t = static_cast<std::size_t>(thread), n = static_cast<std::size_t>(threads);
  return {count * t / n, count * (t + 1) / n};
}

bool is_quantized(const Linear& linear) {
  return linear.weight.is_quantized();
}

const float* bias_of(const Linear& linear) {
  return linear.bias.size() ? linear.bias.data() : nullptr;
}

std::size_t place(std::int32_t i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

/// A linear and where its result goes.
struct Forward::Product {
  const Matrix& weight;
  const float* bias;
  Activations inputs;
  float* out;
  std::size_t stride;
  bool accumulate;
};

Forward::Forward(const Model& model, const Kernels& kernels, int threads, std::size_t slots,
                 std::size_t max_nodes, bool half_kv)
    : model_(model),
      kernels_(kernels),
      team_(threads),
      head_stride_(round_up(model.config.head_dim, kLanes)),
      kv_stride_(model.config.num_kv_heads * head_stride_),
      half_kv_(half_kv),
      max_nodes_(max_nodes),
      hidden_stride_(round_up(model.config.hidden_size, kBlock)),
      hidden_(max_nodes * hidden_stride_),
      normed_(max_nodes, model.config.hidden_size),
      q_(max_nodes * model.config.query_size()),
      k_(max_nodes * model.config.kv_size()),
      v_(max_nodes * model.config.kv_size()),
      queries_(max_nodes * model.config.num_heads * head_stride_),
      attended_(max_nodes, model.config.query_size()),
      inner_(max_nodes, model.config.intermediate_size),
      up_(max_nodes * inner_.stride()),
      head_inputs_(kHeadRows, model.config.hidden_size),
      head_rows_(kHeadRows * model.config.vocab_size),
      place_of_(max_nodes) {
  const ModelConfig& config = model.config;
  for (std::size_t i = 0; i < config.num_layers; ++i) {
    const std::size_t bytes = slots * kv_stride_ * (half_kv ? sizeof(std::uint16_t) : sizeof(float));
    keys_.emplace_back(bytes);
    values_.emplace_back(bytes);
  }
  const std::size_t blocks = (config.vocab_size + kVocabularyBlock - 1) / kVocabularyBlock;
  block_largest_ = Buffer<float>(kHeadRows * blocks);
  block_sum_ = Buffer<double>(kHeadRows * blocks);
  wanted_.reserve(max_nodes);

  // A path has a slot for each of its positions, so no position reaches the number of slots.
  const std::size_t positions = std::min(config.context_length, slots), half = config.head_dim / 2;
  cosines_ = Buffer<float>(positions * half);
  sines_ = Buffer<float>(positions * half);
  for (std::size_t position = 0; position < positions; ++position) {
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * static_cast<double>(config.inv_freq[i]);
      cosines_[position * half + i] = static_cast<float>(std::cos(angle) * config.attention_factor);
      sines_[position * half + i] = static_cast<float>(std::sin(angle) * config.attention_factor);
    }
  }
  const std::size_t queries = kPanel * (config.num_heads / config.num_kv_heads);
  for (int i = 0; i < threads; ++i) {
    Scratch scratch;
    for (auto& list : scratch.slots) list.resize(positions);
    scratch.rows = Buffer<float>(2 * kAttentionBlock * head_stride_);
    scratch.states.resize(queries);
    scratch.sums = Buffer<float>(queries * head_stride_);
    scratch.head = Buffer<float>(head_stride_);
    scratch_.push_back(std::move(scratch));
  }
}

void Forward::run(const TreeBatch& batch, const StepPlan& plan, StepOutput& output) noexcept {
  batch_ = &batch;
  plan_ = &plan;
  output_ = &output;
  nodes_ = batch.size();
  if (nodes_ == 0) return;
  std::fill(place_of_.begin(), place_of_.end(), 0);
  for (const std::int32_t node : batch.logits_for) place_of_[place(node)] = 1;
  wanted_.clear();
  for (std::size_t i = 0; i < nodes_; ++i) {
    if (place_of_[i] == 0) continue;
    place_of_[i] = static_cast<std::int32_t>(wanted_.size());
    wanted_.push_back(static_cast<std::int32_t>(i));
  }
  auto job = [this](int thread) { work(thread); };
  team_.run(job);
}

void Forward::work(int thread) noexcept {
  embed(thread);
  team_.barrier();
  std::size_t nodes = nodes_;
  for (std::size_t i = 0; i < model_.layers.size(); ++i) {
    const Layer& layer = model_.layers[i];
    normalize(thread, layer.attention_norm, nodes,
              is_quantized(layer.q) || is_quantized(layer.k) || is_quantized(layer.v));
    team_.barrier();
    const Product qkv[] = {
        {layer.q.weight, bias_of(layer.q), normed_.view(), q_.data(), model_.config.query_size(), false},
        {layer.k.weight, bias_of(layer.k), normed_.view(), k_.data(), model_.config.kv_size(), false},
        {layer.v.weight, bias_of(layer.v), normed_.view(), v_.data(), model_.config.kv_size(), false},
    };
    products(thread, qkv, 3, nodes);
    team_.barrier();
    rotate(thread, i);
    team_.barrier();
    if (i + 1 == model_.layers.size()) {
      // All keys and values are stored: from here on only nodes whose logits are wanted matter.
      nodes = wanted_.size();
      if (thread == 0) drop_unwanted_nodes();
      team_.barrier();
    }
    attend(thread, i);
    team_.barrier();
    if (is_quantized(layer.o)) {
      const Range mine = share(nodes, thread, team_.size());
      for (std::size_t n = mine.begin; n < mine.end; ++n) {
        kernels_.quantize(attended_.values(n), attended_.blocks(), attended_.block(n, 0), n % kPanel);
      }
      team_.barrier();
    }
    const Product o = {layer.o.weight, bias_of(layer.o), attended_.view(),
                       hidden_.data(), hidden_stride_,   true};
    products(thread, &o, 1, nodes);
    team_.barrier();
    normalize(thread, layer.mlp_norm, nodes, is_quantized(layer.gate) || is_quantized(layer.up));
    team_.barrier();
    gate(thread, layer);
    team_.barrier();
    const Product down = {layer.down.weight, bias_of(layer.down), inner_.view(),
                          hidden_.data(),    hidden_stride_,      true};
    products(thread, &down, 1, nodes);
    team_.barrier();
  }
  head(thread);
}

void Forward::embed(int thread) {
  const Range mine = share(nodes_, thread, team_.size());
  for (std::size_t n = mine.begin; n < mine.end; ++n) {
    model_.embedding.unpack_row(place(batch_->tokens[n]), hidden_.data() + n * hidden_stride_);
  }
}

void Forward::normalize(int thread, const Buffer<float>& weight, std::size_t nodes, bool quantized) {
  const std::size_t hidden = model_.config.hidden_size;
  const Range mine = share(nodes, thread, team_.size());
  for (std::size_t n = mine.begin; n < mine.end; ++n) {
    kernels_.rms_norm(hidden_.data() + n * hidden_stride_, weight.data(), model_.config.rms_norm_eps, hidden,
                      hidden_stride_, normed_.values(n));
    if (quantized) kernels_.quantize(normed_.values(n), normed_.blocks(), normed_.block(n, 0), n % kPanel);
  }
}

void Forward::products(int thread, const Product* list, std::size_t count, std::size_t nodes) const {
  std::size_t tiles = 0;
  for (std::size_t i = 0; i < count; ++i) tiles += ceil_div(list[i].weight.rows(), kTileRows);
  const Range mine = share(tiles, thread, team_.size());
  std::size_t first = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const Product& product = list[i];
    const std::size_t rows = product.weight.rows(), last = first + ceil_div(rows, kTileRows);
    const std::size_t begin = std::max(first, mine.begin), end = std::min(last, mine.end);
    if (begin < end) {
      kernels_.linear(product.weight.view(), (begin - first) * kTileRows,
                      std::min((end - first) * kTileRows, rows), product.inputs, nodes, product.out,
                      product.stride, product.bias, product.accumulate);
    }
    first = last;
  }
}

void Forward::rotate_head(const float* from, const Buffer<float>& norm, std::int32_t position,
                          float* to) const {
  const std::size_t size = model_.config.head_dim, half = size / 2;
  std::memcpy(to, from, size * sizeof(float));
  if (norm.size()) kernels_.rms_norm(to, norm.data(), model_.config.rms_norm_eps, size, head_stride_, to);
  const float* cosine = cosines_.data() + place(position) * half;
  const float* sine = sines_.data() + place(position) * half;
  for (std::size_t i = 0; i < half; ++i) {
    const float first = to[i], second = to[i + half];
    to[i] = first * cosine[i] - second * sine[i];
    to[i + half] = second * cosine[i] + first * sine[i];
  }
}

float* Forward::queries_of(std::size_t kv_head, std::size_t node) {
  const std::size_t group = model_.config.num_heads / model_.config.num_kv_heads;
  return queries_.data() + (kv_head * max_nodes_ + node) * group * head_stride_;
}

void* Forward::cached(LazyBuffer& cache, std::size_t slot, std::size_t kv_head) {
  const std::size_t at = slot * kv_stride_ + kv_head * head_stride_;
  return cache.data() + at * (half_kv_ ? sizeof(std::uint16_t) : sizeof(float));
}

void Forward::store(const float* head, void* to) const {
  if (half_kv_) return kernels_.to_half(head, head_stride_, static_cast<std::uint16_t*>(to));
  std::memcpy(to, head, head_stride_ * sizeof(float));
}

void Forward::rotate(int thread, std::size_t layer) {
  const ModelConfig& config = model_.config;
  const Layer& weights = model_.layers[layer];
  const std::size_t group = config.num_heads / config.num_kv_heads, size = config.head_dim;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(size)));
  float* head = scratch_[place(thread)].head.data();
  const Range mine = share(nodes_, thread, team_.size());
  for (std::size_t n = mine.begin; n < mine.end; ++n) {
    const std::int32_t position = plan_->positions[n];
    const std::size_t slot = place(plan_->slots[n]);
    for (std::size_t h = 0; h < config.num_heads; ++h) {
      float* query = queries_of(h / group, n) + h % group * head_stride_;
      rotate_head(q_.data() + n * config.query_size() + h * size, weights.q_norm, position, query);
      for (std::size_t i = 0; i < size; ++i) query[i] *= scale;
    }
    for (std::size_t h = 0; h < config.num_kv_heads; ++h) {
      const std::size_t from = n * config.kv_size() + h * size;
      rotate_head(k_.data() + from, weights.k_norm, position, head);
      store(head, cached(keys_[layer], slot, h));
      std::memcpy(head, v_.data() + from, size * sizeof(float));
      store(head, cached(values_[layer], slot, h));
    }
  }
}

void Forward::drop_unwanted_nodes() {
  const std::size_t group = model_.config.num_heads / model_.config.num_kv_heads;
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    const std::size_t from = place(wanted_[i]);
    if (from == i) continue;
    std::memcpy(hidden_.data() + i * hidden_stride_, hidden_.data() + from * hidden_stride_,
                hidden_stride_ * sizeof(float));
    for (std::size_t h = 0; h < model_.config.num_kv_heads; ++h) {
      std::memcpy(queries_of(h, i), queries_of(h, from), group * head_stride_ * sizeof(float));
    }
  }
}

/// What the nodes of a panel see: their slots in order, and how many positions they all share.
void Forward::list_contexts(Scratch& scratch, std::size_t first, std::size_t count, bool last) const {
  scratch.shared = std::numeric_limits<std::size_t>::max();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t node = last ? place(wanted_[first + i]) : first + i;
    const auto prefix = plan_->prefixes[node], path = plan_->path(node);
    auto& slots = scratch.slots[i];
    std::copy(prefix.begin(), prefix.end(), slots.begin());
    std::copy(path.begin(), path.end(), slots.begin() + static_cast<std::ptrdiff_t>(prefix.size()));
    scratch.counts[i] = prefix.size() + path.size();
    const std::size_t most = std::min({scratch.shared, scratch.counts[0], scratch.counts[i]});
    const auto end = slots.begin() + static_cast<std::ptrdiff_t>(most);
    scratch.shared = static_cast<std::size_t>(
        std::mismatch(slots.begin(), end, scratch.slots[0].begin()).first - slots.begin());
  }
  scratch.shared -= scratch.shared % kAttentionBlock;
}

void Forward::attend(int thread, std::size_t layer) {
  const ModelConfig& config = model_.config;
  const bool last = layer + 1 == model_.layers.size();
  const std::size_t nodes = last ? wanted_.size() : nodes_, group = config.num_heads / config.num_kv_heads;
  const std::size_t items = ceil_div(nodes, kPanel) * config.num_kv_heads;
  Scratch& scratch = scratch_[place(thread)];
  std::size_t listed = std::numeric_limits<std::size_t>::max();
  // Dealt out in turn, since later nodes of a chain have more to read. The blocks of positions that all nodes
  // of a panel share are fetched once for all of them.
  for (std::size_t item = place(thread); item < items; item += place(team_.size())) {
    const std::size_t panel = item / config.num_kv_heads, kv_head = item % config.num_kv_heads;
    const std::size_t first = panel * kPanel, count = std::min(kPanel, nodes - first);
    if (panel != listed) {
      list_contexts(scratch, first, count, last);
      listed = panel;
    }
    const auto attend = [&](std::size_t i, std::size_t queries, std::size_t begin, std::size_t end) {
      const AttentionContext context = {cached(keys_[layer], 0, kv_head), cached(values_[layer], 0, kv_head),
                                        kv_stride_, scratch.slots[i].data(), scratch.counts[i]};
      kernels_.attend(queries_of(kv_head, first + i), queries, context, begin, end, half_kv_, head_stride_,
                      scratch.rows.data(), scratch.states.data() + i * group,
                      scratch.sums.data() + i * group * head_stride_);
    };
    attend(0, count * group, 0, scratch.shared);
    for (std::size_t i = 0; i < count; ++i) {
      attend(i, group, scratch.shared, scratch.counts[i]);
      for (std::size_t h = 0; h < group; ++h) {
        const float* sums = scratch.sums.data() + (i * group + h) * head_stride_;
        const float factor = 1.0f / scratch.states[i * group + h].total;
        float* out = attended_.values(first + i) + (kv_head * group + h) * config.head_dim;
        for (std::size_t d = 0; d < config.head_dim; ++d) out[d] = sums[d] * factor;
      }
    }
  }
}

void Forward::gate(int thread, const Layer& layer) {
  const std::size_t rows = layer.gate.weight.rows(), stride = inner_.stride();
  const std::size_t nodes = &layer == &model_.layers.back() ? wanted_.size() : nodes_;
  if (nodes == 0) return;
  const Range mine = share(ceil_div(rows, kBlock), thread, team_.size());
  const std::size_t blocks = std::max<std::size_t>(1, kGateValues / nodes / kBlock);
  for (std::size_t block = mine.begin; block < mine.end; block += blocks) {
    const std::size_t begin = block * kBlock, stop = std::min(block + blocks, mine.end),
                      end = std::min(stop * kBlock, rows);
    kernels_.linear(layer.gate.weight.view(), begin, end, normed_.view(), nodes, inner_.values(0), stride,
                    bias_of(layer.gate), false);
    kernels_.linear(layer.up.weight.view(), begin, end, normed_.view(), nodes, up_.data(), stride,
                    bias_of(layer.up), false);
    for (std::size_t n = 0; n < nodes; ++n) {
      float* inner = inner_.values(n) + begin;
      kernels_.swiglu(inner, up_.data() + n * stride + begin, round_up(end - begin, kLanes));
      if (is_quantized(layer.down)) {
        kernels_.quantize(inner, stop - block, inner_.block(n, block), n % kPanel);
      }
    }
  }
}

void Forward::head(int thread) {
  for (std::size_t first = 0; first < batch_->rows(); first += kHeadRows) {
    head_chunk(thread, first, std::min(first + kHeadRows, batch_->rows()));
  }
}

void Forward::head_chunk(int thread, std::size_t first, std::size_t last) {
  const Matrix& weight = model_.head_weight();
  const std::size_t vocabulary = model_.config.vocab_size, hidden = model_.config.hidden_size;
  const auto candidates = [&](std::size_t r) -> std::span<const std::int32_t> {
    if (batch_->candidate_offsets.empty()) return {};
    const std::size_t begin = place(batch_->candidate_offsets[r]),
                      end = place(batch_->candidate_offsets[r + 1]);
    return batch_->candidate_ids.subspan(begin, end - begin);
  };
  const auto sums_up = [&](std::size_t r) { return !batch_->logsumexp.empty() && batch_->logsumexp[r] != 0; };
  const auto is_whole = [&](std::size_t r) { return sums_up(r) || candidates(r).empty(); };

  // Rows that need the whole vocabulary come first among the head's inputs, in order, then the others.
  std::size_t whole[kHeadRows], input_of[kHeadRows], wholes = 0;
  for (std::size_t r = first; r < last; ++r) {
    if (is_whole(r)) whole[input_of[r - first] = wholes++] = r;
  }
  std::size_t next = wholes;
  for (std::size_t r = first; r < last; ++r) {
    if (!is_whole(r)) input_of[r - first] = next++;
  }

  const Range mine = share(last - first, thread, team_.size());
  for (std::size_t r = first + mine.begin; r < first + mine.end; ++r) {
    const std::size_t input = input_of[r - first];
    const std::size_t node = place(place_of_[place(batch_->logits_for[r])]);
    kernels_.rms_norm(hidden_.data() + node * hidden_stride_, model_.final_norm.data(),
                      model_.config.rms_norm_eps, hidden, hidden_stride_, head_inputs_.values(input));
    if (weight.is_quantized()) {
      kernels_.quantize(head_inputs_.values(input), head_inputs_.blocks(), head_inputs_.block(input, 0),
                        input % kPanel);
    }
  }
  team_.barrier();

  for (std::size_t r = first; r < last; ++r) {
    if (is_whole(r)) continue;
    const auto ids = candidates(r);
    const Range part = share(ids.size(), thread, team_.size());
    kernels_.rows(weight.view(), ids.data() + part.begin, part.end - part.begin,
                  head_inputs_.view(input_of[r - first]),
                  output_->logits.get() + output_->offsets[r] + part.begin, model_.head_bias());
  }
  if (wholes > 0) {
    const Product product = {weight, model_.head_bias(), head_inputs_.view(), head_rows_.data(), vocabulary,
                             false};
    products(thread, &product, 1, wholes);
    team_.barrier();
  }

  const std::size_t blocks = (vocabulary + kVocabularyBlock - 1) / kVocabularyBlock;
  for (std::size_t item = place(thread); item < wholes * blocks; item += place(team_.size())) {
    const std::size_t i = item / blocks, r = whole[i], block = item % blocks,
                      begin = block * kVocabularyBlock;
    const std::size_t size = std::min(kVocabularyBlock, vocabulary - begin);
    const float* logits = head_rows_.data() + i * vocabulary;
    float* out = output_->logits.get() + output_->offsets[r];
    const auto ids = candidates(r);
    if (ids.empty()) {
      std::memcpy(out + begin, logits + begin, size * sizeof(float));
    } else if (block == 0) {
      for (std::size_t c = 0; c < ids.size(); ++c) out[c] = logits[ids[c]];
    }
    if (sums_up(r)) kernels_.sum_exp(logits + begin, size, &block_largest_[item], &block_sum_[item]);
  }
  team_.barrier();

  if (thread != 0) return;
  for (std::size_t i = 0; i < wholes; ++i) {
    if (!sums_up(whole[i])) continue;
    const float* largest = block_largest_.data() + i * blocks;
    const double top = static_cast<double>(*std::max_element(largest, largest + blocks));
    double sum = 0;
    for (std::size_t b = 0; b < blocks; ++b) {
      sum += block_sum_[i * blocks + b] * std::exp(static_cast<double>(largest[b]) - top);
    }
    output_->logsumexp[whole[i]] = static_cast<float>(top + std::log(sum));
  }
}

}  // namespace bidtrie
