#include "emulator/ordering.h"

#include <algorithm>

namespace bidtrie::emulator {

void Ordering::start_launch() {
  releases_.clear();
}

void Ordering::start_block(std::uint32_t block, std::uint32_t threads) {
  block_ = block;
  epoch_ = 1;
  moments_.assign(threads, 0);
  fences_.assign(threads, {});
  acquired_.clear();
}

Moment Ordering::now(std::uint32_t thread) {
  return {block_, epoch_, ++moments_[thread], thread};
}

void Ordering::fence(std::uint32_t thread) {
  Fences& fences = fences_[thread];
  if (fences.last.epoch != epoch_) fences.before = fences.last;
  fences.last = {epoch_, moments_[thread]};
}

void Ordering::count(std::uintptr_t counter, std::uint32_t thread) {
  Release& release = releases_[counter][block_];
  release.moments.resize(fences_.size());
  for (std::uint32_t t = 0; t < fences_.size(); ++t) {
    const Fences& fences = fences_[t];
    const Fence& fence = t == thread || fences.last.epoch < epoch_ ? fences.last : fences.before;
    release.epoch = std::max(release.epoch, fence.epoch);
    release.moments[t] = std::max(release.moments[t], fence.moment);
  }
  acquired_.push_back({counter, thread, epoch_});
}

bool Ordering::before(const Moment& then, std::uint32_t thread) const {
  if (then.block == block_) return then.thread == thread || then.epoch < epoch_;
  for (const Acquired& a : acquired_) {
    if (a.thread != thread && a.epoch == epoch_) continue;
    const auto& blocks = releases_.at(a.counter);
    const auto release = blocks.find(then.block);
    if (release == blocks.end()) continue;
    if (then.epoch < release->second.epoch || then.moment <= release->second.moments[then.thread])
      return true;
  }
  return false;
}

bool Ordering::after_counts(std::uintptr_t counter, std::uint32_t thread) const {
  return std::any_of(acquired_.begin(), acquired_.end(), [&](const Acquired& a) {
    return a.counter == counter && (a.thread == thread || a.epoch < epoch_);
  });
}

}  // namespace bidtrie::emulator
