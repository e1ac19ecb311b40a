#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace bidtrie {

/// An engine was used wrongly, or cannot take the work; its state is as before the call.
class EngineError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The KV cache has no room for the nodes of this step.
class OutOfSlots : public EngineError {
 public:
  using EngineError::EngineError;
};

/// Weights or configuration that the engine cannot compute.
class ModelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The arguments, written one after the other.
template <class... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace bidtrie
