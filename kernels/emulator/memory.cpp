#include "emulator/memory.h"

#include <algorithm>
#include <map>
#include <memory>
#include <sstream>
#include <string_view>

#include "emulator/machine.h"

namespace bidtrie::emulator {

namespace {

// No system maps these addresses for programs that do not ask for them; 2^20 allocations fit.
constexpr std::uintptr_t kFirst = std::uintptr_t{1} << 52, kEnd = std::uintptr_t{1} << 56,
                         kBetween = std::uintptr_t{1} << 36;
constexpr std::uintptr_t kAligned = 256;

constexpr std::uint8_t bit(Way way) {
  return static_cast<std::uint8_t>(1u << static_cast<unsigned>(way));
}
/// The ways to read what no thread of the launch may write.
constexpr std::uint8_t kReadOnly = bit(Way::kLoadOnce) | bit(Way::kLoad) | bit(Way::kCopy);
constexpr std::uint8_t kWritten = bit(Way::kStore) | bit(Way::kCount);

const char* name(Way way) {
  constexpr const char* kNames[kWays] = {"load_once", "load", "load_fresh", "copy16", "store", "count_up"};
  return kNames[static_cast<std::size_t>(way)];
}

}  // namespace

class Allocation {
 public:
  /// Who stored a byte last, and who read it fresh last; moment 0: nobody in this launch.
  struct Users {
    Moment stored, read;
    bool many_readers = false;  // in the block and epoch of `read`
  };

  Allocation(std::uintptr_t base_, std::size_t bytes, std::string name_)
      : base(base_), name(std::move(name_)), data(bytes), written(bytes) {}

  /// Before what a launch does here first.
  void enter(std::uint64_t launch) {
    if (launch_ == launch) return;
    launch_ = launch;
    ways.assign(data.size(), 0);
    users.clear();
  }
  void remember_users() {
    if (users.empty()) users.resize(data.size());
  }

  const std::uintptr_t base;
  const std::string name;
  std::vector<std::byte> data;
  std::vector<bool> written;
  // In the launch that runs, by byte:
  std::vector<std::uint8_t> ways;
  std::vector<Users> users;  // empty until somebody stores or reads fresh

 private:
  std::uint64_t launch_ = 0;
};

namespace {

class AddressSpace {
 public:
  static AddressSpace& get() {
    static AddressSpace space;
    return space;
  }

  Allocation* add(std::size_t bytes, std::string name) {
    if (bytes > kEnd - kBetween - next_) {
      throw Error(Kind::kLaunch, "the emulator has no addresses left for " + name);
    }
    auto made = std::make_unique<Allocation>(next_, bytes, std::move(name));
    Allocation* const p = made.get();
    live_.emplace(next_, std::move(made));
    next_ += (bytes + kBetween + kAligned - 1) / kAligned * kAligned;
    return p;
  }

  void remove(Allocation* allocation) {
    last_ = nullptr;
    live_.erase(allocation->base);
  }

  /// The allocation that holds the address; null if none does.
  Allocation* at(std::uintptr_t address) {
    if (last_ && address - last_->base < last_->data.size()) return last_;
    Allocation* const before = nearest(address);
    if (!before || address - before->base >= before->data.size()) return nullptr;
    return last_ = before;
  }

  /// Where an address lies that belongs to nobody.
  std::string describe(std::uintptr_t address) {
    std::ostringstream out;
    out << "address 0x" << std::hex << address << std::dec;
    const Allocation* const before = nearest(address);
    const auto next = live_.upper_bound(address);
    if (before && (next == live_.end() ||
                   address - before->base - before->data.size() < next->second->base - address)) {
      out << ", " << address - before->base - before->data.size() << " bytes after the end of "
          << before->name << " (" << before->data.size() << " bytes)";
    } else if (next != live_.end()) {
      out << ", " << next->second->base - address << " bytes before " << next->second->name << " ("
          << next->second->data.size() << " bytes)";
    }
    return out.str();
  }

 private:
  /// The allocation that starts last at or before the address.
  Allocation* nearest(std::uintptr_t address) {
    const auto after = live_.upper_bound(address);
    return after == live_.begin() ? nullptr : std::prev(after)->second.get();
  }

