// The Python module bidtrie._native: the CPU engine, and single matrices for tests and for the compressor.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bidtrie/error.h"
#include "engine.h"
#include "instruction_set.h"

namespace nb = nanobind;

namespace {

using bidtrie::message;
using Array = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Int32 = Vector<std::int32_t>;
using FloatRows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

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

bidtrie::TensorSource tensor_source(const std::string& name, const std::string& format,
                                    const std::vector<std::size_t>& shape, const Array& data) {
  const bool is_float = data.dtype() == nb::dtype<float>(),
             is_bytes = data.dtype() == nb::dtype<std::uint8_t>();
  bidtrie::TensorSource source{bidtrie::WeightFormat::kFloat32, shape,
                               static_cast<const std::uint8_t*>(data.data()), data.nbytes()};
  if (format == "float32") {
    if (!is_float) throw bidtrie::ModelError(message(name, ": expected a float32 array"));
  } else if (format == "q4_1" || format == "q8_0") {
    if (!is_bytes) throw bidtrie::ModelError(message(name, ": expected an array of uint8, raw GGUF blocks"));
    source.format = format == "q4_1" ? bidtrie::WeightFormat::kQ4 : bidtrie::WeightFormat::kQ8;
  } else {
    throw bidtrie::ModelError(message(name, ": format \"", format, "\", expected float32, q4_1 or q8_0"));
  }
  return source;
}

/// One packed matrix and its products, as the engine computes them.
class PackedMatrix {
 public:
  PackedMatrix(const std::string& format, const std::vector<std::size_t>& shape, const Array& data)
      : matrix_("matrix", tensor_source("matrix", format, shape, data), false) {}

  nb::object unpack() const {
    auto out = std::make_unique<float[]>(matrix_.rows() * matrix_.cols());
    for (std::size_t r = 0; r < matrix_.rows(); ++r) matrix_.unpack_row(r, out.get() + r * matrix_.cols());
    return owned(std::move(out), {matrix_.rows(), matrix_.cols()});
  }

  nb::object linear(const FloatRows& x, const std::string& instruction_set) const {
    const bidtrie::Kernels& kernels = bidtrie::kernels_for(instruction_set);
    bidtrie::ActivationRows inputs = inputs_of(x, kernels);
    const std::size_t nodes = x.shape(0), rows = matrix_.rows();
    auto out = std::make_unique<float[]>(nodes * rows);
    kernels.linear(matrix_.view(), 0, rows, inputs.view(), nodes, out.get(), rows, nullptr, false);
    return owned(std::move(out), {nodes, rows});
  }

  nb::object rows(const FloatRows& x, const Int32& ids, const std::string& instruction_set) const {
    const bidtrie::Kernels& kernels = bidtrie::kernels_for(instruction_set);
    for (const std::int32_t id : span(ids)) {
      if (id < 0 || static_cast<std::size_t>(id) >= matrix_.rows()) {
        throw bidtrie::EngineError(message("ids: row ", id, ", expected 0 to ", matrix_.rows() - 1));
      }
    }
    bidtrie::ActivationRows inputs = inputs_of(x, kernels);
    const std::size_t nodes = x.shape(0), count = ids.size();
    auto out = std::make_unique<float[]>(std::max<std::size_t>(nodes * count, 1));
    for (std::size_t n = 0; n < nodes; ++n) {
      kernels.rows(matrix_.view(), ids.data(), count, inputs.view(n), out.get() + n * count, nullptr);
    }
    return owned(std::move(out), {nodes, count});
  }

 private:
  bidtrie::ActivationRows inputs_of(const FloatRows& x, const bidtrie::Kernels& kernels) const {
    if (x.shape(1) != matrix_.cols()) {
      throw bidtrie::EngineError(message("x: ", x.shape(1), " columns, expected ", matrix_.cols()));
    }
    bidtrie::ActivationRows inputs(x.shape(0), matrix_.cols());
    for (std::size_t n = 0; n < x.shape(0); ++n) {
      std::copy_n(x.data() + n * matrix_.cols(), matrix_.cols(), inputs.values(n));
      if (matrix_.format() != bidtrie::WeightFormat::kFloat32) inputs.quantize(kernels, n, 0, matrix_.cols());
    }
    return inputs;
  }

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

/// `tensors` maps names to (format, shape, array).
std::unique_ptr<bidtrie::Engine> make_engine(nb::handle config, const nb::dict& tensors, int threads,
                                             std::size_t slots, std::size_t max_nodes, bool dequantize,
                                             const std::string& instruction_set) {
  const bidtrie::ModelConfig checked = model_config(config);
  bidtrie::TensorSources sources;
  std::vector<Array> arrays;  // keeps the data alive
  for (const auto& [key, value] : tensors) {
    const auto name = nb::cast<std::string>(key);
    const auto parts = nb::cast<nb::tuple>(value);
    Array array;
    if (parts.size() != 3 || !nb::try_cast(parts[2], array)) {
      throw bidtrie::ModelError(message(name, ": expected a format, a shape and a C-contiguous array"));
    }
    const auto shape = nb::cast<std::vector<std::size_t>>(parts[1]);
    sources.emplace(name, tensor_source(name, nb::cast<std::string>(parts[0]), shape, array));
    arrays.push_back(std::move(array));
  }
  const nb::gil_scoped_release unlocked;
  return std::make_unique<bidtrie::Engine>(
      checked, sources, bidtrie::EngineOptions{threads, slots, max_nodes, dequantize, instruction_set});
}

nb::tuple step(bidtrie::Engine& engine, const Int32& tokens, const Int32& sequence, const Int32& parent,
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

  nb::class_<PackedMatrix>(m, "PackedMatrix", "A weight matrix as the engine packs it, and its products.")
      .def(nb::init<const std::string&, const std::vector<std::size_t>&, const Array&>(), nb::arg("format"),
           nb::arg("shape"), nb::arg("data").noconvert())
      .def("unpack", &PackedMatrix::unpack, "float32 [rows, cols], exactly what the format means.")
      .def("linear", &PackedMatrix::linear, nb::arg("x").noconvert(), nb::arg("instruction_set") = "",
           "x float32 [nodes, cols] -> float32 [nodes, rows].")
      .def("rows", &PackedMatrix::rows, nb::arg("x").noconvert(), nb::arg("ids").noconvert(),
           nb::arg("instruction_set") = "", "The columns `ids` of `linear`, without computing the others.");

  using Engine = bidtrie::Engine;
  nb::class_<Engine>(m, "Engine")
      .def(nb::new_(&make_engine), nb::arg("config"), nb::arg("tensors"), nb::arg("threads"),
           nb::arg("slots"), nb::arg("max_nodes"), nb::arg("dequantize"), nb::arg("instruction_set"))
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
