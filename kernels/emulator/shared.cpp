#include "emulator/shared.h"

#include <algorithm>
#include <string>

#include "emulator/machine.h"
#include "emulator/memory.h"

namespace bidtrie::emulator {

// The checks of index and width, which all accesses share. In a new block the memory holds nothing.
SharedMemory::Range SharedMemory::enter(const char* what, int i, std::size_t bytes, const Site& site) const {
  Machine& machine = Machine::get();
  machine.running(site);
  if (launch_ != machine.launch()) {
    launch_ = machine.launch();
    machine.use_shared((width_ * count_ + 15) / 16 * 16, site);
  }
  if (block_ != machine.block_serial()) {
    block_ = machine.block_serial();
    users_.assign(count_, {});
  }
  const std::size_t at = static_cast<std::size_t>(i), end = at + (bytes + width_ - 1) / width_;
  if (i < 0 || end > count_) {
    machine.fail(Kind::kOutOfBounds, site,
                 std::string(what) + " of " + std::to_string(bytes) + " bytes from value " +
                     std::to_string(i) + " on of shared memory that has " + std::to_string(count_) + " of " +
                     std::to_string(width_) + " bytes");
  }
  if (at * width_ % std::min<std::size_t>(bytes, 16)) {
    machine.fail(Kind::kMisaligned, site,
                 std::string(what) + " of " + std::to_string(bytes) + " bytes of shared memory from byte " +
                     std::to_string(at * width_) + " on");
  }
  return {at, end};
}

void SharedMemory::read(int i, std::size_t bytes, void* to, const Site& site) const {
  const Range range = enter("read", i, bytes, site);
  Machine& machine = Machine::get();
  const auto self = static_cast<std::uint16_t>(machine.running(site).number);
  const std::uint32_t epoch = machine.epoch();
  for (std::size_t v = range.begin; v < range.end; ++v) {
    Users& users = users_[v];
    const auto refuse = [&](Kind kind, const std::string& what) {
      machine.fail(kind, site, "read of shared value " + std::to_string(v) + what);
    };
    if (users.copying) {
      refuse(Kind::kCopyUnderWay, users.copier == self ? " before copies_wait for the copy to it"
                                                       : " while thread " + std::to_string(users.copier) +
                                                             " of the block has a copy to it under way");
    }
    if (!users.write_epoch) refuse(Kind::kUninitialised, ", which no thread of the block has written");
    if (users.write_epoch == epoch && users.writer != self) {
      refuse(Kind::kRace, ", which thread " + std::to_string(users.writer) +
                              " of the block writes with no sync_block between");
    }
    users.many_readers = users.read_epoch == epoch && (users.many_readers || users.reader != self);
    users.read_epoch = epoch;
    users.reader = self;
  }
  std::memcpy(to, values_ + range.begin * width_, bytes);
}

// Raises an error unless nobody else uses the values between these two barriers.
void SharedMemory::claim(const char* what, Range range, const Site& site) {
  Machine& machine = Machine::get();
  const auto self = static_cast<std::uint16_t>(machine.running(site).number);
  const std::uint32_t epoch = machine.epoch();
  for (std::size_t v = range.begin; v < range.end; ++v) {
    const Users& users = users_[v];
    const auto refuse = [&](Kind kind, const std::string& why) {
      machine.fail(kind, site, std::string(what) + " of shared value " + std::to_string(v) + why);
    };
    if (users.copying) {
      refuse(Kind::kCopyUnderWay,
             " while thread " + std::to_string(users.copier) + " of the block has a copy to it under way");
    }
    if (users.write_epoch == epoch && users.writer != self) {
      refuse(Kind::kRace, ", which thread " + std::to_string(users.writer) +
                              " of the block writes too, with no sync_block between");
    }
    if (users.read_epoch == epoch && (users.many_readers || users.reader != self)) {
      refuse(Kind::kRace, ", which thread " + std::to_string(users.reader) +
                              " of the block or another reads with no sync_block between");
    }
  }
}

void SharedMemory::write(int i, std::size_t bytes, const void* from, const Site& site) {
  const Range range = enter("write", i, bytes, site);
  claim("write", range, site);
  Machine& machine = Machine::get();
  for (std::size_t v = range.begin; v < range.end; ++v) {
    users_[v].writer = static_cast<std::uint16_t>(machine.running(site).number);
    users_[v].write_epoch = machine.epoch();
  }
  std::memcpy(values_ + range.begin * width_, from, bytes);
}

// The source is checked now and read when the copy is waited for: between the two nobody may touch the
// target, and what is never waited for never arrives.
void SharedMemory::copy(int i, const void* from, bool valid, const Site& site) {
  const Range range = enter("copy16", i, 16, site);
  claim("copy16", range, site);
  if (valid) check_copy(from, site);
  Thread& thread = Machine::get().running(site);
  for (std::size_t v = range.begin; v < range.end; ++v) {
    users_[v].copying = true;
    users_[v].copier = static_cast<std::uint16_t>(thread.number);
  }
  thread.open_copies.push_back({this, i, valid ? reinterpret_cast<std::uintptr_t>(from) : 0});
}

void SharedMemory::land(int i, std::uintptr_t from, std::uint32_t thread, std::uint32_t epoch) {
  const std::size_t first = static_cast<std::size_t>(i);
  std::byte* const to = values_ + first * width_;
  if (from) {
    land_copy(from, to);
  } else {
    std::fill_n(to, 16, std::byte{0});
  }
  for (std::size_t v = first; v < first + (16 + width_ - 1) / width_; ++v) {
    users_[v].copying = false;
    users_[v].writer = static_cast<std::uint16_t>(thread);
    users_[v].write_epoch = epoch;
  }
}

void wait_for_copies(std::size_t left, const Site& site) {
  Machine& machine = Machine::get();
  Thread& thread = machine.running(site);
  while (thread.copy_groups.size() > left) {
    for (const Copy& copy : thread.copy_groups.front()) {
      copy.to->land(copy.first, copy.from, thread.number, machine.epoch());
    }
    thread.copy_groups.pop_front();
  }
}

}  // namespace bidtrie::emulator

namespace bidtrie::cuda {

void copies_commit(emulator::Site site) {
  emulator::Thread& thread = emulator::Machine::get().running(site);
  thread.copy_groups.push_back(std::move(thread.open_copies));
  thread.open_copies.clear();
}

}  // namespace bidtrie::cuda
