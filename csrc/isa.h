// Which instruction set's ops run.
#pragma once

#include <string>
#include <vector>

#include "ops.h"

namespace ramet {

const Ops& ops();                            // of the one in use
std::string isa();                           // its name
std::vector<std::string> available_isas();   // best first
void set_isa(const std::string& name);       // std::invalid_argument if this machine cannot run it
std::string build_id();

}  // namespace ramet
