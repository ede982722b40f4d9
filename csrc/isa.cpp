#include "isa.h"

#include <gnu/libc-version.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace ramet {

#if defined(__x86_64__)
namespace avx512 {
extern const Ops ops;
}
namespace avx2 {
extern const Ops ops;
}
#endif
namespace portable {
extern const Ops ops;
}

namespace {

struct Isa {
  const char* name;
  const Ops* ops;
};

std::vector<Isa> runnable() {
  std::vector<Isa> found;
#if defined(__x86_64__)
  const bool fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (fma && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    found.push_back({"avx512", &avx512::ops});
  if (fma) found.push_back({"avx2", &avx2::ops});
#endif
  found.push_back({"portable", &portable::ops});
  return found;
}

const std::vector<Isa>& isas() {
  static const std::vector<Isa> all = runnable();
  return all;
}

const Isa* find(const std::string& name) {
  for (const Isa& candidate : isas())
    if (name == candidate.name) return &candidate;
  std::string message = "this machine cannot run the instruction set '" + name + "'; it runs";
  for (const Isa& candidate : isas()) message += std::string(" ") + candidate.name;
  throw std::invalid_argument(message);
}

const Isa* from_environment() {
  const char* const name = std::getenv("RAMET_ISA");
  return name == nullptr || *name == '\0' ? &isas().front() : find(name);
}

std::atomic<const Isa*>& current() {
  static std::atomic<const Isa*> in_use{from_environment()};
  return in_use;
}

}  // namespace

const Ops& ops() { return *current().load()->ops; }

std::string isa() { return current().load()->name; }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& each : isas()) names.emplace_back(each.name);
  return names;
}

void set_isa(const std::string& name) { current() = find(name); }

// The sources, the compiler and the C library's mathematics decide the bits, and so does the instruction set.
std::string build_id() {
  return std::string(RAMET_SOURCES_HASH) + "/" + RAMET_COMPILER + "/glibc-" + gnu_get_libc_version() + "/" + isa();
}

}  // namespace ramet