  std::map<std::uintptr_t, std::unique_ptr<Allocation>> live_;
  std::uintptr_t next_ = kFirst + kBetween;
  Allocation* last_ = nullptr;
};

/// The place of an access, after the checks that all accesses share.
struct Place {
  Allocation& allocation;
  std::size_t at;
  Thread& thread;
};

Place check(Way way, std::uintptr_t address, std::size_t bytes, std::size_t alignment, const Site& site) {
  Machine& machine = Machine::get();
  Thread& thread = machine.running(site);
  AddressSpace& space = AddressSpace::get();
  const auto refuse = [&](Kind kind, const std::string& what) {
    std::ostringstream out;
    out << name(way) << " of " << bytes << " bytes at " << what;
    machine.fail(kind, site, out.str());
  };
  if (address < kFirst || address >= kEnd) {
    std::ostringstream where;
    where << "address 0x" << std::hex << address << ", which is no device memory";
    refuse(Kind::kNotDeviceMemory, where.str());
  }
  Allocation* const allocation = space.at(address);
  if (!allocation) refuse(Kind::kOutOfBounds, space.describe(address));
  const std::size_t at = address - allocation->base;
  const std::string_view name = allocation->name;
  const auto byte = [&] { return "byte " + std::to_string(at) + " of " + std::string(name); };
  if (bytes > allocation->data.size() - at) {
    refuse(Kind::kOutOfBounds, byte() + ", which has " + std::to_string(allocation->data.size()));
  }
  if (address % alignment) {
    refuse(Kind::kMisaligned, byte() + ", which is no multiple of " + std::to_string(alignment));
  }
  allocation->enter(machine.launch());
  machine.traffic().access(way, thread.warp(), thread.lane(), address, bytes, site);
  std::size_t first = 0;  // bytes that go this way for the first time
  for (std::size_t i = at; i < at + bytes; ++i) {
    std::uint8_t& ways = allocation->ways[i];
    if (way != Way::kStore && !allocation->written[i]) {
      refuse(Kind::kUninitialised, byte() + ", where nobody has written");
    }
    if ((bit(way) & kReadOnly && ways & kWritten) || (bit(way) & kWritten && ways & kReadOnly)) {
      refuse(Kind::kReadOnlyWritten,
             byte() + ", which the launch both writes and reads as what no thread of it writes");
    }
    first += !(ways & bit(way));
    ways |= bit(way);
  }
  machine.traffic().unique(way, first);
  return {*allocation, at, thread};
}

/// Raises an error unless what others stored there, and read if this is a store, comes before.
void order(Way way, const Place& place, std::size_t bytes, const Site& site) {
  Machine& machine = Machine::get();
  Ordering& ordering = machine.ordering();
  Allocation& allocation = place.allocation;
  allocation.remember_users();
  const std::uint32_t thread = place.thread.number;
  const auto refuse = [&](const char* did, const Moment& then) {
    std::ostringstream out;
    out << name(way) << " of " << bytes << " bytes at byte " << place.at << " of " << allocation.name
        << ", where " << Machine::name(then.block, then.thread) << ' ' << did
        << " in the same launch, with nothing to order the two";
    machine.fail(Kind::kRace, site, out.str());
  };
  const Moment now = ordering.now(thread);
  Moment known_stored, known_read;  // to come before: neighbours mostly have the same history
  for (std::size_t i = place.at; i < place.at + bytes; ++i) {
    Allocation::Users& users = allocation.users[i];
    if (users.stored.moment && !(users.stored == known_stored)) {
      if (!ordering.before(users.stored, thread)) refuse("stored", users.stored);
      known_stored = users.stored;
    }
    if (way == Way::kLoadFresh) {
      const bool same = users.read.moment && users.read.block == now.block && users.read.epoch == now.epoch;
      users.many_readers = same && (users.many_readers || users.read.thread != thread);
      users.read = now;
      continue;
    }
    if (users.read.moment && !(users.read == known_read)) {
      if (!ordering.before(users.read, thread) ||
          (users.many_readers && users.read.block == now.block && users.read.epoch == now.epoch)) {
        refuse("reads", users.read);
      }
      known_read = users.read;
    }
    if (way == Way::kStore) users.stored = now;
  }
}

}  // namespace

DeviceBytes::DeviceBytes(std::size_t bytes, std::string name)
    : allocation_(AddressSpace::get().add(bytes, std::move(name))) {}

DeviceBytes::~DeviceBytes() {
  if (allocation_) AddressSpace::get().remove(allocation_);
}

void* DeviceBytes::address() const {
  return reinterpret_cast<void*>(allocation_->base);
}

void DeviceBytes::write(std::size_t at, const void* from, std::size_t bytes) {
  Allocation& a = *allocation_;
  if (at > a.data.size() || bytes > a.data.size() - at) {
    throw Error(Kind::kOutOfBounds, "the host writes beyond the end of " + a.name);
  }
  if (bytes) std::memcpy(a.data.data() + at, from, bytes);
  std::fill_n(a.written.begin() + static_cast<std::ptrdiff_t>(at), bytes, true);
}

void DeviceBytes::read(std::size_t at, void* to, std::size_t bytes) const {
  const Allocation& a = *allocation_;
  if (at > a.data.size() || bytes > a.data.size() - at) {
    throw Error(Kind::kOutOfBounds, "the host reads beyond the end of " + a.name);
  }
  const auto first = a.written.begin() + static_cast<std::ptrdiff_t>(at);
  const auto hole = std::find(first, first + static_cast<std::ptrdiff_t>(bytes), false);
  if (hole != first + static_cast<std::ptrdiff_t>(bytes)) {
    throw Error(Kind::kUninitialised, "the host reads byte " + std::to_string(hole - a.written.begin()) +
                                          " of " + a.name + ", where nobody has written");
  }
  if (bytes) std::memcpy(to, a.data.data() + at, bytes);
}

void read_global(Way way, const void* address, std::size_t bytes, std::size_t alignment, void* to,
                 const Site& site) {
  const Place place = check(way, reinterpret_cast<std::uintptr_t>(address), bytes, alignment, site);
  if (way == Way::kLoadFresh) order(way, place, bytes, site);
  std::memcpy(to, place.allocation.data.data() + place.at, bytes);
}

void write_global(void* address, std::size_t bytes, std::size_t alignment, const void* from,
                  const Site& site) {
  const auto p = reinterpret_cast<std::uintptr_t>(address);
  const Place place = check(Way::kStore, p, bytes, alignment, site);
  order(Way::kStore, place, bytes, site);
  Machine& machine = Machine::get();
  // A counter may be set back by a thread that has counted, in the end.
  for (std::uintptr_t counter = p / 4 * 4; counter < p + bytes; counter += 4) {
    if (machine.ordering().counted(counter) &&
        !machine.ordering().after_counts(counter, place.thread.number)) {
      machine.fail(Kind::kRace, site,
                   "store to a counter of " + place.allocation.name + " that others count up");
    }
  }
  std::memcpy(place.allocation.data.data() + place.at, from, bytes);
  std::fill_n(place.allocation.written.begin() + static_cast<std::ptrdiff_t>(place.at), bytes, true);
}

std::uint32_t count_up_global(std::uint32_t* address, const Site& site) {
  const auto p = reinterpret_cast<std::uintptr_t>(address);
  const Place place = check(Way::kCount, p, sizeof(std::uint32_t), sizeof(std::uint32_t), site);
  order(Way::kCount, place, sizeof(std::uint32_t), site);
  Machine::get().ordering().count(p, place.thread.number);
  std::uint32_t value;
  std::memcpy(&value, place.allocation.data.data() + place.at, sizeof value);
  const std::uint32_t next = value + 1;
  std::memcpy(place.allocation.data.data() + place.at, &next, sizeof next);
  return value;
}

void fence_global(const Site& site) {
  Machine& machine = Machine::get();
  machine.ordering().fence(machine.running(site).number);
}

void check_copy(const void* address, const Site& site) {
  check(Way::kCopy, reinterpret_cast<std::uintptr_t>(address), 16, 16, site);
}

void land_copy(std::uintptr_t address, void* to) {
  const Allocation* const allocation = AddressSpace::get().at(address);
  std::memcpy(to, allocation->data.data() + (address - allocation->base), 16);
}

}  // namespace bidtrie::emulator
