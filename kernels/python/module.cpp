// The Python module bidtrie._native: the CPU engine, and single matrices for tests and for the compressor.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bidtrie/error.h"
#include "engine.h"
#include "instruction_set.h"
#include "kv_tree.h"
#include "measure.h"
#include "products.h"
#include "thread_team.h"
#include "tree_attention.h"

namespace nb = nanobind;

namespace {

using bidtrie::message;
using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Int32 = Vector<std::int32_t>;
using FloatRows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatHeads = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

template <class T>
std::span<const T> span(const Vector<T>& array) {
  return {array.data(), array.size()};
}

/// A numpy array that owns `data`.
template <class T>
nb::object owned(std::unique_ptr<T[]> data, std::vector<std::size_t> shape) {
  T* pointer = data.get();
  nb::capsule owner(pointer, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  data.release();
  return nb::cast(nb::ndarray<nb::numpy, T>(pointer, shape.size(), shape.data(), owner));
}

template <class T>
nb::object copied(const std::vector<T>& values) {
  auto data = std::make_unique<T[]>(std::max<std::size_t>(values.size(), 1));
  std::copy(values.begin(), values.end(), data.get());
  return owned(std::move(data), {values.size()});
}

/// Views of a tensor's arrays, which it keeps alive.
class HeldSource {
 public:
  /// `tensor`: bidtrie.models' Tensor, or GroupTensor, whose format is an object.
  HeldSource(const std::string& name, nb::handle tensor) : name_(name) {
    if (!nb::try_cast(tensor.attr("shape"), source_.shape)) {
      throw bidtrie::ModelError(message(name, ": shape is not a list of sizes"));
    }
    const nb::object format = tensor.attr("format");
    if (nb::isinstance<nb::str>(format)) {
      simple(nb::cast<std::string>(format), tensor);
    } else {
      groups(format, tensor);
    }
  }

  const bidtrie::TensorSource& source() const { return source_; }

 private:
  void simple(const std::string& format, nb::handle tensor) {
    if (format == "float32") {
      source_.storage = bidtrie::Storage::kFloat32;
      source_.data = bytes<float>(tensor, "data", "float32");
    } else if (format == "q4_1" || format == "q8_0") {
      source_.storage = format == "q4_1" ? bidtrie::Storage::kGgufQ4_1 : bidtrie::Storage::kGgufQ8_0;
      source_.data = bytes<std::uint8_t>(tensor, "data", "uint8, raw GGUF blocks");
    } else {
      throw bidtrie::ModelError(message(name_, ": format \"", format, "\", expected float32, q4_1 or q8_0"));
    }
  }

  void groups(nb::handle format, nb::handle tensor) {
    using bidtrie::Codes, bidtrie::Pattern;
    source_.storage = bidtrie::Storage::kGroups;
    const int bits = nb::cast<int>(format.attr("bits"));
    const bool minimum = nb::cast<bool>(format.attr("minimum")), table = nb::cast<bool>(format.attr("table"));
    const auto pattern = nb::cast<std::string>(format.attr("pattern"));
    if ((bits != 4 && bits != 8) || (bits == 8 && (minimum || table)) || (minimum && table) ||
        (pattern != "dense" && pattern != "2:4" && pattern != "1:4")) {
      throw bidtrie::ModelError(message(name_, ": bits, minimum, table and pattern do not go together"));
    }
    source_.format = {bits == 8 ? Codes::kInt8
                      : minimum ? Codes::kInt4Min
                      : table   ? Codes::kInt4Table
                                : Codes::kInt4,
                      pattern == "2:4"   ? Pattern::k2of4
                      : pattern == "1:4" ? Pattern::k1of4
                                         : Pattern::kDense,
                      nb::cast<std::size_t>(format.attr("group_size"))};
    source_.data = bytes<std::uint8_t>(tensor, "codes", "uint8");
    source_.scales = halves(tensor, "scales");
    if (minimum) source_.minimums = halves(tensor, "minimums");
    if (pattern != "dense") source_.positions = bytes<std::uint8_t>(tensor, "positions", "uint8");
    if (table) {
      const auto entries = bytes<std::int8_t>(tensor, "table", "int8");
      if (entries.size() != source_.table.size()) {
        throw bidtrie::ModelError(message(name_, ": a table of ", entries.size(), " entries, expected 16"));
      }
      std::memcpy(source_.table.data(), entries.data(), entries.size());
    }
  }

  Array array(nb::handle tensor, const char* field) {
    Array array;
    if (!nb::try_cast(tensor.attr(field), array)) {
      throw bidtrie::ModelError(message(name_, ": ", field, " is not a C-contiguous array"));
    }
    arrays_.push_back(array);
    return array;
  }

  std::span<const std::uint8_t> bytes_of(const Array& array) const {
    return {static_cast<const std::uint8_t*>(array.data()), array.nbytes()};
  }

  template <class T>
  std::span<const std::uint8_t> bytes(nb::handle tensor, const char* field, const char* expected) {
    const Array found = array(tensor, field);
    if (found.dtype() != nb::dtype<T>()) {
      throw bidtrie::ModelError(message(name_, ": expected ", field, " as an array of ", expected));
    }
    return bytes_of(found);
  }

  std::span<const std::uint8_t> halves(nb::handle tensor, const char* field) {
    const Array found = array(tensor, field);
    if (found.dtype() != nb::dlpack::dtype{static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float), 16, 1}) {
      throw bidtrie::ModelError(message(name_, ": expected ", field, " as an array of float16"));
    }
    return bytes_of(found);
  }

  std::string name_;
  std::vector<Array> arrays_;
  bidtrie::TensorSource source_{};
};

/// One packed matrix and its products, as the engine computes them.
class PackedMatrix {
 public:
  explicit PackedMatrix(nb::handle tensor)
      : matrix_("matrix", HeldSource("matrix", tensor).source(), false, arena_) {}

