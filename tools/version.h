// The one place that says which version this is: launcher, broker and install read it from here.
#ifndef TOOLS_VERSION_H_
#define TOOLS_VERSION_H_

namespace latchkey {

inline constexpr char kVersionText[] = "0.1.0";

}  // namespace latchkey

#endif  // TOOLS_VERSION_H_
