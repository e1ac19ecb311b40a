#include "emulator/traffic.h"

#include <algorithm>

namespace bidtrie::emulator {

namespace {

constexpr std::uintptr_t kSectorBytes = 32;

}  // namespace

std::size_t TrafficCounter::LineHash::operator()(const Line& l) const {
  return reinterpret_cast<std::uintptr_t>(l.file) ^ (static_cast<std::size_t>(l.line) << 20) ^
         (static_cast<std::size_t>(l.column) << 8) ^ static_cast<std::size_t>(l.way);
}

void TrafficCounter::start(unsigned warps) {
  traffic_ = {};
  lines_.clear();
  warps_ = warps;
}

void TrafficCounter::access(Way way, unsigned warp, unsigned lane, std::uintptr_t address, std::size_t bytes,
                            const Site& site) {
  traffic_[way].requested += bytes;
  std::vector<Accesses>& by_warp = lines_[{site.file_name(), site.line(), site.column(), way}];
  if (by_warp.empty()) by_warp.resize(warps_);
  Accesses& accesses = by_warp[warp];
  const std::size_t at = accesses.done[lane]++ - accesses.closed;
  if (at == accesses.open.size()) accesses.open.emplace_back();
  Open& open = accesses.open[at];
  ++open.lanes;
  for (std::uintptr_t s = address / kSectorBytes; s <= (address + bytes - 1) / kSectorBytes; ++s) {
    if (std::find(open.sectors.begin(), open.sectors.end(), s) == open.sectors.end())
      open.sectors.push_back(s);
  }
  // The last lane to come closes accesses from the front; to erase each by itself would be quadratic.
  if (open.lanes == 32 && at + 1 == accesses.open.size()) {
    for (const Open& o : accesses.open) close(way, o);
    accesses.closed += static_cast<std::uint32_t>(accesses.open.size());
    accesses.open.clear();
  }
}

void TrafficCounter::close(Way way, const Open& open) {
  traffic_[way].sectors += open.sectors.size();
  ++traffic_[way].accesses;
}

void TrafficCounter::end_block() {
  for (auto& [line, by_warp] : lines_) {
    for (Accesses& accesses : by_warp) {
      for (const Open& open : accesses.open) close(line.way, open);
      accesses = {};
    }
  }
}

}  // namespace bidtrie::emulator