  nb::object unpack() const {
    auto out = std::make_unique<float[]>(matrix_.rows() * matrix_.cols());
    for (std::size_t r = 0; r < matrix_.rows(); ++r) matrix_.unpack_row(r, out.get() + r * matrix_.cols());
    return owned(std::move(out), {matrix_.rows(), matrix_.cols()});
  }

  nb::object linear(const FloatRows& x, const std::string& instruction_set, bidtrie::ThreadTeam* team) const {
    const bidtrie::Kernels& kernels = bidtrie::kernels_for(instruction_set);
    expect_columns(x);
    const std::size_t nodes = x.shape(0), rows = matrix_.rows();
    auto out = std::make_unique_for_overwrite<float[]>(std::max<std::size_t>(nodes * rows, 1));
    {
      const nb::gil_scoped_release unlocked;
      bidtrie::ThreadTeam alone(1);
      bidtrie::linear(kernels, team != nullptr ? *team : alone, matrix_, x.data(), nodes, out.get());
    }
    return owned(std::move(out), {nodes, rows});
  }

  nb::object candidates(const FloatRows& x, const Int32& offsets, const Int32& ids,
                        bidtrie::ThreadTeam* team) const {
    expect_columns(x);
    auto out = std::make_unique_for_overwrite<float[]>(std::max<std::size_t>(ids.size(), 1));
    {
      const nb::gil_scoped_release unlocked;
      bidtrie::ThreadTeam alone(1);
      bidtrie::candidates(bidtrie::kernels_for(""), team != nullptr ? *team : alone, matrix_, x.data(),
                          x.shape(0), span(offsets), span(ids), out.get());
    }
    return owned(std::move(out), {ids.size()});
  }

  nb::object rows(const FloatRows& x, const Int32& ids, const std::string& instruction_set) const {
    const bidtrie::Kernels& kernels = bidtrie::kernels_for(instruction_set);
    for (const std::int32_t id : span(ids)) {
      if (id < 0 || static_cast<std::size_t>(id) >= matrix_.rows()) {
        throw bidtrie::EngineError(message("ids: row ", id, ", expected 0 to ", matrix_.rows() - 1));
      }
    }
    const bidtrie::ActivationRows inputs = inputs_of(x, kernels);
    const std::size_t nodes = x.shape(0), count = ids.size();
    auto out = std::make_unique<float[]>(std::max<std::size_t>(nodes * count, 1));
    for (std::size_t n = 0; n < nodes; ++n) {
      kernels.rows(matrix_.view(), ids.data(), count, inputs.view(n), out.get() + n * count, nullptr);
    }
    return owned(std::move(out), {nodes, count});
  }

