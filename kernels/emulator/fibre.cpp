#include "emulator/fibre.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

// BIDTRIE_EMULATOR_UCONTEXT takes the portable way where the quick one is there too, to test it.
#if !defined(__x86_64__) || !defined(__linux__) || defined(BIDTRIE_EMULATOR_UCONTEXT)
#define BIDTRIE_UCONTEXT
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace bidtrie::emulator {

#ifndef BIDTRIE_UCONTEXT

// Stores the stack pointer at *from and goes on with `to`. What a callee must preserve lies on the stack;
// swapcontext would make two system calls for the signal mask, which costs ten times as much.
extern "C" void bidtrie_emulator_switch(void** from, void* to);
asm(R"(
  .text
  .p2align 4
  .hidden bidtrie_emulator_switch
  .globl bidtrie_emulator_switch
  .type bidtrie_emulator_switch, @function
bidtrie_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size bidtrie_emulator_switch, .-bidtrie_emulator_switch
)");

#endif

namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kStackBytes = 256 << 10;  // its frames are far larger
#else
constexpr std::size_t kStackBytes = 64 << 10;
#endif

}  // namespace

struct Fibre::State {
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
  std::byte* memory = nullptr;  // a page that nobody may touch, then the stack
  std::size_t page = 0;
#ifdef BIDTRIE_UCONTEXT
  ucontext_t fibre{}, host{};
#else
  void *fibre = nullptr, *host = nullptr;  // stack pointers
#endif
#ifdef __SANITIZE_ADDRESS__
  void *fake_fibre = nullptr, *fake_host = nullptr;
  const void* host_stack = nullptr;
  std::size_t host_stack_bytes = 0;
#endif

  static State* current;

  void enter() {
    State* const outer = current;
    current = this;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&fake_host, memory + page, kStackBytes);
#endif
#ifdef BIDTRIE_UCONTEXT
    swapcontext(&host, &fibre);
#else
    bidtrie_emulator_switch(&host, fibre);
#endif
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_host, nullptr, nullptr);
#endif
    current = outer;
  }

  void leave() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&fake_fibre, host_stack, host_stack_bytes);
#endif
#ifdef BIDTRIE_UCONTEXT
    swapcontext(&fibre, &host);
#else
    bidtrie_emulator_switch(&fibre, host);
#endif
    arrived();
  }

  // The first thing on the fibre's stack after every switch to it.
  void arrived() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_fibre, &host_stack, &host_stack_bytes);
#endif
  }
};

Fibre::State* Fibre::State::current = nullptr;

Fibre::Fibre() : state_(std::make_unique<State>()) {
  state_->page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* const memory = mmap(nullptr, state_->page + kStackBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  state_->memory = static_cast<std::byte*>(memory);
  mprotect(memory, state_->page, PROT_NONE);
  std::byte* const stack = state_->memory + state_->page;
#ifdef BIDTRIE_UCONTEXT
  getcontext(&state_->fibre);
  state_->fibre.uc_stack.ss_sp = stack;
  state_->fibre.uc_stack.ss_size = kStackBytes;
  makecontext(&state_->fibre, &Fibre::run, 0);
#else
  // As bidtrie_emulator_switch leaves a stack: six registers, then where to go on. A function starts with the
  // stack pointer 8 bytes under a multiple of 16.
  void* frame[8] = {};
  frame[6] = reinterpret_cast<void*>(&Fibre::run);
  state_->fibre = stack + kStackBytes - sizeof frame;
  std::memcpy(state_->fibre, frame, sizeof frame);
#endif
}

Fibre::~Fibre() {
  munmap(state_->memory, state_->page + kStackBytes);
}

void Fibre::run() {
  State& state = *State::current;
  state.arrived();
  for (;;) {
    state.body(state.argument);
    state.leave();
  }
}

void Fibre::resume(void (*body)(void*), void* argument) {
  state_->body = body;
  state_->argument = argument;
  state_->enter();
}

void Fibre::pause() {
  State::current->leave();
}

}  // namespace bidtrie::emulator