  std::size_t bytes() const { return matrix_.bytes(); }

 private:
  void expect_columns(const FloatRows& x) const {
    if (x.shape(1) != matrix_.cols()) {
      throw bidtrie::EngineError(message("x: ", x.shape(1), " columns, expected ", matrix_.cols()));
    }
  }

  bidtrie::ActivationRows inputs_of(const FloatRows& x, const bidtrie::Kernels& kernels) const {
    expect_columns(x);
    bidtrie::ActivationRows inputs(x.shape(0), matrix_.cols());
    for (std::size_t n = 0; n < x.shape(0); ++n) {
      std::copy_n(x.data() + n * matrix_.cols(), matrix_.cols(), inputs.values(n));
      if (!matrix_.is_quantized()) continue;
      kernels.quantize(inputs.values(n), inputs.blocks(), inputs.block(n, 0), n % bidtrie::kPanel);
    }
    return inputs;
  }

  bidtrie::Arena arena_;
  bidtrie::Matrix matrix_;
};

/// A field of the checkpoint's configuration object.
template <class T>
T field(nb::handle config, const char* name) {
  T value;
  if (!nb::try_cast(config.attr(name), value)) {
    throw bidtrie::ModelError(message("model configuration: ", name, " has an unexpected type or value"));
  }
  return value;
}

bidtrie::ModelConfig model_config(nb::handle config) {
  bidtrie::ModelConfig out{};
  out.vocab_size = field<std::size_t>(config, "vocab_size");
  out.hidden_size = field<std::size_t>(config, "hidden_size");
  out.intermediate_size = field<std::size_t>(config, "intermediate_size");
  out.num_layers = field<std::size_t>(config, "num_layers");
  out.num_heads = field<std::size_t>(config, "num_heads");
  out.num_kv_heads = field<std::size_t>(config, "num_kv_heads");
  out.head_dim = field<std::size_t>(config, "head_dim");
  out.rms_norm_eps = static_cast<float>(field<double>(config, "rms_norm_eps"));
  const auto frequencies = field<Vector<float>>(config, "inv_freq");
  out.inv_freq.assign(frequencies.data(), frequencies.data() + frequencies.size());
  out.attention_factor = field<double>(config, "attention_factor");
  out.context_length = field<std::size_t>(config, "context_length");
  out.tie_word_embeddings = field<bool>(config, "tie_word_embeddings");
  out.qk_norm = field<bool>(config, "qk_norm");
  return out;
}

std::unique_ptr<bidtrie::Engine> make_engine(nb::handle config, const nb::dict& tensors, int threads,
                                             std::size_t slots, std::size_t max_nodes, bool dequantize,
                                             bool half_kv, const std::string& instruction_set) {
  const bidtrie::ModelConfig checked = model_config(config);
  bidtrie::TensorSources sources;
  std::vector<HeldSource> held;
  held.reserve(tensors.size());
  for (const auto& [key, value] : tensors) {
    const auto name = nb::cast<std::string>(key);
    sources.emplace(name, held.emplace_back(name, value).source());
  }
  const nb::gil_scoped_release unlocked;
  return std::make_unique<bidtrie::Engine>(
      checked, sources,
      bidtrie::EngineOptions{threads, slots, max_nodes, dequantize, half_kv, instruction_set});
}

bidtrie::TreeBatch batch_of(const Int32& tokens, const Int32& sequence, const Int32& parent,
                            const Int32& logits_for, const std::optional<Int32>& candidate_offsets,
                            const std::optional<Int32>& candidate_ids,
                            const std::optional<Vector<std::uint8_t>>& logsumexp) {
  bidtrie::TreeBatch batch{span(tokens), span(sequence), span(parent), span(logits_for), {}, {}, {}};
  if (candidate_offsets && candidate_ids) {
    if (candidate_offsets->size() == 0) throw bidtrie::EngineError("candidates: no offsets");
    batch.candidate_offsets = span(*candidate_offsets);
    batch.candidate_ids = span(*candidate_ids);
  }
  if (logsumexp) {
    if (logsumexp->size() != batch.rows()) {
      throw bidtrie::EngineError(message("logsumexp: ", logsumexp->size(), " rows, expected ", batch.rows()));
    }
    batch.logsumexp = span(*logsumexp);
  }
  return batch;
}

nb::tuple plan(bidtrie::KvTree& tree, const Int32& tokens, const Int32& sequence, const Int32& parent,
               const Int32& logits_for, const std::optional<Int32>& candidate_offsets,
               const std::optional<Int32>& candidate_ids,
               const std::optional<Vector<std::uint8_t>>& logsumexp) {
  const bidtrie::TreeBatch batch =
      batch_of(tokens, sequence, parent, logits_for, candidate_offsets, candidate_ids, logsumexp);
  tree.check(batch);
  const bidtrie::StepPlan plan = tree.step(batch);
  const bidtrie::FlatPlan flat = bidtrie::flatten(plan, batch.sequence);
  return nb::make_tuple(copied(plan.handles), copied(plan.slots), copied(plan.positions), copied(flat.group),
                        copied(flat.prefix_offsets), copied(flat.prefix_slots), copied(flat.path_offsets),
                        copied(flat.path_slots));
}

nb::object tree_attention(const FloatHeads& queries, const FloatHeads& keys, const FloatHeads& values,
                          const Int32& group, const Int32& prefix_offsets, const Int32& prefix_slots,
                          const Int32& path_offsets, const Int32& path_slots, float scale,
                          bidtrie::ThreadTeam& team) {
  const std::size_t nodes = queries.shape(0), heads = queries.shape(1), size = queries.shape(2);
  if (keys.shape(2) != size || values.shape(0) != keys.shape(0) || values.shape(1) != keys.shape(1) ||
      values.shape(2) != size) {
    throw bidtrie::EngineError("keys, values: expected [slots, kv_heads, head_dim], the queries' head_dim");
  }
  if (group.size() != nodes) {
    throw bidtrie::EngineError(message("group: ", group.size(), " entries, expected ", nodes));
  }
  auto out = std::make_unique_for_overwrite<float[]>(std::max<std::size_t>(nodes * heads * size, 1));
  {
    const nb::gil_scoped_release unlocked;
    bidtrie::tree_attention(
        bidtrie::kernels_for(""), team,
        {queries.data(), keys.data(), values.data(), heads, keys.shape(1), size, keys.shape(0)},
        {span(group), span(prefix_offsets), span(prefix_slots), span(path_offsets), span(path_slots)}, scale,
        out.get());
  }
  return owned(std::move(out), {nodes, heads, size});
}

nb::tuple step(bidtrie::Engine& engine, const Int32& tokens, const Int32& sequence, const Int32& parent,
               const Int32& logits_for, const std::optional<Int32>& candidate_offsets,
               const std::optional<Int32>& candidate_ids,
               const std::optional<Vector<std::uint8_t>>& logsumexp) {
  const bidtrie::TreeBatch batch =
      batch_of(tokens, sequence, parent, logits_for, candidate_offsets, candidate_ids, logsumexp);
  bidtrie::StepOutput output;
  {
    const nb::gil_scoped_release unlocked;
    output = engine.step(batch);
  }
  const auto size = static_cast<std::size_t>(output.offsets.back());
  return nb::make_tuple(copied(output.nodes), copied(output.offsets), owned(std::move(output.logits), {size}),
                        copied(output.logsumexp));
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The native CPU engine: see bidtrie.engine.native.";
  // PyTorch keeps the functions that were registered as ops, and what they refer to, until after Python's
  // end.
  nb::set_leak_warnings(false);

  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    const auto raise = [](const char* name, const char* text) {
      const nb::object type = nb::module_::import_("bidtrie.errors").attr(name);
      PyErr_SetString(type.ptr(), text);
    };
    try {
      std::rethrow_exception(pointer);
    } catch (const bidtrie::OutOfSlots& error) {
      raise("OutOfSlots", error.what());
    } catch (const bidtrie::EngineError& error) {
      raise("EngineError", error.what());
    } catch (const bidtrie::ModelError& error) {
      raise("ModelError", error.what());
    }
  });

  m.def("instruction_sets", &bidtrie::instruction_sets,
        "Instruction sets that this CPU can run, best first.");

  nb::class_<bidtrie::ThreadTeam>(m, "ThreadTeam", "Threads that share the work of one call.")
      .def(nb::new_([](int threads) {
             if (threads < 1 || threads > 1024) {
               throw bidtrie::EngineError(message("threads: ", threads, ", expected 1 to 1024"));
             }
             return std::make_unique<bidtrie::ThreadTeam>(threads);
           }),
           nb::arg("threads"), "The calling one included.")
      .def_prop_ro("size", &bidtrie::ThreadTeam::size);
  nb::class_<PackedMatrix>(m, "PackedMatrix", "A weight matrix as the engine packs it, and its products.")
      .def(nb::init<nb::handle>(), nb::arg("tensor"), "Of a Tensor or GroupTensor of two dimensions.")
      .def("unpack", &PackedMatrix::unpack, "float32 [rows, cols], exactly what the format means.")
      .def("linear", &PackedMatrix::linear, nb::arg("x").noconvert(), nb::arg("instruction_set") = "",
           nb::arg("team").none() = nb::none(), "x float32 [nodes, cols] -> float32 [nodes, rows].")
      .def("candidates", &PackedMatrix::candidates, nb::arg("x").noconvert(), nb::arg("offsets").noconvert(),
           nb::arg("ids").noconvert(), nb::arg("team").none() = nb::none(),
           "Of node n the columns ids[offsets[n]:offsets[n + 1]] of `linear`, one after the other.")
      .def("rows", &PackedMatrix::rows, nb::arg("x").noconvert(), nb::arg("ids").noconvert(),
           nb::arg("instruction_set") = "", "The columns `ids` of `linear`, without computing the others.")
      .def_prop_ro("bytes", &PackedMatrix::bytes, "What the packed matrix takes.");

  m.def(
      "read_bandwidth",
      [](std::size_t bytes, int threads, int passes) {
        return bidtrie::read_bandwidth(bidtrie::kernels_for(""), bytes, threads, passes);
      },
      nb::arg("bytes"), nb::arg("threads"), nb::arg("passes"), nb::call_guard<nb::gil_scoped_release>(),
      "Bytes a second that threads read from a buffer of that size, one figure a pass.");
  m.def(
      "multiply_add_peak",
      [](const std::string& instruction_set, int threads, double seconds) {
        return bidtrie::multiply_add_peak(bidtrie::kernels_for(instruction_set), threads, seconds);
      },
      nb::arg("instruction_set"), nb::arg("threads"), nb::arg("seconds"),
      nb::call_guard<nb::gil_scoped_release>(),
      "Multiply-adds a second of the instruction set's multiply-add instruction alone.");
  nb::class_<bidtrie::LinearStack>(m, "LinearStack", "Linears of a model, one after the other, for timing.")
      .def(nb::init<>())
      .def(
          "add",
          [](bidtrie::LinearStack& stack, nb::handle tensor) {
            stack.add(HeldSource("linear", tensor).source());
          },
          nb::arg("tensor"), "Pack a Tensor or GroupTensor of two dimensions.")
      .def_prop_ro("bytes", &bidtrie::LinearStack::bytes, "What the packed matrices take.")
      .def_prop_ro("weights", &bidtrie::LinearStack::weights, "Dense count.")
      .def(
          "time",
          [](const bidtrie::LinearStack& stack, std::size_t nodes, int threads, int passes,
             const std::string& instruction_set) {
            return stack.time(bidtrie::kernels_for(instruction_set), nodes, threads, passes);
          },
          nb::arg("nodes"), nb::arg("threads"), nb::arg("passes"), nb::arg("instruction_set") = "",
          nb::call_guard<nb::gil_scoped_release>(), "Seconds of each pass.");

  m.def("tree_attention", &tree_attention, nb::arg("queries").noconvert(), nb::arg("keys").noconvert(),
        nb::arg("values").noconvert(), nb::arg("group").noconvert(), nb::arg("prefix_offsets").noconvert(),
        nb::arg("prefix_slots").noconvert(), nb::arg("path_offsets").noconvert(),
        nb::arg("path_slots").noconvert(), nb::arg("scale"), nb::arg("team"),
        "float32 [nodes, heads, head_dim]: each node sees its group's prefix, then its path.");

  using bidtrie::KvTree;
  nb::class_<KvTree>(m, "KvTree", "Who owns which KV slot, for engines that compute elsewhere.")
      .def(nb::init<std::size_t, std::size_t, std::size_t, std::size_t>(), nb::arg("vocab_size"),
           nb::arg("context_length"), nb::arg("slots"), nb::arg("max_nodes"))
      .def("open", &KvTree::open, nb::arg("share").none(), nb::arg("length").none())
      .def("close", &KvTree::close, nb::arg("sequence"))
      .def("length", &KvTree::length, nb::arg("sequence"))
      .def("free_slots", &KvTree::free_slots)
      .def("step", &plan, nb::arg("tokens").noconvert(), nb::arg("sequence").noconvert(),
           nb::arg("parent").noconvert(), nb::arg("logits_for").noconvert(),
           nb::arg("candidate_offsets").noconvert().none(), nb::arg("candidate_ids").noconvert().none(),
           nb::arg("logsumexp").noconvert().none(),
           "Check and place a batch: handles, slots, positions, group, prefix_offsets, prefix_slots, "
           "path_offsets, path_slots.")
      .def(
          "commit",
          [](KvTree& tree, std::int32_t sequence, const Int32& nodes) { tree.commit(sequence, span(nodes)); },
          nb::arg("sequence"), nb::arg("nodes").noconvert())
      .def(
          "keep", [](KvTree& tree, const Int32& nodes) { tree.keep(span(nodes)); },
          nb::arg("nodes").noconvert())
      .def(
          "release", [](KvTree& tree, const Int32& nodes) { tree.release(span(nodes)); },
          nb::arg("nodes").noconvert());

  using Engine = bidtrie::Engine;
  nb::class_<Engine>(m, "Engine")
      .def(nb::new_(&make_engine), nb::arg("config"), nb::arg("tensors"), nb::arg("threads"),
           nb::arg("slots"), nb::arg("max_nodes"), nb::arg("dequantize"), nb::arg("half_kv"),
           nb::arg("instruction_set"))
      .def("open", &Engine::open, nb::arg("share").none(), nb::arg("length").none(),
           nb::call_guard<nb::gil_scoped_release>())
      .def("close", &Engine::close, nb::arg("sequence"), nb::call_guard<nb::gil_scoped_release>())
      .def("length", &Engine::length, nb::arg("sequence"), nb::call_guard<nb::gil_scoped_release>())
      .def("step", &step, nb::arg("tokens").noconvert(), nb::arg("sequence").noconvert(),
           nb::arg("parent").noconvert(), nb::arg("logits_for").noconvert(),
           nb::arg("candidate_offsets").noconvert().none(), nb::arg("candidate_ids").noconvert().none(),
           nb::arg("logsumexp").noconvert().none())
      .def(
          "commit",
          [](Engine& engine, std::int32_t sequence, const Int32& nodes) {
            engine.commit(sequence, span(nodes));
          },
          nb::arg("sequence"), nb::arg("nodes").noconvert(), nb::call_guard<nb::gil_scoped_release>())
      .def(
          "keep", [](Engine& engine, const Int32& nodes) { engine.keep(span(nodes)); },
          nb::arg("nodes").noconvert(), nb::call_guard<nb::gil_scoped_release>())
      .def(
          "release", [](Engine& engine, const Int32& nodes) { engine.release(span(nodes)); },
          nb::arg("nodes").noconvert(), nb::call_guard<nb::gil_scoped_release>())
      .def("free_slots", &Engine::free_slots, nb::call_guard<nb::gil_scoped_release>())
      .def("shutdown", &Engine::shutdown, nb::call_guard<nb::gil_scoped_release>())
      .def_prop_ro("instruction_set", &Engine::instruction_set);
}
